"""An HTTP/1.1 forward proxy that lets a sandbox reach what its policy allows, served on one byte stream per connection.

Above: `mux`, which calls `serve` for every connection from inside. Below: `request` reads, `policy` decides, `dial`
connects. CONNECT opens a tunnel; an absolute http:// request is understood, written anew and answered, one for each
connection. No Via header and no caching: servers must answer as if asked directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import h11

from sandbox.egress.dial import Connection, Dialer
from sandbox.egress.policy import Allow, Policy, decide
from sandbox.egress.refusal import Refused
from sandbox.egress.request import (
    MAX_HEAD,
    Target,
    check_framing,
    check_head,
    client_interim,
    client_response,
    parse_target,
    upstream_request,
)
from sandbox.wire import NET_PORTION

HEAD_SECONDS = 60.0
"""For a whole request head: clients send it at once; some connect a little ahead of need."""
IDLE_SECONDS = 600.0
"""Without a byte in either direction: long polls and slow builds say something more often than every ten minutes."""
MAX_RESPONSE_HEAD = 64 << 10

OnDecision = Callable[[str, int, bool, str], None]
"""host, port, allowed, reason ("" when allowed). Called from the event loop; must not block."""


class ByteStream(Protocol):
    """What `serve` needs of a connection. All raise OSError when it breaks."""

    async def read(self) -> bytes:
        """The next bytes, b"" at the end."""

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the other side is behind."""

    async def end(self) -> None:
        """No more will be written."""


class Proxy:
    """The proxy of one sandbox."""

    def __init__(self, policy: Policy, on_decision: OnDecision, dialer: Dialer | None = None) -> None:
        self._policy = policy
        self._on_decision = on_decision
        self._dialer = dialer or Dialer()

    def close(self) -> None:
        """Let go of the resolver. Streams belong to whoever called `serve`."""
        self._dialer.close()

    async def serve(self, client: ByteStream) -> None:
        """One connection, from its request to its end. Raises OSError when it must look broken off to the client."""
        inbound = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            request = await _receive_request(client, inbound)
            if request is None:
                return
            target = parse_target(request)
            upstream = await self._connect(target)
            try:
                if request.method == b"CONNECT":
                    await _tunnel(client, inbound, upstream)
                else:
                    await _Exchange(client, inbound, upstream).run(upstream_request(request, target))
            finally:
                upstream[1].transport.abort()
        except Refused as refusal:
            await client.write(refusal.response())

    async def _connect(self, target: Target) -> Connection:
        """A connection to an allowed target. Raises Refused. Either way the decision is reported first."""
        decision = decide(self._policy, target.host, target.port)
        if not isinstance(decision, Allow):
            self._on_decision(target.host, target.port, False, decision.reason)
            raise Refused(403, decision.reason)
        try:
            connection = await self._dialer.connect(decision.host, target.port)
        except Refused as refusal:
            self._on_decision(decision.host, target.port, refusal.status != 403, str(refusal))
            raise
        self._on_decision(decision.host, target.port, True, "")
        return connection


async def _receive_request(client: ByteStream, inbound: h11.Connection) -> h11.Request | None:
    """The request head, checked; None when the client says nothing. What follows the head stays in `inbound`."""
    received = bytearray()
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            while (end := received.find(b"\r\n\r\n")) < 0 and len(received) <= MAX_HEAD:
                data = await client.read()
                if not data and not received:
                    return None
                if not data:
                    raise Refused(400, "the request ended within its head")
                received += data
    except TimeoutError:
        raise Refused(408, f"no whole request head within {HEAD_SECONDS:.0f} s") from None
    check_head(bytes(received[: end + 4] if end >= 0 else received))
    inbound.receive_data(bytes(received))
    try:
        request = inbound.next_event()
    except h11.RemoteProtocolError as error:
        raise Refused(error.error_status_hint, str(error)) from None
    if not isinstance(request, h11.Request):
        raise Refused(400, "no request")
    check_framing(request)
    return request


