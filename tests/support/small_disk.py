"""A disk of a few megabytes, to be filled and emptied: a tmpfs, mounted for the length of a test."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.sandboxes import data_folder

MEGABYTES = 12
PORTIONS = (1 << 20, 1 << 12, 1)
"""Bytes written at a time until the disk takes no more of them: so it is filled to the last."""


def require_small_disk() -> None:
    """Skip the running test, or fail it on the machine that must not, where nothing can be mounted."""
    if os.geteuid() == 0:
        return
    if os.environ.get("SKIFF_REQUIRE_DOCKER") == "1":
        pytest.fail("SKIFF_REQUIRE_DOCKER=1, but only root can mount a small disk")
    pytest.skip("NOT TESTED: only root can mount a small disk")


@dataclass
class SmallDisk:
    """The disk, with the data folder on it."""

    top: Path

    @property
    def folder(self) -> Path:
        return self.top / "data"

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte more fits on it for the length of the block."""
        ballast = self.top / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in PORTIONS:
                _write_all_that_fits(file.fileno(), b"." * size)
        try:
            yield
        finally:
            ballast.unlink(missing_ok=True)


def _write_all_that_fits(descriptor: int, portion: bytes) -> None:
    while True:
        try:
            if os.write(descriptor, portion) < len(portion):
                return
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


@contextmanager
def small_disk() -> Iterator[SmallDisk]:
    """Mounted, and gone with all that is on it at the end of the block."""
    require_small_disk()
    with data_folder() as top:
        options = f"size={MEGABYTES}m,mode=711"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "skiff-test", str(top)], check=True, timeout=30)
        try:
            disk = SmallDisk(top)
            disk.folder.mkdir()
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(top)], check=True, timeout=30)
