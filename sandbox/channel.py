"""The server's end of the frames: one attachment to one runner.

Above: `sandbox.docker`, `sandbox.local`. Below: `wire`, and a `Transport` that the backend brings (an engine's attach
stream, a pair of pipes). The channel owns its tasks: `open` starts them, `close` ends and awaits them. The runner is
read as hostile: what it sends can fail this channel, never the server. It does not know containers or sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from sandbox import wire
from sandbox.errors import ProtocolError, SandboxError, SandboxGone
from sandbox.protocol import OnOutput

log = logging.getLogger(__name__)

OPEN_SECONDS = 3.0
"""For the answer to `attach`: milliseconds are usual, a busy machine takes one second."""
PING_SECONDS = 3.0
MAX_GARBAGE = wire.MAX_BODY + (1 << 20)
"""Bytes that are no frames: the rest of one largest frame that a former owner left unread, and a little."""
SETTLE_SECONDS = 0.05
"""Until the runner is told which results are stored: what comes after a result is the next model request, and with the
fastest of answers the next call, which takes the word along. The runner keeps a result for longer at no cost."""
MAX_OUTBOX = 4 << 20
"""Bytes waiting to be written before `send` waits: a few large files; one frame may exceed it alone."""
MAX_NET_QUEUE = 32 << 20
"""Bytes of network frames waiting for an asynchronous handler: 128 full windows. More breaks the windows' rule."""
FRAME_COST = 256
"""Counted for each waiting network frame beside its body, so that empty ones are bounded too."""

MAX_EPOCH = (1 << 63) - 1
"""Far beyond what a clock gives, and within what a frame can carry."""

OnNet = Callable[[wire.Frame], Awaitable[None] | None]


class Transport(Protocol):
    """An ordered byte stream, already connected."""

    async def read(self) -> bytes:
        """The next portion, of any size; b"" at the end. May raise OSError."""

    def write(self, data: bytes) -> bool:
        """Begin to write all of it, behind what was written before. Whether all is on its way; if not, `drain` is due
        before the next. May raise OSError."""

    async def drain(self) -> None:
        """Wait while the other side does not read. May raise OSError."""

    async def close(self) -> None:
        """Drop the connection, discarding what is unwritten. Idempotent; a pending read or write may simply hang
        (its task is cancelled before)."""


class _Pending:
    """An operation whose result is awaited, by any number of callers."""

    def __init__(self, result: asyncio.Future[wire.Result]) -> None:
        self.result = result
        self.callers = 0
        self.followers: list[OnOutput] = []


