"""A session's files, for whoever sent the agent out: list, read, write, and what the agent hands out. Always through
the runner, never by the host.

A session whose sandbox was never made shows its staged files; a stopped sandbox is started, one that was put away is
brought back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mimetypes
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import SandboxError, SandboxGone
from sandbox.wire import OUTPUTS, Call, Fetch, List_, Operation, Outputs, Put, Remove, Result
from server.errors import Conflict, InvalidRequest, NotFound
from server.ids import new_id, now
from server.sessions.sandboxing import outputs
from server.sessions.sandboxing.sandboxes import Sandboxes
from server.sessions.spec import thaw
from server.store.files import Seen
from server.store.store import SessionRow, Store

logger = logging.getLogger(__name__)

MAX_FILE = 10 << 20
"""Bytes of one file written from outside."""
MAX_STAGED = 20 << 20
"""Bytes of all files that wait for a sandbox: they are kept in the database until then."""
PATIENCE = 60.0
"""Seconds that a request waits in line for a sandbox, where all that are allowed are in use."""
MAX_STAGED_FILES = 500
"""How many may wait: each is a round trip when the sandbox is made."""


@dataclass(frozen=True)
class Entry:
    """An entry of a folder."""

    name: str
    type: str
    size: int | None


@dataclass(frozen=True)
class Folder:
    """A page of a folder; `next` is the name to go on after, None at the end."""

    path: str
    entries: list[Entry]
    total: int
    next: str | None


@dataclass(frozen=True)
class File:
    """A portion of a file."""

    path: str
    content: bytes
    offset: int
    size: int
    media_type: str


class Workspaces:
    """The workspaces of all sessions, as far as this process's engine can reach them."""

    def __init__(self, store: Store, sandboxes: Sandboxes) -> None:
        self._store = store
        self._sandboxes = sandboxes

    async def read(self, row: SessionRow, path: str, *, after: str, offset: int, limit: int) -> Folder | File:
        """A page of the folder, or a portion of the file, at `path` (relative to the workspace, or below OUTPUTS).

        Raises NotFound when there is nothing, InvalidRequest for a path outside, Conflict when no sandbox can be had.
        """
        path = clean(path)
        if await self._store.sandbox(row.id) is None:
            return _staged(await self._store.staged_files(row.id), path, offset, limit)
        listed = await self._do(row, List_(path, after, 200))
        if listed.ok:
            return _folder(path, listed)
        fetched = await self._do(row, Fetch(path, offset, limit))
        if not fetched.ok:
            raise NotFound(_words(fetched))
        return _file(path, fetched)

    async def write(self, row: SessionRow, path: str, content: bytes) -> None:
        """Place a file. Raises InvalidRequest when it is too large or the path leads outside, Conflict as above."""
        path = clean(path)
        if path == "." or path.startswith("/"):
            raise InvalidRequest("Give the path of a file in the workspace, such as `notes.txt`.")
        if len(content) > MAX_FILE:
            raise InvalidRequest(f"{path}: at most {MAX_FILE:,} bytes can be written at once.")
        if await self._store.sandbox(row.id) is None:
            check_staged({**await self._store.staged_files(row.id), path: content})
            if await self._store.stage_file(row.id, path, content):
                return
        written = await self._do(row, Put(path), content)
        if not written.ok:
            raise InvalidRequest(_words(written))

    async def outputs(self, row: SessionRow) -> list[Seen]:
        """Every file below OUTPUTS; none when the sandbox was never made. Raises Conflict as above."""
        if await self._store.sandbox(row.id) is None:
            return []
        listed = await self._do(row, Outputs())
        if not listed.ok:
            raise Conflict(f"The session's outputs cannot be listed: {_words(listed)}")
        found = outputs.read(listed.body, now())
        if listed.meta.get("total") != len(found):
            logger.warning("%s: of %r outputs %d are shown", row.id, listed.meta.get("total"), len(found))
        return found

    async def remove_output(self, row: SessionRow, path: str) -> None:
        """Delete a file below OUTPUTS. Raises InvalidRequest, Conflict as above."""
        if await self._store.sandbox(row.id) is None:
            return
        removed = await self._do(row, Remove(path))
        if not removed.ok:
            raise InvalidRequest(_words(removed))

    async def mount(self, session_id: str) -> None:
        """See `Sandboxes.mount`."""
        await self._sandboxes.mount(session_id)

    def attached(self, session_id: str) -> bool:
        """Whether the session's sandbox is live now."""
        return self._sandboxes.attached(session_id)

    async def _do(self, row: SessionRow, operation: Operation, body: bytes = b"") -> Result:
        """Call and settle, whatever becomes of the caller: an unsettled result stays in the runner's memory."""
        return await asyncio.shield(asyncio.ensure_future(self._whole(row, Call(new_id("work"), operation, body=body))))

    async def _whole(self, row: SessionRow, call: Call) -> Result:
        """All of these can be done twice: one that meets a sandbox which was lost or frozen is done in the next."""
        try:
            try:
                return await self._once(row, call)
            except SandboxGone:
                return await self._once(row, call)
        except SandboxError as error:
            raise Conflict(f"The workspace cannot be reached: {error}") from error

    async def _once(self, row: SessionRow, call: Call) -> Result:
        async with self._sandboxes.use(row.id, thaw(row.spec), PATIENCE) as sandbox:
            result = await sandbox.call(call)
            await sandbox.settle([call.op_id])
            return result


