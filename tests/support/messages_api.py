"""A strict Messages API over real HTTP, answered by the scripted model.

Above: tests, benchmarks and crash tests (`python -m tests.support.messages_api --port 0` prints the port). Below: the
product's own `ScriptedModel`; here are only the wire and the log. A raw asyncio protocol with whole answers written at
once keeps it out of the figures that are measured through it.

    POST /v1/messages     the API: x-api-key or bearer, and anthropic-version, are required
    POST /v1/messages/count_tokens   an estimate, for peers in benchmarks that ask for it
    GET /requests         the log: [{at, started, body, headers, status, aborted}], oldest first
    DELETE /requests      forget the log
    GET /arrivals         of each request in the log when it was whole, and the last text that was said: [[at, text]]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from server.providers.scripted.model import Answer, Failure, ScriptedModel
from server.providers.scripted.provider import is_text, text_pause
from server.providers.scripted.usage import count_tokens

PING_SECONDS = 5.0
"""How often a slow answer shows that it lives, about as the API does."""
MOST_BYTES = 32 << 20
"""Of a request, as the API has it."""
TOO_LARGE = Failure(413, "request_too_large", "Request exceeds the maximum size")
_REASONS = {200: "OK", 204: "No Content", 404: "Not Found"}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


@dataclass
class Received:
    """One request as it came. Times are CLOCK_MONOTONIC seconds, comparable between processes of one machine."""

    started: float
    """When its first byte was here."""
    at: float
    """When it was whole."""
    headers: dict[str, str]
    body: Any
    text: str = field(default="", repr=False)
    """The body's own bytes."""
    status: int = 0
    answered: float = 0.0
    """When the last byte of the answer was handed to the kernel; 0 until then."""
    aborted: bool = False
    """The client went away before the answer was complete."""
    frames: tuple[int, ...] = ()
    """Bytes of each event of an answer that was streamed at once."""


