"""Frames in and out of two descriptors, without ever blocking.

Above: `core`. Below: `loop`, `wire`. Knows epochs only as a number that it stamps on what goes out.
"""

from __future__ import annotations

import os
import selectors
from collections import deque
from typing import Callable, Deque, Optional

from sandbox import wire
from sandbox.runner.loop import Loop, Timer

READ_SIZE = 1 << 16
SHED_BYTES = 1 << 20
"""Waiting output above which live `output` frames are dropped: they are best effort, the result has it all."""
MAX_PENDING = 128 << 20
"""Waiting output above which the owner is taken for dead: twice the journal. What is dropped can be asked for again
by resending `start`."""
PATIENCE_SECONDS = 0.3
"""Silence inside a frame after which a new owner's `attach` is looked for in what came: a live owner writes its frames
without pause, and one that attaches waits for 3 s."""


class Stream:
    """The runner's end of the byte stream to the server."""

    def __init__(self, loop: Loop, read_fd: int, write_fd: int, on_frame: Callable[[wire.Frame], None]) -> None:
        self.epoch = 0
        self.on_eof: Callable[[], None] = lambda: None
        self._loop, self._read_fd, self._write_fd, self._on_frame = loop, read_fd, write_fd, on_frame
        self._decoder = wire.Decoder()
        self._pending: Deque[memoryview] = deque()
        self._pending_bytes = 0
        self._partial = False
        self._patience: Optional[Timer] = None
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        loop.selector.register(read_fd, selectors.EVENT_READ, self._readable)

    def send(self, frame: wire.Frame) -> None:
        """Queue a frame and write what can be written now."""
        if self._pending_bytes > SHED_BYTES and frame.type == "output":
            return
        data = memoryview(wire.encode(wire.Frame(frame.header, frame.body, self.epoch)))
        if self._pending_bytes + len(data) > MAX_PENDING:
            self.drop_pending()
        self._pending.append(data)
        self._pending_bytes += len(data)
        if len(self._pending) == 1:
            self._write()

    def drop_pending(self) -> None:
        """A new owner: nothing of what waited for the old one is for it, but a frame begun must be ended."""
        begun = self._pending[0] if self._pending and self._partial else None
        self._pending.clear()
        self._pending_bytes = 0
        if begun is not None:
            self._pending.append(begun)
            self._pending_bytes = len(begun)

    def _readable(self, _mask: int) -> None:
        try:
            data = os.read(self._read_fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.forget(self._read_fd)
            self.on_eof()
            return
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        for frame in self._decoder.feed(data):
            self._on_frame(frame)
        if self._decoder.waiting:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self._rescue)

    def _rescue(self) -> None:
        for frame in self._decoder.rescue():
            self._on_frame(frame)

    def _writable(self, _mask: int) -> None:
        self._write()

    def _write(self) -> None:
        try:
            while self._pending:
                data = self._pending[0]
                written = os.write(self._write_fd, data[: 1 << 20])
                self._pending_bytes -= written
                self._partial = written < len(data)
                if self._partial:
                    self._pending[0] = data[written:]
                else:
                    self._pending.popleft()
        except BlockingIOError:
            self._watch(True)
            return
        except OSError:  # nobody reads any more; a new owner asks again for what it wants
            self._pending.clear()
            self._pending_bytes, self._partial = 0, False
        self._watch(False)

    def _watch(self, wanted: bool) -> None:
        registered = self._write_fd in self._loop.selector.get_map()
        if wanted and not registered:
            self._loop.selector.register(self._write_fd, selectors.EVENT_WRITE, self._writable)
        elif registered and not wanted:
            self._loop.forget(self._write_fd)