async def _tunnel(client: ByteStream, inbound: h11.Connection, upstream: Connection) -> None:
    """Carry bytes both ways until both sides have ended. Raises OSError when a side breaks or both fall silent."""
    reader, writer = upstream
    inbound.next_event()  # the end of the request, which has no body
    early, _ = inbound.trailing_data

    async def outward() -> None:
        data = early or await client.read()
        while data:
            writer.write(data)
            await writer.drain()
            _touch(idle)
            data = await client.read()
        writer.write_eof()

    async def inward() -> None:
        while data := await reader.read(NET_PORTION):
            await client.write(data)
            _touch(idle)
        await client.end()

    await client.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    async with asyncio.timeout(IDLE_SECONDS) as idle:
        ways = asyncio.create_task(outward()), asyncio.create_task(inward())
        try:
            await asyncio.gather(*ways)
        finally:
            await _stop(*ways)


class _Exchange:
    """One forwarded request: its body goes out while its response comes back, for a server may answer early."""

    def __init__(self, client: ByteStream, inbound: h11.Connection, upstream: Connection) -> None:
        self._client = client
        self._inbound = inbound
        self._outbound = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_RESPONSE_HEAD)
        self._reader, self._writer = upstream
        self._idle = asyncio.timeout(IDLE_SECONDS)

    async def run(self, request: h11.Request) -> None:
        """Raises Refused while the client has seen no response, OSError afterwards: a cut response must look cut."""
        try:
            async with self._idle:
                self._writer.write(self._outbound.send(request) or b"")
                await self._relay()
        except (OSError, h11.ProtocolError, Refused) as error:
            if self._inbound.our_state is not h11.SEND_RESPONSE:
                raise ConnectionResetError(str(error)) from error
            if isinstance(error, Refused):
                raise
            if isinstance(error, TimeoutError):
                raise Refused(504, f"the server said nothing for {IDLE_SECONDS:.0f} s") from None
            raise Refused(502, f"the server gave no valid answer: {error}") from None

    async def _relay(self) -> None:
        body = asyncio.create_task(self._relay_body())
        response = asyncio.create_task(self._relay_response())
        try:
            done, _ = await asyncio.wait({body, response}, return_when=asyncio.FIRST_COMPLETED)
            if response not in done:
                body.result()  # a broken request ends the exchange at once
            await response
        finally:
            await _stop(body, response)

    async def _relay_body(self) -> None:
        """The rest of the request. Where the server takes no more, its response tells the story. Raises Refused."""
        while True:
            try:
                event = self._inbound.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused(400, str(error)) from None
            if event is h11.NEED_DATA:
                self._inbound.receive_data(await self._client.read())
                _touch(self._idle)
                continue
            # Trailers are not passed on: hardly any server expects them, and some take them for headers.
            data = event if isinstance(event, h11.Data) else h11.EndOfMessage()
            try:
                self._writer.write(self._outbound.send(data) or b"")
                await self._writer.drain()
            except OSError:
                return
            if not isinstance(event, h11.Data):
                return

    async def _relay_response(self) -> None:
        while True:
            event = await self._next_response_event()
            if isinstance(event, h11.InformationalResponse):
                await self._answer(client_interim(event))
            elif isinstance(event, h11.Response):
                await self._answer(client_response(event))
            elif isinstance(event, h11.Data):
                await self._answer(event)
            elif isinstance(event, h11.EndOfMessage):
                await self._answer(h11.EndOfMessage())
                return
            else:
                raise ConnectionResetError("connection closed without an answer")

    async def _next_response_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._outbound.next_event()) is h11.NEED_DATA:
            self._outbound.receive_data(await self._reader.read(NET_PORTION))
            _touch(self._idle)
        return event

    async def _answer(self, event: h11.Event) -> None:
        if data := self._inbound.send(event):
            await self._client.write(data)
        _touch(self._idle)


def _touch(idle: asyncio.Timeout) -> None:
    """Something was said: the silence starts anew, to the second; a timer for every portion would cost a tenth."""
    end = asyncio.get_running_loop().time() + IDLE_SECONDS
    if not idle.expired() and (idle.when() or 0) < end - 1:
        idle.reschedule(end)


async def _stop(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait for their ends; their errors have been seen or no longer matter."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
