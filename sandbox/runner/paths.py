"""Paths as a model writes them: where they lead, and what to say when they lead nowhere.

Above: `reading`, `editing`, `search`. Absolute paths are taken as they are, for the sandbox is the wall, not this code;
`workspace` has the stricter rules of what a host may reach.
"""

from __future__ import annotations

import itertools
import os
import stat
from typing import BinaryIO

from sandbox.runner.replies import Refused, shown

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NAMES_LOOKED_AT = 2000
"""Names of a folder that are compared to find a similar one: some 20 ms of work."""
_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a symbolic link"}


def resolve(path: str, workspace: str) -> str:
    """The absolute path; a relative one starts at the workspace. Raises Refused for an empty or impossible one."""
    if not path:
        raise Refused("The path is empty; give the path of a file, absolute or relative to " + shown(workspace) + ".")
    if "\0" in path:
        raise Refused("The path holds a NUL character, which no file name can; remove it.")
    return os.path.join(workspace, path)


def open_regular(path: str, follow: bool = True) -> BinaryIO:
    """A regular file, open for reading; a FIFO or device never blocks. Raises Refused, or OSError."""
    descriptor = os.open(path, _OPEN if follow else _OPEN | os.O_NOFOLLOW)
    try:
        require_regular(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_regular(mode: int, path: str) -> None:
    """Raises Refused unless `mode` is that of a regular file; says what it is instead."""
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise Refused(f"{shown(path)} is a folder, not a file; see what it holds with glob or bash (ls -la).")
    what = _KINDS.get(stat.S_IFMT(mode), "a device")
    raise Refused(f"{shown(path)} is {what}, not a regular file; give the path of a regular file.")


def missing(path: str) -> Refused:
    """The error for a path that is not there, with similar names or the nearest folder that is."""
    folder = os.path.dirname(path) or "/"
    if os.path.islink(path):
        return Refused(f"{shown(path)} is a symbolic link to {shown(os.readlink(path))}, which does not exist.")
    if os.path.isdir(folder):
        similar = _similar(os.path.basename(path), folder)
        hint = f" Did you mean {' or '.join(similar)}?" if similar else " Find it with glob or bash (ls)."
        return Refused(f"{shown(path)} does not exist.{hint}")
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return Refused(
        f"{shown(path)} does not exist; of its folders only {shown(folder)} does. Find it with glob or bash."
    )


def _similar(name: str, folder: str) -> list[str]:
    import difflib  # here, in a child that is about to end: the runner's own start does not pay for it

    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, _NAMES_LOOKED_AT)]
    except OSError:
        return []
    folded = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
    return [shown(os.path.join(folder, folded[other])) for other in close]