class RunnerChannel:
    """One attachment. `open` it, use it, `close` it; a channel that failed stays failed, make a new one.

    incarnation  the runner's random name for its life, known after `open`
    ops          unsettled operations that the runner reported at `open`: op id -> "running" or "done"
    """

    def __init__(self, transport: Transport, on_net: OnNet | None = None) -> None:
        self.incarnation = ""
        self.ops: dict[str, str] = {}
        self.epoch = time.time_ns()
        self._outranked = False
        self._transport = transport
        self._decoder = wire.Decoder(MAX_GARBAGE)
        self._pending: dict[str, _Pending] = {}
        self._pongs: dict[int, asyncio.Future[None]] = {}
        self._pings = 0
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._settled: list[str] = []
        self._settling: asyncio.TimerHandle | None = None
        self._draining = False
        self._full = asyncio.Event()
        self._room_to_write = asyncio.Event()
        self._room_to_write.set()
        self._on_net = on_net
        self._net_waits = on_net is not None and _is_async(on_net)
        self._net_queue: deque[wire.Frame] = deque()
        self._net_bytes = 0
        self._net_came = asyncio.Event()
        self._hello: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._error: SandboxError | None = None
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self, timeout: float = OPEN_SECONDS) -> None:
        """Attach: become the runner's owner and learn who it is.

        Raises SandboxGone when it does not answer within `timeout` seconds or a newer owner exists, ProtocolError
        when it speaks another version. The channel is closed then.
        """
        loop = asyncio.get_running_loop()
        self._hello = loop.create_future()
        self._tasks = [loop.create_task(self._read()), loop.create_task(self._drain())]
        if self._net_waits:
            self._tasks.append(loop.create_task(self._handle_net()))
        try:
            async with asyncio.timeout(timeout):
                await self.send(wire.Frame({"t": "attach"}))
                await self._hello
        except TimeoutError:
            await self.close()
            raise SandboxGone(f"the sandbox's runner did not answer within {timeout:g} s") from None
        except BaseException:
            await self.close()
            raise
        self.watch()

    async def close(self) -> None:
        """Let go: pending calls raise SandboxGone, the tasks are ended and awaited, the transport is closed."""
        self._fail(SandboxGone("the sandbox was let go by this process"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        with contextlib.suppress(OSError):
            await self._transport.close()

    @property
    def error(self) -> SandboxError | None:
        """Why the channel cannot be used any more; None while it can."""
        return self._error

    def watch(self) -> None:
        """Watch for silence from now on (`open` does it): SILENCE_SECONDS without a byte fail the channel."""
        self.unwatch()
        self._heard = asyncio.get_running_loop().time()
        self._check_silence()

    def unwatch(self) -> None:
        """Stop watching: the backend is about to freeze the sandbox. `watch` again after thawing."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _check_silence(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._heard + wire.SILENCE_SECONDS - loop.time()
        if left <= 0:
            self._fail(SandboxGone(f"the sandbox's runner was silent for {wire.SILENCE_SECONDS:g} s"))
        else:
            self._watch = loop.call_later(left, self._check_silence)

    # --- verbs --------------------------------------------------------------------------------------------------------

    async def call(self, call: wire.Call, on_output: OnOutput | None = None) -> wire.Result:
        """Do an operation, as `protocol.Sandbox.call` promises. A call too large for a frame is an error result.

        Raises SandboxGone or ProtocolError when the channel fails first.
        """
        pending = self._pending.get(call.op_id)
        if pending is None:
            self._raise_if_failed()
            frame = call.frame()
            try:
                data = self._encode(frame)
            except ValueError as error:
                return wire.Result(call.op_id, False, f"Too large to send to the sandbox: {error}".encode())
            pending = self._pending[call.op_id] = _Pending(asyncio.get_running_loop().create_future())
        else:
            data = b""
        pending.callers += 1
        if on_output is not None:
            pending.followers.append(on_output)
        try:
            if data:
                await self._put(data)
            return await asyncio.shield(pending.result)
        finally:
            self._leave(call.op_id, pending, on_output)

    def _leave(self, op_id: str, pending: _Pending, on_output: OnOutput | None) -> None:
        """A caller goes; with the last one the operation is no longer awaited (it runs on)."""
        pending.callers -= 1
        if on_output is not None:
            pending.followers.remove(on_output)
        if pending.callers == 0:
            if self._pending.get(op_id) is pending:
                del self._pending[op_id]
            if pending.result.done() and not pending.result.cancelled():
                pending.result.exception()  # seen: no "never retrieved" warning

    async def cancel(self, op_id: str) -> None:
        """Stop a running operation; its result still comes to `call`. No-op when it is over."""
        await self.send(wire.Frame({"t": "cancel", "op": op_id}))

    async def settle(self, op_ids: Sequence[str]) -> None:
        """These results are stored; the runner may forget them. It is told with the next frame or SETTLE_SECONDS later.

        Raises SandboxGone or ProtocolError when the channel has failed.
        """
        self._raise_if_failed()
        self._settled += op_ids
        if self._settled and self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._tell_settled)

    def _tell_settled(self) -> None:
        self._queue(self._settlement())

    def _settlement(self) -> bytes:
        """The frame that tells what was settled since the last time, if anything was."""
        if self._settling is None:
            return b""
        self._settling.cancel()
        self._settling = None
        ops, self._settled = self._settled, []
        return self._encode(wire.Frame({"t": "settle", "ops": ops}))

    async def ping(self, timeout: float = PING_SECONDS) -> None:
        """Return when the runner has answered. Raises SandboxGone after `timeout` seconds."""
        self._raise_if_failed()
        self._pings += 1
        number = self._pings
        pong = self._pongs[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self.send(wire.Frame({"t": "ping", "n": number}))
                await pong
        except TimeoutError:
            raise SandboxGone(f"the sandbox's runner did not answer a ping within {timeout:g} s") from None
        finally:
            del self._pongs[number]

    async def send(self, frame: wire.Frame) -> None:
        """Queue a frame under this attachment's epoch; waits while more than MAX_OUTBOX bytes wait.

        Raises SandboxGone or ProtocolError when the channel has failed, ValueError for a frame over the wire's limits.
        """
        await self._put(self._encode(frame))

    def _encode(self, frame: wire.Frame) -> bytes:
        return wire.encode(wire.Frame(frame.header, frame.body, self.epoch))

    async def _put(self, data: bytes) -> None:
        self._raise_if_failed()
        while self._outbox_bytes > MAX_OUTBOX:
            self._room_to_write.clear()
            await self._room_to_write.wait()
            self._raise_if_failed()
        self._queue(self._settlement() + data)  # at once: each write wakes the engine and the runner

    def _queue(self, data: bytes) -> None:
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        if not self._draining:
            try:
                self._send()
            except OSError as error:
                self._fail(SandboxGone(f"the connection to the sandbox broke: {error}"))

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise type(self._error)(str(self._error))

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Write whole frames in order, as many as the transport takes."""
        while self._outbox:
            data = self._outbox.popleft()
            self._outbox_bytes -= len(data)
            if not self._transport.write(data):
                self._draining = True
                self._full.set()
                return

    async def _drain(self) -> None:
        """Goes on where the transport was full. A task of its own, so that a cancelled caller holds up nothing."""
        try:
            while True:
                await self._full.wait()
                self._full.clear()
                await self._transport.drain()
                self._draining = False
                self._send()
                if self._outbox_bytes <= MAX_OUTBOX:
                    self._room_to_write.set()
        except OSError as error:
            self._fail(SandboxGone(f"the connection to the sandbox broke: {error}"))

    async def _read(self) -> None:
        """Never waits for anybody but the runner."""
        loop = asyncio.get_running_loop()
        try:
            while data := await self._transport.read():
                self._heard = loop.time()
                for frame in self._decoder.feed(data):
                    self._handle(frame)
            self._fail(SandboxGone("the sandbox ended, or its connection did"))
        except OSError as error:
            self._fail(SandboxGone(f"the connection to the sandbox broke: {error}"))
        except (ProtocolError, SandboxGone) as error:
            self._fail(error)
        except (ValueError, RecursionError) as error:  # the decoder's bound; JSON nested a thousand deep
            self._fail(ProtocolError(f"the sandbox's runner broke the protocol: {error}"))

    def _fail(self, error: SandboxError) -> None:
        """The end of the channel: whoever waits learns why."""
        if self._error is not None:
            return
        self._error = error
        self.unwatch()
        if self._settling is not None:
            self._settling.cancel()
        waiting: list[asyncio.Future[Any]] = [pending.result for pending in self._pending.values()]
        waiting += self._pongs.values()
        waiting += [self._hello] if self._hello is not None else []
        for future in waiting:
            if not future.done():
                future.set_exception(type(error)(str(error)))
                future.exception()  # seen, though whoever awaited it may have been cancelled
        self._room_to_write.set()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    # --- frames from the runner ---------------------------------------------------------------------------------------

    def _handle(self, frame: wire.Frame) -> None:
        if frame.type == "refused" and frame.epoch > self.epoch:
            self._outrank(frame.epoch)
            return
        if frame.epoch != self.epoch:
            return  # meant for a former owner
        if frame.type == "result":
            self._handle_result(frame)
        elif frame.type == "output":
            self._handle_output(frame)
        elif frame.type == "pong":
            number = frame.header.get("n")
            pong = self._pongs.get(number) if isinstance(number, int) else None
            if pong is not None and not pong.done():
                pong.set_result(None)
        elif frame.type == "hello":
            self._handle_hello(frame.header)
        elif frame.type == "refused":
            log.warning("sandbox runner refused a frame: %.200r", frame.header.get("why"))
        elif frame.type.startswith("net.") and self._on_net is not None:
            self._pass_to_net(frame)

    def _outrank(self, epoch: int) -> None:
        """Whoever attached last is the owner, and the numbers come from a clock: where that was set back since, this
        attachment takes the next number, once. An attachment that was open already has really been succeeded."""
        opening = self._hello is not None and not self._hello.done()
        if not opening or self._outranked or epoch >= MAX_EPOCH:
            raise SandboxGone("a newer owner has attached to the sandbox")
        self._outranked, self.epoch = True, epoch + 1
        self._queue(self._encode(wire.Frame({"t": "attach"})))

    def _handle_hello(self, header: dict[str, Any]) -> None:
        version, incarnation, ops = header.get("version"), header.get("incarnation"), header.get("ops")
        if not isinstance(incarnation, str) or not 0 < len(incarnation) <= 64 or not isinstance(ops, dict):
            raise ProtocolError("the sandbox's runner sent a malformed hello")
        if version != wire.VERSION:
            raise ProtocolError(
                f"the sandbox's runner speaks version {str(version)[:20]} of the protocol, this server {wire.VERSION}; "
                "remove the sandbox and rebuild its image"
            )
        if self.incarnation not in ("", incarnation):
            raise SandboxGone("the sandbox's runner was replaced by another")
        self.incarnation = incarnation
        self.ops = {str(op_id): str(state) for op_id, state in ops.items()}
        if self._hello is not None and not self._hello.done():
            self._hello.set_result(None)

    def _handle_result(self, frame: wire.Frame) -> None:
        result = wire.parse_result(frame)
        pending = self._pending.get(result.op_id)
        if pending is not None and not pending.result.done():
            pending.result.set_result(result)

    def _handle_output(self, frame: wire.Frame) -> None:
        op_id = frame.header.get("op")
        pending = self._pending.get(op_id) if isinstance(op_id, str) else None
        for follower in list(pending.followers) if pending is not None else ():
            try:
                follower(frame.body)
            except Exception:  # a follower's bug must not end the attachment of all others
                log.exception("a follower of sandbox output failed")

    def _pass_to_net(self, frame: wire.Frame) -> None:
        """A plain handler is called at once; an asynchronous one has its own task and a bounded queue."""
        if self._net_waits:
            self._net_bytes += len(frame.body) + FRAME_COST
            if self._net_bytes > MAX_NET_QUEUE:
                raise ProtocolError("the sandbox's runner sent more network data than its windows allow")
            self._net_queue.append(frame)
            self._net_came.set()
            return
        try:
            if self._on_net is not None:
                self._on_net(frame)
        except Exception:
            log.exception("handling a network frame of a sandbox failed")

    async def _handle_net(self) -> None:
        while True:
            await self._net_came.wait()
            while self._net_queue:
                frame = self._net_queue.popleft()
                self._net_bytes -= len(frame.body) + FRAME_COST
                try:
                    answer = self._on_net(frame) if self._on_net is not None else None
                    if answer is not None:
                        await answer
                except Exception:
                    log.exception("handling a network frame of a sandbox failed")
            self._net_came.clear()


def _is_async(handler: OnNet) -> bool:
    """Whether calling it gives something to await (also an object with an async __call__)."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
