"""Bounds on memory, processes and processors: cgroups where the server may make them, rlimits always.

Above: `backend` (what can be promised), `process` (applies them before the first instruction inside). Below: the
cgroup file systems of either version, and the kernel's release. It knows nothing of bubblewrap.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox.protocol import SandboxSpec

ROOT = Path("/sys/fs/cgroup")
PARENT = "skiff"
PERIOD_US = 100_000
"""The kernel's default accounting period for processor time."""
OPEN_FILES = 16_384
"""Enough for a watcher on a large tree; the kernel's memory for them is the sandbox's own where it is bounded."""
REMOVE_TRIES, REMOVE_PAUSE = 50, 0.02
"""A group may be busy for a moment after its last process died: one second in all."""


class Group(Protocol):
    """The cgroup of one sandbox."""

    def add(self, pid: int) -> None:
        """Take in a process; what it starts later is in too."""

    def freeze(self, frozen: bool) -> None:
        """Stop all processes where they are, or let them go on."""

    async def remove(self) -> None:
        """Remove the empty group. Never raises: a left-over is swept at the next start."""


class Cgroups(Protocol):
    """A way to make groups."""

    def make(self, name: str, spec: SandboxSpec) -> Group:
        """A group with the bounds of `spec`. Raises OSError."""

    def sweep(self, prefix: str) -> None:
        """Remove empty groups whose name begins with `prefix`, left by a server that was killed."""


def find_cgroups(root: Path = ROOT) -> Cgroups | None:
    """The version that this process may write to, or None (no root, or a read-only mount in a container)."""
    for kind in (CgroupsV2, CgroupsV1):
        with contextlib.suppress(OSError):
            return kind(root)
    return None


@dataclass(frozen=True)
class _Folders:
    """A group as one folder (version 2) or one for each controller (version 1)."""

    folders: Sequence[Path]
    freezer: Path
    words: tuple[str, str]
    """(thawed, frozen) in the freezer's language."""

    def add(self, pid: int) -> None:
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def freeze(self, frozen: bool) -> None:
        self.freezer.write_text(self.words[frozen])

    async def remove(self) -> None:
        for folder in self.folders:
            for _ in range(REMOVE_TRIES):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    await asyncio.sleep(REMOVE_PAUSE)


class CgroupsV1:
    """One hierarchy for each controller."""

    controllers = ("memory", "pids", "cpu", "freezer")

    def __init__(self, root: Path) -> None:
        self._bases = [root / controller / PARENT for controller in self.controllers]
        for base in self._bases:
            if not (base.parent / "cgroup.procs").exists():
                raise FileNotFoundError(base.parent)
            _make_parent(base)

    def make(self, name: str, spec: SandboxSpec) -> Group:
        memory, pids, cpu, freezer = folders = [base / name for base in self._bases]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        size = str(spec.memory_mb << 20)
        (memory / "memory.limit_in_bytes").write_text(size)
        with contextlib.suppress(OSError):  # kernels without swap accounting
            (memory / "memory.memsw.limit_in_bytes").write_text(size)
        (pids / "pids.max").write_text(str(spec.pids))
        (cpu / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (cpu / "cpu.cfs_quota_us").write_text(str(int(spec.cpus * PERIOD_US)))
        return _Folders(folders, freezer / "freezer.state", ("THAWED", "FROZEN"))

    def sweep(self, prefix: str) -> None:
        for base in self._bases:
            _sweep(base, prefix)


class CgroupsV2:
    """One hierarchy; the controllers have to be handed down first."""

    controllers = ("memory", "pids", "cpu")

    def __init__(self, root: Path) -> None:
        offered = (root / "cgroup.controllers").read_text().split()
        if not set(self.controllers) <= set(offered):
            raise FileNotFoundError("controllers")
        self._base = root / PARENT
        _make_parent(self._base)
        wanted = " ".join(f"+{controller}" for controller in self.controllers)
        for folder in (root, self._base):
            (folder / "cgroup.subtree_control").write_text(wanted)

    def make(self, name: str, spec: SandboxSpec) -> Group:
        folder = self._base / name
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(str(spec.memory_mb << 20))
        with contextlib.suppress(OSError):  # kernels without swap accounting
            (folder / "memory.swap.max").write_text("0")
        (folder / "pids.max").write_text(str(spec.pids))
        (folder / "cpu.max").write_text(f"{int(spec.cpus * PERIOD_US)} {PERIOD_US}")
        return _Folders([folder], folder / "cgroup.freeze", ("0", "1"))

    def sweep(self, prefix: str) -> None:
        _sweep(self._base, prefix)


def _make_parent(base: Path) -> None:
    """Raises PermissionError also when another user's server made it before."""
    base.mkdir(exist_ok=True)
    if not os.access(base, os.W_OK):
        raise PermissionError(base)


def _sweep(base: Path, prefix: str) -> None:
    for folder in base.glob(f"{prefix}*/"):
        with contextlib.suppress(OSError):
            folder.rmdir()


def counts_processes_by_namespace() -> bool:
    """Since Linux 5.14 RLIMIT_NPROC inside a user namespace counts that namespace alone. Before, it counted all
    processes of the user on the host, and setting it would let a busy desktop starve its sandboxes."""
    release = os.uname().release.split("-")[0].split(".")
    return tuple(int(part) for part in release[:2] if part.isdigit()) >= (5, 14)


def rlimits(spec: SandboxSpec, in_cgroup: bool) -> dict[str, int]:
    """Bounds of each process by itself, as bash's `ulimit` names them: letter -> count, or KiB.

    Without a cgroup, the data segment stands in for the memory bound: a guard against a runaway rather than a bound
    on the whole. The address space (-v) is of no use: Node reserves far more addresses than it fills.
    """
    bounds = {"c": 0, "f": spec.disk_mb << 10, "n": OPEN_FILES}
    if not in_cgroup:
        bounds["d"] = spec.memory_mb << 10
        if counts_processes_by_namespace():
            bounds["u"] = spec.pids
    return bounds
