"""The election: an exclusive lock on a file in the data folder. The kernel frees it when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class EngineLock:
    """`try_take` until it is yours; `release` when you stop. Closing the process releases it too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def try_take(self) -> bool:
        """Whether this process holds the lock now. Never blocks."""
        if self._file is not None:
            return True
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._file = handle
        return True

    def release(self) -> None:
        """Let another process become the engine."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
