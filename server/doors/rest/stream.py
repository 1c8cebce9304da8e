"""Server-sent events: a thread's events as they come, to a client that may be slow, silent or gone.

Above: `events` and `threads`, which declare the endpoints. Below: the frames of `Service.live`. Each frame has a name,
one line of data, and, where the stream can be resumed after it, the number of its place in the log as its id.

A connection keeps one frame in memory and its place in the log, however far behind it is: what it has not taken yet is
read from the store when it takes it. One that takes nothing at all for a while is dropped, and told so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.doors.observe import seen
from server.doors.rest import envelope
from server.doors.rest.endpoint import Call
from server.errors import InvalidRequest, Unauthenticated
from server.sessions.live import PREVIEWS

if TYPE_CHECKING:
    from server.sessions.live import Frame

logger = logging.getLogger(__name__)

PING_SECONDS = 8.0
"""Between frames, at most: clients and proxies take ten silent seconds and more for a broken connection."""
LINGER_SECONDS = 60.0
"""For a reader that was dropped to come back and read why. Its follower is gone by then; its socket is all it holds."""
MOST_PREVIEWS = 100
"""Values of `event_deltas[]` in one request, as the hosted service has it."""
LAST_EVENT_ID = "last-event-id"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'

QUERY: Mapping[str, Mapping[str, Any]] = {
    "event_deltas[]": {
        "type": "array",
        "items": {"type": "string", "enum": list(PREVIEWS)},
        "maxItems": MOST_PREVIEWS,
        "description": "Types of events to be shown while they are written.",
    },
    "after": {
        "type": "integer",
        "minimum": 0,
        "description": "Skiff's own: first everything above this number. Each event's number is the `id` of its frame;"
        " a client that reconnects sends the last one as `Last-Event-ID`, which counts before `after`.",
    },
}


async def stream(call: Call) -> Response:
    """The stream of a session, or of the thread that the path names. Raises NotFound, InvalidRequest."""
    chosen = call.query.many("event_deltas[]")
    if len(chosen) > MOST_PREVIEWS:
        raise InvalidRequest(f"event_deltas[]: at most {MOST_PREVIEWS} values, not {len(chosen)}.")
    if wrong := [value for value in chosen if value not in PREVIEWS]:
        raise InvalidRequest(f"event_deltas[]: must be {' or '.join(PREVIEWS)}, not {wrong[0]!r:.80}.")
    frames = await call.uses.sessions.live(
        call.path["session_id"], call.path.get("thread_id"), previews=set(chosen), after=_after(call)
    )
    return EventStream(frames, call.uses.stall_seconds, call.known)


def _after(call: Call) -> int | None:
    """Where to go on from. The header wins: a browser that reconnects sends it to the address it first asked."""
    last = call.request.headers.get(LAST_EVENT_ID)
    if not last:
        return call.query.number("after", 0, 10**15)
    if not (last.isascii() and last.isdigit() and len(last) <= 15):
        raise InvalidRequest(f"Last-Event-ID: must be the id of an event of this stream, not {last!r:.80}.")
    return int(last)


class _Stalled(Exception):
    """The reader has taken nothing for too long."""


class EventStream(Response):
    """An answer that goes on until the session is deleted, the client gone, or its key good no more."""

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncGenerator[Frame], stall_seconds: float, known: Callable[[], Awaitable[object]]
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._stall = stall_seconds
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve. The head goes out at once: whoever has it misses nothing that comes after."""
        gone = asyncio.create_task(_left(receive))
        last = b""
        try:
            async with aclosing(self._frames) as frames:
                try:
                    await self._put(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await self._serve(frames, send, gone)
                except _Stalled:
                    problem = f"The stream was dropped: nothing was read for {self._stall:g} s. Resume it."
                    last = _error(envelope.API, problem, seen(scope).id)
                except Unauthenticated as error:
                    last = _error(error.wire_type, str(error), seen(scope).id)
                except Exception:
                    logger.exception("%s: the stream broke", seen(scope).id)
                    last = _error(envelope.API, envelope.UNEXPECTED, seen(scope).id)
            if not gone.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_SECONDS):
                        await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            gone.cancel()
            await asyncio.wait({gone})

    async def _serve(self, frames: AsyncGenerator[Frame], send: Send, gone: asyncio.Task[None]) -> None:
        """Every frame as it comes, and a ping where none does. Raises Unauthenticated once the key is revoked."""
        coming, looked = asyncio.create_task(_next(frames)), time.monotonic()
        try:
            while True:
                if time.monotonic() - looked >= PING_SECONDS:
                    await self._known()
                    looked = time.monotonic()
                await asyncio.wait((coming, gone), timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                if not coming.done():
                    await self._put(send, {"type": "http.response.body", "body": PING, "more_body": True})
                    continue
                frame = coming.result()
                if frame is None:
                    return
                coming = asyncio.create_task(_next(frames))
                await self._put(send, {"type": "http.response.body", "body": encoded(frame), "more_body": True})
        finally:
            coming.cancel()
            await asyncio.wait({coming})

    async def _put(self, send: Send, part: dict[str, Any]) -> None:
        """Send, which waits while the client's buffers are full. Raises _Stalled."""
        try:
            async with asyncio.timeout(self._stall):
                await send(part)
        except TimeoutError:
            raise _Stalled from None


def encoded(frame: Frame) -> bytes:
    """A frame as bytes."""
    place = "" if frame.seq is None else f"id: {frame.seq}\n"
    data = json.dumps(frame.event, ensure_ascii=False, separators=(",", ":"))
    return f"event: {frame.event['type']}\n{place}data: {data}\n\n".encode()


def _error(kind: str, problem: str, request_id: str) -> bytes:
    data = json.dumps(envelope.body(kind, problem, request_id))
    return f"event: error\ndata: {data}\n\n".encode()


async def _next(frames: AsyncGenerator[Frame]) -> Frame | None:
    return await anext(frames, None)


async def _left(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
