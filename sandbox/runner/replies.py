"""What a file operation answers, and how its failures become sentences.

Above: `files`, `search`, `workspace`. Below: nothing. It knows neither operations nor paths' meaning.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Dict, Tuple

Reply = Tuple[bool, bytes, Dict[str, Any]]
"""(ok, body, meta) of a `wire.Result`."""

_ADVICE = {
    errno.EACCES: "permission denied; look at its mode and owner with bash (ls -la)",
    errno.EPERM: "operation not permitted; look at its mode and owner with bash (ls -la)",
    errno.EROFS: "the file system is read-only there; write below the workspace or /tmp",
    errno.ENOSPC: "no space is left on the disk; remove files you do not need, then try again. Nothing was changed",
    errno.EDQUOT: "the disk quota is used up; remove files you do not need, then try again. Nothing was changed",
    errno.ENOTDIR: "a part of the path is a file, not a folder; give another path",
    errno.ENAMETOOLONG: "the path is too long; use a shorter one",
    errno.ELOOP: "its symbolic links lead nowhere or leave the place allowed; give the path of the real file",
    errno.ENOENT: "no such file or folder",
    errno.ENXIO: "it is a socket or an unready device, not a regular file; give the path of a regular file",
    errno.EBUSY: "it is in use as a mount point and cannot be replaced; write to another path",
}


class Refused(Exception):
    """An operation that cannot be done as asked. The message is for the model: what is wrong and what to do next."""


def done(text: str, **meta: Any) -> Reply:
    """A successful reply of text; lone surrogates become backslash escapes."""
    return True, text.encode("utf-8", "backslashreplace"), meta


def failed(text: str) -> Reply:
    """An error reply."""
    return False, text.encode("utf-8", "backslashreplace"), {}


def shown(path: str) -> str:
    """A path as valid text on one line: undecodable bytes as \\xNN and line feeds as \\n, as bash's $'' does."""
    raw = path.encode("utf-8", "surrogateescape") if _encodable(path) else path.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace").replace("\n", "\\n")


def _encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def explain(error: OSError, path: str) -> str:
    """The sentence for what the file system said about `path`."""
    advice = _ADVICE.get(error.errno or 0) or (error.strerror or str(error)).lower()
    return f"{shown(path)}: {advice}."