@dataclass
class MessagesAPI:
    """The server's state: its model, its log, and who wants to know of changes to the log."""

    model: ScriptedModel = field(default_factory=ScriptedModel)
    ping_seconds: float = PING_SECONDS
    most_bytes: int = MOST_BYTES
    requests: list[Received] = field(default_factory=list)
    deaths: deque[tuple[int, int]] = field(default_factory=deque)
    """The server dies while it answers: each is for one request, so many events and so many bytes of the next one
    still go out; -1 events: not even the head of the answer does."""
    keep: int | None = None
    """How many requests the log holds; None is all, which nothing that runs for long can afford."""
    port: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[Any]:
        return [received.body for received in self.requests]

    def notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[MessagesAPI], object], timeout: float = 10.0) -> None:
        """Block until the log fulfils the condition. Raises TimeoutError; call it from another thread only."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(f"the log never fulfilled the condition: {self.requests!r:.500}")


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: requests one after another, each answered before the next is looked at."""

    def __init__(self, api: MessagesAPI) -> None:
        self._api = api
        self._buffer = bytearray()
        self._started = 0.0
        self._task: asyncio.Task[None] | None = None
        self._current: Received | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._current is not None and not self._current.answered:
            self._current.aborted = True
        self._api.notify()

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._started = time.monotonic()
        self._buffer += data
        self._next()

    def _next(self) -> None:
        """Take the next whole request off the buffer, if there is one and nothing is being answered."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._task is not None:
            return
        line, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (row.partition(":") for row in lines)}
        size = int(headers.get("content-length", 0))
        if len(self._buffer) < end + 4 + size:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + size])
        del self._buffer[: end + 4 + size]
        self._handle(method, target.partition("?")[0], headers, body)

    def _handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        api = self._api
        if path == "/requests" and method == "GET":
            self._send(200, _encode([{**asdict(received), "text": ""} for received in api.requests]).encode())
        elif path == "/arrivals" and method == "GET":
            self._send(200, _encode([[received.at, _last_text(received.body)] for received in api.requests]).encode())
        elif path == "/requests" and method == "DELETE":
            api.requests.clear()
            self._send(204, b"")
        elif path == "/v1/messages" and method == "POST":
            self._message(headers, body)
        elif path == "/v1/messages/count_tokens" and method == "POST":
            self._send(200, _encode({"input_tokens": count_tokens(json.loads(body))}).encode())
        else:
            self._fail(Failure(404, "not_found_error", f"Not found: {method} {path}"))

    def _message(self, headers: dict[str, str], raw: bytes) -> None:
        now = time.monotonic()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        received = self._current = Received(self._started, now, headers, body, raw.decode())
        self._api.requests.append(received)
        if self._api.keep is not None:
            del self._api.requests[: -self._api.keep]
        betas = [name.strip() for name in headers.get("anthropic-beta", "").split(",") if name.strip()]
        too_large = TOO_LARGE if len(raw) > self._api.most_bytes else None
        found = check_headers(headers) or too_large or self._api.model.answer(body, betas=betas)
        received.status = found.status if isinstance(found, Failure) else 200
        self._api.notify()
        if isinstance(found, Failure):
            self._fail(found)
        elif found.wait or found.stream or found.hang:
            self._task = asyncio.get_running_loop().create_task(self._slowly(found))
        elif body.get("stream"):
            self._at_once(found)
        else:
            self._send(200, _encode(found.message()).encode())

    # --- answering ---------------------------------------------------------------------------------------------------

    def _at_once(self, answer: Answer) -> None:
        frames, cut = [], False
        for n, event in enumerate(answer.events()):
            cut = answer.cut is not None and n >= answer.cut
            if cut:
                break
            if answer.error is not None and n >= answer.error_after:
                frames.append(frame(answer.error.body))
                break
            frames.append(frame(event))
        if self._current is not None:
            self._current.frames = tuple(map(len, frames))
        if self._api.deaths:
            self._die(frames, *self._api.deaths.popleft())
            return
        self._transport.write(_stream_head() + _chunk(b"".join(frames)) + (b"" if cut else b"0\r\n\r\n"))
        if cut:
            self._transport.close()
        else:
            self._done()

    def _die(self, frames: Sequence[bytes], events: int, more: int) -> None:
        if events >= 0:
            sent = b"".join(frames[:events]) + b"".join(frames[events : events + 1])[:more]
            self._transport.write(_stream_head() + b"%x\r\n" % sum(map(len, frames)) + sent)
        self._transport.close()

    async def _slowly(self, answer: Answer) -> None:
        await asyncio.sleep(answer.wait)
        pause = text_pause(answer)
        self._transport.write(_stream_head())
        for n, event in enumerate(answer.events()):
            if answer.cut is not None and n >= answer.cut:
                self._transport.close()
                return
            if answer.error is not None and n >= answer.error_after:
                self._transport.write(_chunk(frame(answer.error.body)))
                break
            if answer.hang and n == 1:
                await asyncio.Event().wait()
            if pause and is_text(event):
                await self._pause(pause)
            self._transport.write(_chunk(frame(event)))
        self._transport.write(b"0\r\n\r\n")
        self._task = None
        self._done()

    async def _pause(self, seconds: float) -> None:
        """Wait, with a ping every `ping_seconds`."""
        while seconds > self._api.ping_seconds:
            await asyncio.sleep(self._api.ping_seconds)
            self._transport.write(_chunk(_PING))
            seconds -= self._api.ping_seconds
        await asyncio.sleep(seconds)

    def _fail(self, failure: Failure) -> None:
        extra = {} if failure.retry_after is None else {"retry-after": f"{failure.retry_after:g}"}
        self._send(failure.status, _encode(failure.body).encode(), extra)

    def _send(self, status: int, body: bytes, extra: Mapping[str, str] | None = None) -> None:
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\ncontent-type: application/json\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (extra or {}).items())
        head += f"request-id: req_scripted\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
        self._done()

    def _done(self) -> None:
        if self._current is not None:
            self._current.answered = time.monotonic()
            self._current = None
        self._api.notify()
        self._started = time.monotonic()
        self._next()


def _last_text(body: Any) -> str:
    try:
        blocks = body["messages"][-1]["content"]
        return str(blocks if isinstance(blocks, str) else blocks[-1].get("text", ""))
    except (TypeError, KeyError, IndexError, AttributeError):
        return ""  # it was refused


def check_headers(headers: Mapping[str, str]) -> Failure | None:
    """What the API asks of every request. The key `invalid` is refused, every other one is taken."""
    key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    if not key:
        return Failure(401, "authentication_error", "x-api-key header is required")
    if key == "invalid":
        return Failure(401, "authentication_error", "invalid x-api-key")
    if "anthropic-version" not in headers:
        return Failure(400, "invalid_request_error", "anthropic-version: header is required")
    if not headers.get("content-type", "").startswith("application/json"):
        return Failure(400, "invalid_request_error", "content-type: application/json is required")
    return None


def frame(event: Mapping[str, Any]) -> bytes:
    """One server-sent event, as the API writes it."""
    return f"event: {event['type']}\ndata: {_encode(event)}\n\n".encode("utf-8", "surrogatepass")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _stream_head() -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
        b"request-id: req_scripted\r\ntransfer-encoding: chunked\r\n\r\n"
    )


async def serve(api: MessagesAPI, port: int = 0) -> asyncio.Server:
    """Listen on 127.0.0.1; the port is in `api.port`. The caller closes the server."""
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(api), "127.0.0.1", port)
    api.port = server.sockets[0].getsockname()[1]
    return server


@contextmanager
def messages_api(api: MessagesAPI | None = None) -> Iterator[MessagesAPI]:
    """The API in a thread of its own, for the length of the block."""
    api = api or MessagesAPI()
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def run() -> None:
        server = await serve(api)
        ready.set()
        async with server:
            await stop.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield api
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def _main(port: int, keep: int | None) -> None:
    gc.disable()  # the log is trees alone; walking all of it again and again would stand in what is measured here
    api = MessagesAPI(keep=keep)
    server = await serve(api, port)
    print(api.port, flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one and prints it")
    parser.add_argument("--keep", type=int, help="requests that the log holds; all by default")
    asked = parser.parse_args()
    asyncio.run(_main(asked.port, asked.keep))
