"""List, fetch and put: the workspace as a host sees it, and nothing outside it.

Above: `files.perform`. Below: the kernel. The agent may swap any name for a symbolic link at any moment, so no path is
checked and then used: every component is opened beneath the one before it with O_NOFOLLOW, and links are read and
resolved here, against the workspace, instead of by the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import Any, Dict, List, Optional

from sandbox.runner import atomic
from sandbox.runner.media import HEAD_BYTES, media_type
from sandbox.runner.paths import require_regular
from sandbox.runner.replies import Refused, Reply, done, shown
from sandbox.wire import MAX_BODY, OUTPUTS, Fetch, List_, Put

MAX_LINKS = 40
"""Symbolic links followed on one path; the kernel's own limit."""
MAX_PATH = 2048
"""Bytes of a path: half of what the kernel takes, so that with the workspace before it every other tool can open it."""
MAX_PAGE = 1000
"""Entries in one page of a listing: about 100 KB of JSON."""
MAX_ENTRIES = 200_000
"""Names read from one folder; more would not fit in the memory of a small sandbox."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}


class Walker:
    """A way down from the workspace: a stack of open folders. A context manager that closes them."""

    def __init__(self, workspace: str) -> None:
        root = os.path.realpath(workspace)
        self._roots = (root, workspace.rstrip("/"))
        self._open = [os.open(root, _FOLDER)]
        self._links = 0

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    @property
    def folder(self) -> int:
        """The descriptor of the folder reached so far."""
        return self._open[-1]

    def parent_of(self, path: str, make: bool = False) -> str:
        """Go to the folder that holds `path`, links followed, and return the last name: '' is the folder itself.

        `make` creates folders that are missing. Raises Refused for a way out, OSError for a way that is not there.
        """
        if len(os.fsencode(path)) > MAX_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        todo = self._parts(path)
        while todo:
            name = todo.pop(0)
            if name == "..":
                self._up(path)
                continue
            target = self._target(name)
            if target is not None:
                todo = self._follow(target, path) + todo
            elif not todo:
                return name
            else:
                self.enter(name, make)
        return ""

    def _parts(self, path: str) -> List[str]:
        """The components of a path below the workspace; an absolute one must begin with the workspace."""
        if path.startswith("/"):
            root = next((root for root in self._roots if (path + "/").startswith(root + "/")), None)
            if root is None:
                raise _outside(path)
            path = path[len(root) :]
        return [part for part in path.split("/") if part not in ("", ".")]

    def _target(self, name: str) -> Optional[str]:
        """Where a symbolic link points; None for what is no link, or not there."""
        try:
            return os.readlink(name, dir_fd=self.folder)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise

    def _follow(self, target: str, path: str) -> List[str]:
        self._links += 1
        if self._links > MAX_LINKS:
            raise Refused(f"{shown(path)}: its symbolic links go in a circle; give the path of the real file.")
        try:
            parts = self._parts(target)
        except Refused:
            raise _outside(path) from None
        if target.startswith("/"):
            while len(self._open) > 1:
                os.close(self._open.pop())
        return parts

    def _up(self, path: str) -> None:
        if len(self._open) == 1:
            raise _outside(path)
        os.close(self._open.pop())

    def enter(self, name: str, make: bool = False) -> None:
        """Go down into a folder that is no link, made first if `make`. Raises OSError."""
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=self.folder)
        self._open.append(os.open(name, _FOLDER, dir_fd=self.folder))


def _outside(path: str) -> Refused:
    return Refused(f"{shown(path)} leads out of the workspace; give a path inside it, relative to its top.")


def _top(path: str, workspace: str) -> str:
    """The folder that a path must stay in: the one of outputs if it begins there, else the workspace."""
    return OUTPUTS if (path + "/").startswith(OUTPUTS + "/") else workspace


def list_folder(op: List_, workspace: str) -> Reply:
    """A page of a folder. See `wire.List_`. meta.total counts the whole folder, meta.next is the next `after`."""
    if not 1 <= op.limit <= MAX_PAGE:
        raise Refused(f"limit must be from 1 to {MAX_PAGE}, not {op.limit}.")
    with Walker(_top(op.path, workspace)) as way:
        name = way.parent_of(op.path)
        if name:
            way.enter(name)
        names = _names(way.folder, op.path)
        later = [n for n in names if n > op.after]
        page = later[: op.limit]
        entries = [entry for entry in (_entry(way.folder, n) for n in page) if entry]
    following = page[-1] if len(later) > len(page) else None
    return done(json.dumps(entries), total=len(names), next=following)


def _names(folder: int, path: str) -> List[str]:
    names: List[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(names) == MAX_ENTRIES:
                raise Refused(f"{shown(path)} holds more than {MAX_ENTRIES} entries; list its subfolders instead.")
            names.append(entry.name)
    return sorted(names)


def _entry(folder: int, name: str) -> Dict[str, Any]:
    """What is said of one name; {} when it went away meanwhile."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return {}
    kind = _TYPES.get(stat.S_IFMT(status.st_mode), "other")
    return {"name": name, "type": kind, "size": status.st_size, "mtime": status.st_mtime}


def fetch(op: Fetch, workspace: str) -> Reply:
    """Bytes of a regular file. See `wire.Fetch`. An offset at or past the end gives an empty body."""
    if op.offset < 0 or not 0 <= op.limit <= MAX_BODY:
        raise Refused(f"offset must not be negative and limit must be from 0 to {MAX_BODY} bytes.")
    with Walker(_top(op.path, workspace)) as way:
        name = way.parent_of(op.path)
        if not name:
            raise Refused(f"{shown(op.path)} is a folder; list it, or fetch a file in it.")
        descriptor = os.open(name, _FILE, dir_fd=way.folder)
        try:
            status = os.fstat(descriptor)
            require_regular(status.st_mode, op.path)
            head = os.pread(descriptor, HEAD_BYTES, 0)
            data = _pread(descriptor, op.limit, op.offset)
        finally:
            os.close(descriptor)
    meta = {"size": status.st_size, "mtime": status.st_mtime, "media_type": media_type(head), "offset": op.offset}
    return True, data, meta


def _pread(descriptor: int, limit: int, offset: int) -> bytes:
    portions: List[bytes] = []
    while limit > 0:
        portion = os.pread(descriptor, min(limit, 1 << 20), offset)
        if not portion:
            break
        portions.append(portion)
        limit, offset = limit - len(portion), offset + len(portion)
    return b"".join(portions)


def put(op: Put, body: bytes, workspace: str) -> Reply:
    """Place `body` at a path, atomically, with `mode`'s nine permission bits. A link inside is written through."""
    if not 0 <= op.mode <= 0o777:
        raise Refused(f"mode must be from 0 to 0o777, not {oct(op.mode)}.")
    if op.path.endswith("/"):
        raise Refused(f"{shown(op.path)} names a folder; add the file's name.")
    with Walker(workspace) as way:
        name = way.parent_of(op.path, make=True)
        existing = _status(way.folder, name)
        if not name or existing == stat.S_IFDIR:
            raise Refused(f"{shown(op.path)} is a folder and is not replaced; give the path of a file.")
        if existing:
            require_regular(existing, op.path)
        atomic.replace(way.folder, name, body, op.mode)
    return done(f"Wrote {len(body)} bytes to {shown(op.path)}", size=len(body))


def _status(folder: int, name: str) -> int:
    """The file type bits of a name, 0 when nothing is there."""
    try:
        return stat.S_IFMT(os.stat(name or ".", dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return 0
