"""The folders of the embedded backend: one for each slot, and the parts that every sandbox is given.

    <root>/parts/               runner/ and etc/, written at each start of the server
    <root>/<slot>/workspace/    what a session owns: the agent's files
    <root>/<slot>/outputs/      and what it hands out; these two a sandbox can write
    <root>/<slot>/uploads/      what it was given: ours, and shown inside read-only

Above: `backend`, `sandbox`. Below: `process`. What is inside a workspace is read, counted, packed and deleted by
helper commands that run in a sandbox of their own: nothing on the host follows an agent's symlinks or recurses into
its folders, and a tree that was made to be hard to delete meets `find`, not us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from sandbox import wire
from sandbox.errors import SandboxError, SandboxUnavailable, SpecRefused, WorkspaceGone
from sandbox.local import process
from sandbox.local.command import OWN_ETC, packing_argv
from sandbox.local.host import Host, enterable
from sandbox.local.process import Place
from sandbox.packing import SILENCE_SECONDS, failed, feed, within
from sandbox.protocol import SandboxSpec
from sandbox.wire import OUTPUTS

PARTS = "parts"
_SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_HELPER_SPEC = SandboxSpec(memory_mb=256, disk_mb=1 << 20, pids=64)
"""For du and find: they write nothing."""
HELPER_SECONDS = 600.0
"""A full workspace of millions of small files takes minutes to delete on a slow disk."""


class Workspaces:
    """The folder of all workspaces of one installation."""

    def __init__(self, root: Path, host: Host) -> None:
        self._root = root
        self._host = host

    def prepare(self) -> None:
        """Make the root and write the parts anew: they belong to this version of the server."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._root.chmod(0o711 if self._host.uid is not None else 0o700)
        self._sweep_parts()
        fresh = self._root / f".{PARTS}.{os.getpid()}"
        package = Path(wire.__file__).parent
        shutil.copytree(
            package / "runner", fresh / "runner/sandbox/runner", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in ("__init__.py", "wire.py"):
            shutil.copyfile(package / name, fresh / "runner/sandbox" / name)
        (fresh / "etc").mkdir()
        for name, text in OWN_ETC.items():
            (fresh / "etc" / name).write_text(text)
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self._bring_bwrap(fresh)
        shutil.rmtree(self._root / PARTS, ignore_errors=True)
        fresh.rename(self._root / PARTS)

    def _sweep_parts(self) -> None:
        """Remove the half-written parts of processes that are no more."""
        for half in self._root.glob(f".{PARTS}.*"):
            if not Path("/proc", half.name.rpartition(".")[2]).exists():
                shutil.rmtree(half, ignore_errors=True)

    def _bring_bwrap(self, fresh: Path) -> None:
        """Copy bubblewrap and its libraries where the sandboxes' user may start it (root's pip puts it into /root)."""
        binary, uid = self._host.bwrap, self._host.uid
        if uid is None or enterable(binary.parent, uid):
            return
        package = binary.parent.parent
        shutil.copytree(binary.parent, fresh / package.name / binary.parent.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        self._host = replace(self._host, bwrap=self._root / PARTS / package.name / binary.parent.name / binary.name)

    @property
    def trial(self) -> Place:
        """A place to try whether sandboxes can be made at all; its workspace is nobody's."""
        parts = self._root / PARTS
        return Place(self._host, parts, parts / "runner")

    def slots(self) -> list[str]:
        """Every slot that has a folder, sorted."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in os.scandir(self._root) if entry.name != PARTS and self._is(entry))
        return []

    def _is(self, entry: os.DirEntry[str]) -> bool:
        return bool(_SLOT.fullmatch(entry.name)) and entry.is_dir(follow_symlinks=False)

    def make(self, slot: str) -> Place:
        """An empty workspace. Raises SpecRefused for a name that is no file name, SandboxUnavailable if it exists."""
        place = self._place(slot)
        try:
            place.workspace.parent.mkdir(mode=0o711 if self._host.uid is not None else 0o700)
            self._make_folder(place.workspace)
            self._make_session_folders(place)
        except FileExistsError:
            raise SandboxUnavailable(
                f"slot {slot} already has a workspace: attach to it, or destroy it first"
            ) from None
        except OSError as error:
            raise SandboxUnavailable(f"no workspace could be made in {self._root}: {error.strerror}") from error
        return place

    def _make_session_folders(self, place: Place) -> None:
        """Those for files given and handed out, where they are missing."""
        assert place.uploads is not None and place.outputs is not None
        place.uploads.mkdir(mode=0o755, exist_ok=True)
        if not place.outputs.is_dir():
            self._make_folder(place.outputs)

    def _make_folder(self, path: Path) -> None:
        """A folder that is the sandbox's own."""
        path.mkdir(mode=0o700)
        if self._host.uid is not None:
            os.chown(path, self._host.uid, self._host.uid)

    def find(self, slot: str) -> Place:
        """The workspace that a slot has. Raises WorkspaceGone when there is none."""
        place = self._place(slot)
        if not place.workspace.is_dir():
            raise WorkspaceGone(f"the workspace of {slot} is gone from {self._root}")
        self._make_session_folders(place)
        return place

    def _place(self, slot: str) -> Place:
        if not _SLOT.fullmatch(slot) or slot == PARTS:
            raise SpecRefused(f"{slot!r} cannot name a workspace: letters, digits, `_`, `.` and `-`, at most 128")
        folder = self._root / slot
        return Place(self._host, self._root / PARTS, folder / "workspace", folder / "uploads", folder / "outputs")

    async def remove(self, slot: str) -> None:
        """Delete a slot with all that is in it. Its processes must have ended. Idempotent.

        Raises SandboxError when something could not be deleted; it can be tried again.
        """
        place = self._place(slot)
        assert place.uploads is not None and place.outputs is not None
        if place.workspace.is_dir():
            self._make_session_folders(place)
            # Folders without permission bits must be opened first; -depth deletes children before their parents.
            both = f"/workspace {OUTPUTS}"
            script = f"chmod -R u+rwx {both}; exec find {both} -mindepth 1 -delete"
            await run(place, ["/bin/bash", "-c", script])
        await asyncio.to_thread(shutil.rmtree, place.uploads, ignore_errors=True)  # ours: nothing in it is the agent's
        for folder in (place.outputs, place.workspace, place.workspace.parent):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SandboxError(f"{folder} could not be deleted: {error.strerror}") from error


async def pack(place: Place, spec: SandboxSpec) -> AsyncGenerator[bytes]:
    """What is in the folders, packed by a process of its own; see `sandbox.protocol.SandboxBackend.pack`."""
    helper = await process.start(
        replace(place, uploads=None, only_read=True), packing_argv(place.host.python, "pack"), spec, None
    )
    try:
        while portion := await within(SILENCE_SECONDS, helper.read()):
            yield portion
        await _ended_well(helper)
    finally:
        await helper.end()


async def unpack(place: Place, spec: SandboxSpec, portions: AsyncIterator[bytes]) -> None:
    """Fill the folders; see `sandbox.protocol.SandboxBackend.unpack`."""
    helper = await process.start(place, packing_argv(place.host.python, "unpack"), spec, None)
    try:
        await feed(helper, portions)
        await _ended_well(helper)
    finally:
        await helper.end()


async def _ended_well(helper: process.Process) -> None:
    if code := await within(HELPER_SECONDS, helper.wait()):
        raise failed(helper.last_words or str(code))


async def used_mb(place: Place) -> int:
    """MiB that workspace and outputs take up on disk. What the agent made unreadable for itself is not counted."""
    said = await run(place, ["/bin/du", "-sxmc", "/workspace", OUTPUTS])
    return int(said.split()[-2]) if said.split() else 0


async def run(place: Place, argv: Sequence[str]) -> bytes:
    """The first 64 KiB of what a helper command says. Raises SandboxError when it takes over HELPER_SECONDS."""
    helper = await process.start(place, argv, _HELPER_SPEC, None)
    said = b""
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            while portion := await helper.read():
                said = (said + portion)[: 64 << 10]
            await helper.wait()
    except TimeoutError:
        raise SandboxError(f"{argv[0]} on {place.workspace} took more than {HELPER_SECONDS:.0f} s") from None
    finally:
        await helper.end()
    return said