def clean(path: str) -> str:
    """A path relative to the workspace, without `.` and `..`, or an absolute one below OUTPUTS.

    Raises InvalidRequest when it leads elsewhere.
    """
    if "\0" in path:
        raise InvalidRequest("A path cannot contain a NUL character.")
    if (handed_out := posixpath.normpath(path)) == OUTPUTS or handed_out.startswith(OUTPUTS + "/"):
        return handed_out
    inside = path.removeprefix("/workspace/") if path != "/workspace" else "."
    normal = posixpath.normpath(inside or ".")
    if normal.startswith(("/", "../")) or normal == "..":
        raise InvalidRequest(f"{path!r} is outside the workspace. Give a path relative to /workspace.")
    return normal


def check_staged(files: Mapping[str, bytes]) -> None:
    """Raises InvalidRequest when these cannot all wait in the database and be placed later. Paths are clean ones."""
    total = sum(map(len, files.values()))
    if total > MAX_STAGED or len(files) > MAX_STAGED_FILES:
        raise InvalidRequest(
            f"{len(files):,} files of {total:,} bytes in all; before the sandbox exists, {MAX_STAGED_FILES:,} files of"
            f" {MAX_STAGED:,} bytes can wait."
        )
    for path in files:
        if path == "." or path.startswith("/"):
            raise InvalidRequest(f"{path[:80]!r} cannot be the path of a file in the workspace.")
        if len(path.encode()) > 1024 or any(len(part.encode()) > 255 for part in path.split("/")):
            raise InvalidRequest(f"{path[:80]!r} cannot be the path of a file in the workspace.")
        above = [parent for parent in _parents(path) if parent in files]
        if above:
            raise InvalidRequest(f"{above[0]!r} cannot be a file and the folder of {path!r} at once.")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _staged(files: Mapping[str, bytes], path: str, offset: int, limit: int) -> Folder | File:
    if path in files:
        return _portion(path, files[path], offset, limit)
    prefix = "" if path == "." else path + "/"
    entries: dict[str, Entry] = {}
    for name, content in files.items():
        if name.startswith(prefix):
            first, _, rest = name[len(prefix) :].partition("/")
            entries[first] = Entry(first, "dir", None) if rest else Entry(first, "file", len(content))
    if not entries and path != ".":
        raise NotFound(f"{path}: no such file or folder.")
    return Folder(path, sorted(entries.values(), key=lambda entry: entry.name), len(entries), None)


def _portion(path: str, content: bytes, offset: int, limit: int) -> File:
    kind = mimetypes.guess_type(path)[0] or ("application/octet-stream" if b"\0" in content else "text/plain")
    return File(path, content[offset : offset + limit], offset, len(content), kind)


def _folder(path: str, result: Result) -> Folder:
    listed: list[Mapping[str, Any]] = json.loads(result.body)
    entries = [Entry(str(item["name"]), str(item["type"]), item.get("size")) for item in listed]
    following = result.meta.get("next")
    return Folder(path, entries, int(result.meta.get("total", len(entries))), following if following else None)


def _file(path: str, result: Result) -> File:
    meta = result.meta
    media = str(meta.get("media_type") or "application/octet-stream")
    return File(path, result.body, int(meta.get("offset", 0)), int(meta.get("size", len(result.body))), media)


def _words(result: Result) -> str:
    return result.body.decode("utf-8", "replace")[:500]
