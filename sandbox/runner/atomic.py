"""Replacing a file as a whole: readers see the old content or the new, never a half.

Above: `files` and `workspace`. It knows an open folder and a name in it, and no path.
"""

from __future__ import annotations

import contextlib
import os

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace(folder: int, name: str, data: bytes, mode: int) -> None:
    """Put `data` at `name` in the folder that the descriptor `folder` holds open, with these permission bits.

    A temporary file beside it is renamed over it; without fsync, for a sandbox's files need not outlive a power cut.
    Raises OSError; then nothing has changed.
    """
    temporary = f".skiff-{os.urandom(8).hex()}.tmp"
    descriptor = os.open(temporary, _FLAGS, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) or 0 :]
            os.fchmod(file.fileno(), mode)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
