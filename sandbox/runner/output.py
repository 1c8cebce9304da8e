"""What is kept of a command's output, and what goes to a file.

Above: `shell`. Below: `loop`, files in the workspace. Memory is bounded whatever a command writes. It does not decode:
bytes stay bytes, the server replaces what is no UTF-8.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Tuple

from sandbox.runner.loop import Loop

WHOLE_BYTES = 100_000
"""Output up to this is returned whole: what the wire's tool set lets a result hold (100,000 characters)."""
PREVIEW_BYTES = 16_000
"""Kept of each end of a longer output: enough for an error message at either end, small in the model's context."""
SPILL_BYTES = 16 << 20
"""Written of one output to a file; the rest is read and dropped, so that an endless writer costs nothing."""
LATE_BYTES = 1 << 20
"""Written of what background processes say after their call has ended."""
KEEP_BYTES = 128 << 20
"""Held by all output files together; the oldest are removed first, or they would fill the workspace's disk."""
MAX_LATE = 64
"""Background writers listened to at once, a descriptor each; the oldest is cut off (its next write fails)."""
DRAIN_BYTES = 1 << 18
"""Read from one pipe before the loop looks at others."""
READ_BYTES = 1 << 16


class Spill:
    """A bounded file of output. `problem` says why it is not whole; it never raises."""

    def __init__(self, path: str, limit: int) -> None:
        self.path, self.size, self.problem = path, 0, ""
        self._limit = limit
        self._fd = -1
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # EXCL and NOFOLLOW: a FIFO or link planted there must not block or lead elsewhere
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o644)
        except OSError as error:
            self.problem = f"it could not be kept in {path}: {error.strerror}"

    def write(self, data: bytes) -> None:
        if self._fd < 0 or self.problem:
            return
        part = memoryview(data)[: self._limit - self.size]
        try:
            while part:
                written = os.write(self._fd, part)
                self.size += written
                part = part[written:]
        except OSError as error:
            self.problem = f"only its first {self.size:,} bytes are in {self.path}: {error.strerror}"
        if not self.problem and self.size >= self._limit:
            self.problem = f"only its first {self.size:,} bytes are in {self.path}"

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Capture:
    """Takes output in portions; keeps it whole up to WHOLE_BYTES, then both ends here and the whole in a file."""

    def __init__(self, path: str) -> None:
        self.total = 0
        self.spill: Optional[Spill] = None
        self._path = path
        self._head = bytearray()
        self._tail = bytearray()

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        if self.spill is None and self.total <= WHOLE_BYTES:
            self._head += data
            return
        if self.spill is None:
            self.spill = Spill(self._path, SPILL_BYTES)
            self.spill.write(bytes(self._head))
            self._tail = self._head[PREVIEW_BYTES:]
            del self._head[PREVIEW_BYTES:]
        self.spill.write(data)
        self._tail += data[-PREVIEW_BYTES:]
        del self._tail[:-PREVIEW_BYTES]
        missing = PREVIEW_BYTES - len(self._head)  # one huge first portion: nothing was in the head yet
        if missing > 0:
            self._head += data[:missing]

    def finish(self) -> Tuple[bytes, Dict[str, object]]:
        """The body of the result and what meta says about it."""
        if self.spill is None:
            return bytes(self._head), {"total_bytes": self.total}
        self.spill.close()
        head, tail = trim_end(bytes(self._head)), trim_start(bytes(self._tail))
        where = self.spill.problem or f"the whole output is in {self.spill.path}"
        left_out = self.total - len(head) - len(tail)
        middle = f"\n\n[... {left_out:,} of {self.total:,} bytes left out; {where} ...]\n\n"
        meta: Dict[str, object] = {"total_bytes": self.total, "truncated": True}
        if self.spill.size:
            meta["spilled"] = self.spill.path
        return head + middle.encode() + tail, meta


def trim_end(data: bytes) -> bytes:
    """Without a UTF-8 character that was cut in the middle at the end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        width = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if width > back else data
    return data


def trim_start(data: bytes) -> bytes:
    """Without the rest of a UTF-8 character that was cut in the middle at the start."""
    for skip in range(min(4, len(data))):
        if data[skip] & 0xC0 != 0x80:
            return data[skip:]
    return data


class Late:
    """Goes on reading a pipe after its call has ended, so that the background writer neither blocks nor is heard
    in a later result. The file is made at the first byte."""

    def __init__(self, loop: Loop, fd: int, path: str, on_file: Callable[[Spill], None]) -> None:
        self._loop, self._fd, self._path, self._on_file = loop, fd, path, on_file
        self._spill: Optional[Spill] = None
        loop.selector.register(fd, selectors.EVENT_READ, self._readable)

    @property
    def open(self) -> bool:
        return self._fd >= 0

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._spill is not None:
            self._spill.close()

    def _readable(self, _mask: int) -> None:
        data = read_some(self._fd)
        if data == b"":
            self.close()
        elif data:
            if self._spill is None:
                self._spill = Spill(self._path, LATE_BYTES)
                self._on_file(self._spill)
            self._spill.write(data)


class Outputs:
    """The folder of output files, and the background writers still listened to."""

    def __init__(self, loop: Loop, folder: str) -> None:
        self._loop, self._folder = loop, folder
        self._spills: List[Spill] = []
        self._late: Deque[Late] = deque()

    def path(self, op_id: str, suffix: str) -> str:
        """Where an operation's output goes. The id comes from outside: only harmless characters of it are used."""
        return os.path.join(self._folder, re.sub(r"[^A-Za-z0-9_-]", "_", op_id)[:80] + suffix)

    def capture(self, op_id: str) -> Capture:
        return Capture(self.path(op_id, ".txt"))

    def keep(self, spill: Optional[Spill]) -> None:
        """Count a file towards KEEP_BYTES, and remove the oldest while there is too much."""
        if spill is None:
            return
        self._spills.append(spill)
        while len(self._spills) > 1 and sum(s.size for s in self._spills) > KEEP_BYTES:
            with contextlib.suppress(OSError):  # the agent may have been quicker
                os.unlink(self._spills.pop(0).path)

    def listen_late(self, op_id: str, fd: int) -> str:
        """Take over a pipe that background processes still hold. Returns the path that their output goes to."""
        self._late = deque(late for late in self._late if late.open)
        if len(self._late) >= MAX_LATE:
            self._late.popleft().close()
        path = self.path(op_id, ".late.txt")
        self._late.append(Late(self._loop, fd, path, self.keep))
        return path


def read_some(fd: int) -> Optional[bytes]:
    """What a non-blocking pipe holds, up to READ_BYTES; b"" at its end, None when there is nothing now."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""
