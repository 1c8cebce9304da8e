"""The host's end of a sandbox's network streams: frames in, byte streams out.

Above: whoever serves a stream (`proxy`). Below: the channel, which passes `net.*` frames to `handle` and sends ours.
The frames come from inside the sandbox and are read as hostile: whatever breaks the rules resets its stream and no
other. This module does not know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from sandbox.errors import SandboxError
from sandbox.wire import NET_ACK, NET_PORTION, NET_STREAMS, NET_WINDOW, Frame, net_share

MAX_BUFFERED = 16 << 20
"""Bytes that one sandbox may leave unread here. An honest runner, which keeps to `net_share`, never passes 13 MiB."""
LINGER_SECONDS = 5.0
LINGER_BYTES = 4 << 20
"""After an answer the rest of a request is read and dropped for so long: a client that is cut off while it still sends
may lose the answer, above all a refusal."""
MAX_RESETS = 2 * NET_STREAMS
"""Resets waiting to be sent. An honest runner keeps to NET_STREAMS; a flood of opens goes unanswered."""

Send = Callable[[Frame], Awaitable[None]]
Serve = Callable[["MuxStream"], Awaitable[None]]


class StreamReset(ConnectionResetError):
    """The stream is over: the other side reset it, or broke its rules."""


class NetMux:
    """All network streams of one sandbox.

    `send` delivers a frame and may wait; `serve` is run in a task of its own for every stream and is cancelled when the
    stream is reset. When it returns the stream is ended, when it raises OSError the stream is reset.
    """

    def __init__(self, send: Send, serve: Serve) -> None:
        self._send = send
        self._serve = serve
        self._streams: dict[int, MuxStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._resets: dict[int, str] = {}
        self._resetting: asyncio.Task[None] | None = None
        self._buffered = 0
        self._closed = False

    def handle(self, frame: Frame) -> None:
        """Take a `net.*` frame. Never waits, never raises; frames of unknown streams and kinds are ignored."""
        number = frame.header.get("stream")
        if self._closed or type(number) is not int or not 0 < number < 1 << 53:
            return
        if frame.type == "net.open":
            self._open(number)
            return
        stream = self._streams.get(number)
        if stream is None:
            return
        if frame.type == "net.data":
            self._take_data(stream, frame.body)
        elif frame.type == "net.window":
            self._take_credit(stream, frame.header.get("bytes"))
        elif frame.type == "net.end":
            stream.take_end()
        elif frame.type == "net.reset":
            self._drop(stream)

    async def close(self) -> None:
        """Cancel every stream and wait until its task is over. Nothing is sent: the channel may be gone."""
        self._closed = True
        self._resets.clear()
        tasks = self._tasks | ({self._resetting} if self._resetting else set())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # what a stream needs of its mux

    async def send(self, kind: str, number: int, body: bytes = b"", **header: object) -> None:
        await self._send(Frame({"t": kind, "stream": number, **header}, body))

    def share(self) -> int:
        """Bytes that one stream may have in flight now."""
        return net_share(len(self._streams))

    def consumed(self, count: int) -> None:
        self._buffered -= count

    def forget(self, stream: MuxStream) -> None:
        """The stream is over on both sides; its number means nothing any more."""
        if self._streams.get(stream.number) is stream:
            del self._streams[stream.number]

    # what frames do

    def _open(self, number: int) -> None:
        if number in self._streams:
            self.reset(self._streams[number], "opened twice")
        elif len(self._tasks) >= NET_STREAMS:
            self._announce_reset(number, f"more than {NET_STREAMS} connections")
        else:
            stream = self._streams[number] = MuxStream(self, number)
            stream.task = task = asyncio.create_task(self._run(stream))
            self._tasks.add(task)
            task.add_done_callback(lambda task: self._finished(stream, task))

    def _finished(self, stream: MuxStream, task: asyncio.Task[None]) -> None:
        """A task is over, perhaps cancelled before its first step: what nobody will read counts no longer."""
        self._tasks.discard(task)
        self._buffered -= stream.discard()

    def _take_data(self, stream: MuxStream, body: bytes) -> None:
        if self._buffered + len(body) > MAX_BUFFERED:
            self.reset(stream, "too much unread data of this sandbox")
        elif stream.take_data(body):
            self._buffered += len(body)
        else:
            self.reset(stream, "data beyond the window or the end")

    def _take_credit(self, stream: MuxStream, count: object) -> None:
        if type(count) is not int or not stream.take_credit(count):
            self.reset(stream, "credit for bytes never sent")

    def reset(self, stream: MuxStream, why: str) -> None:
        """Break a stream off: tell the other side, stop its task."""
        if self._streams.get(stream.number) is stream:
            self._announce_reset(stream.number, why)
            self._drop(stream)

    def _drop(self, stream: MuxStream) -> None:
        self.forget(stream)
        stream.broken = True
        if stream.task is not None:
            stream.task.cancel()

    def _announce_reset(self, number: int, why: str) -> None:
        if self._closed or len(self._resets) >= MAX_RESETS:
            return
        self._resets[number] = why
        if self._resetting is None or self._resetting.done():
            self._resetting = asyncio.create_task(self._send_resets())

    async def _send_resets(self) -> None:
        with contextlib.suppress(OSError, SandboxError):
            while self._resets:
                number = next(iter(self._resets))
                await self.send("net.reset", number, why=self._resets.pop(number))

    async def _run(self, stream: MuxStream) -> None:
        """The life of one stream. An error that is not the network's is a bug: it is reported, the stream reset."""
        why = "cancelled"
        try:
            await self._serve(stream)
            await stream.end()
            await stream.drain()
            why = "nothing more is read"
        except (OSError, SandboxError) as error:
            why = str(error)
        except Exception as error:
            why = "internal error"
            context = {"message": "serving a network stream failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        finally:
            stream.task = None
            self.reset(stream, why)


class MuxStream:
    """One connection from inside, as a two-way byte stream for one reader and one writer."""

    def __init__(self, mux: NetMux, number: int) -> None:
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self.broken = False
        self._mux = mux
        self._buffer = bytearray()
        self._granted = NET_WINDOW
        self._consumed = 0
        self._got_end = False
        self._readable = asyncio.Event()
        self._unacked = 0
        self._sent_end = False
        self._writable = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes, at most NET_PORTION of them; b"" after the other side's end. Raises StreamReset."""
        while not self._buffer and not self._got_end:
            self._check()
            self._readable.clear()
            await self._readable.wait()
        self._check()
        data = bytes(self._buffer[:NET_PORTION])
        del self._buffer[: len(data)]
        self._mux.consumed(len(data))
        self._consumed += len(data)
        if self._consumed >= NET_ACK and not self._got_end:
            granted, self._consumed = self._consumed, 0
            self._granted += granted
            await self._mux.send("net.window", self.number, bytes=granted)
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the other side has a full share of them unread. Raises StreamReset."""
        view = memoryview(data)
        while view:
            self._check()
            room = self._mux.share() - self._unacked
            if room <= 0:
                self._writable.clear()
                await self._writable.wait()
                continue
            portion = bytes(view[: min(room, NET_PORTION)])
            view = view[len(portion) :]
            self._unacked += len(portion)
            await self._mux.send("net.data", self.number, portion)

    async def end(self) -> None:
        """No more will be written. Reading goes on. Calling it again does nothing."""
        if self._sent_end or self.broken:
            return
        self._sent_end = True
        await self._mux.send("net.end", self.number)
        self._forget_when_over()

    async def drain(self) -> None:
        """Read and drop what the other side still sends, within LINGER_SECONDS and LINGER_BYTES."""
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while dropped < LINGER_BYTES and (data := await self.read()):
                    dropped += len(data)

    # what frames do; False says that the frame breaks the rules

    def take_data(self, body: bytes) -> bool:
        if self._got_end or len(body) > self._granted:
            return False
        self._granted -= len(body)
        self._buffer += body
        self._readable.set()
        return True

    def take_credit(self, count: int) -> bool:
        if not 0 < count <= self._unacked:
            return False
        self._unacked -= count
        self._writable.set()
        return True

    def take_end(self) -> None:
        self._got_end = True
        self._readable.set()
        self._forget_when_over()

    def discard(self) -> int:
        """Forget what was never read; how many bytes that was."""
        count = len(self._buffer)
        self._buffer.clear()
        return count

    def _check(self) -> None:
        if self.broken:
            raise StreamReset("the stream was reset")

    def _forget_when_over(self) -> None:
        if self._sent_end and self._got_end:
            self._mux.forget(self)
