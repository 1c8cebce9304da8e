"""The doors over HTTP: MCP at `/mcp`, the REST door at `/v1`, and what watchers ask for.

Above: `commands.serve`. Below: the SDK's transport, the REST door, and uvicorn. Two locks before each door: a key, and
the Host and Origin headers, so that a web page cannot reach it by DNS tricks. TLS is left to a proxy.
"""

from __future__ import annotations

import asyncio
import hmac
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.doors.hosts import check, host_headers, is_loopback, origins
from server.doors.metrics import CONTENT_TYPE, Metrics
from server.doors.observe import Observed, seen
from server.doors.rest import envelope
from server.doors.rest.app import RestDoor, endpoints
from server.doors.rest.auth import Verify, anybody, holder
from server.doors.rest.idempotency import Answers
from server.errors import InvalidRequest, NotFound, SkiffError

if TYPE_CHECKING:
    from server.settings import Settings
    from server.usecases import UseCases

PATH = "/mcp"
HEALTH, READY, METRICS = "/healthz", "/readyz", "/metrics"
UNGUARDED = (PATH, HEALTH, READY)
"""The MCP transport checks Host and Origin by itself; probes come by address, and learn nothing."""
MAX_BODY = 32 << 20
"""Bytes of a request: 20 MiB of files for a new session, and what JSON adds to them."""
GRACEFUL_SECONDS = 3
"""Hosts keep a listening stream open for ever; without a bound, shutting down would wait for it."""
HEAD_SECONDS = 15.0
"""For the head of a request: clients send it in one piece. Whoever dribbles one keeps a file descriptor from others,
and needs no key for it."""
BACKLOG = 128
"""Connections that wait to be accepted: more than the sessions that may work at once."""
OWNER = "owner"
"""The name of the key that is made at the first start, or set."""
_SCOPE = "all"


@dataclass(frozen=True)
class Behind:
    """What is behind the REST door and the watchers' paths."""

    uses: UseCases
    answers: Answers
    """Where answers are kept under their Idempotency-Key."""
    keys: Verify
    """Whose a key is that was made with `skiff keys`."""
    trouble: Callable[[], Awaitable[str]]
    """Why the process cannot work now; "" when it can."""
    shortage: Callable[[], str]
    """Why it does only part of its work now; "" when it does all."""
    figures: Callable[[], Awaitable[Mapping[str, float]]]
    """The gauges of `/metrics`, by name."""


class Token:
    """The owner's token, and every other key that is good: one check for all doors."""

    def __init__(self, token: str, keys: Verify | None = None) -> None:
        self._token = token.encode()
        self._keys = keys

    async def holder(self, key: str) -> str | None:
        """The name of the key's holder, or None. Compares in constant time."""
        if hmac.compare_digest(key.encode(), self._token):
            return OWNER
        return await self._keys(key) if self._keys else None

    async def verify_token(self, token: str) -> AccessToken | None:
        """The same as the SDK of the MCP door asks it."""
        name = await self.holder(token)
        return AccessToken(token=token, client_id="local", subject=name, scopes=[_SCOPE]) if name else None


def application(
    mcp: MCPServer[Any],
    token: str | None,
    *,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
    behind: Behind | None = None,
) -> ASGIApp:
    """The ASGI application; its lifespan runs the MCP transport, once.

    token           the owner's, not blank; None lets everybody in who reaches the address
    host            the address that it will be bound to; it is a good Host header too, unless it stands for all
    allowed_hosts   further Host headers, `name` or `name:port`
    behind          None serves `/mcp` and `/healthz` alone
    Raises InvalidRequest for a blank token, and for an address that others can reach when there is none.
    """
    if token is not None and not token.strip():
        raise InvalidRequest("The bearer token is blank, so it protects nothing. Set SKIFF_API_KEY to another.")
    if token is None and not is_loopback(host):
        raise InvalidRequest(f"Without a bearer token Skiff serves this machine only, not {host}. Set SKIFF_API_KEY.")
    names = host_headers(host, allowed_hosts)
    checked = Token(token, behind.keys if behind else None) if token is not None else None

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with mcp.session_manager.run():
            yield

    routes = [Route(HEALTH, _healthz, methods=["GET"]), Route(PATH, _McpDoor(_transport(mcp, names), checked))]
    site = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _refused})
    site.router.redirect_slashes = False
    if behind is None:
        return Observed(site)
    verify, metrics = checked.holder if checked else anybody, Metrics()
    watching = _Watching(behind, verify, metrics)
    site.router.routes += [
        Route(READY, watching.ready, methods=["GET"]),
        Route(METRICS, watching.metrics, methods=["GET"]),
    ]
    site.router.default = RestDoor(behind.uses, endpoints(), verify, behind.answers)
    return Observed(_Guarded(site, names), metrics.count)


def _transport(mcp: MCPServer[Any], names: Sequence[str]) -> ASGIApp:
    """The MCP transport, for requests with these Host headers."""
    return mcp.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=MAX_BODY,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=list(names),
            allowed_origins=origins(names),
        ),
    )


class _McpDoor:
    """The transport for those who bear a good key; for everybody without a token."""

    def __init__(self, transport: ASGIApp, token: Token | None) -> None:
        if token is not None:
            transport = AuthContextMiddleware(RequireAuthMiddleware(transport, [_SCOPE]))
            transport = AuthenticationMiddleware(transport, backend=BearerAuthBackend(token))
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen(scope).route = PATH
        await self._transport(scope, receive, send)


async def run_http(
    mcp: MCPServer[Any],
    settings: Settings,
    token: str,
    ready: Callable[[str], None] | None = None,
    behind: Behind | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, as `settings` say (host, port, allowed_hosts, log_level).

    `ready` gets the address, such as http://127.0.0.1:8400/mcp, once it listens. Raises InvalidRequest when the address
    cannot be bound.
    """
    served = application(mcp, token, host=settings.host, allowed_hosts=settings.allowed_hosts, behind=behind)
    with listen(settings.host, settings.port) as listener:
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{shown}:{listener.getsockname()[1]}{PATH}"
        config = uvicorn.Config(
            served,
            log_level=settings.log_level.lower(),
            log_config=None,
            access_log=False,
            http=_Connection,
            ws="none",
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
        await _Server(config, partial(ready, address) if ready else _nothing).serve(sockets=[listener])


class _Connection(H11Protocol):
    """Closed when the head of a request does not come; uvicorn waits for ever once it has begun."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        self._late = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _stop_watching(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    """Stops in order on SIGTERM: uvicorn raises the signal once more when it has stopped, which would end the process
    before what is behind the doors is closed. Says that it is `ready` only when it would stop so."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            self._ready()
            yield
            self._captured_signals = [each for each in self._captured_signals if each != signal.SIGTERM]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises InvalidRequest when there is none to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        problem = f"{host}:{port} cannot be served: {error.strerror}. Choose another --host or --port."
        raise InvalidRequest(problem) from None
    listener.setblocking(False)
    return listener


class _Guarded:
    """Every path but those that check by themselves, for requests with these Host headers and their Origins."""

    def __init__(self, site: ASGIApp, names: Sequence[str]) -> None:
        self._site = site
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in UNGUARDED:
            headers = Headers(scope=scope)
            try:
                check(headers.get("host", ""), headers.get("origin", ""), self._names)
            except SkiffError as error:
                await envelope.refusal(error, seen(scope).id)(scope, receive, send)
                return
        await self._site(scope, receive, send)


class _Watching:
    """What watchers ask for."""

    def __init__(self, behind: Behind, verify: Verify, metrics: Metrics) -> None:
        self._behind = behind
        self._verify = verify
        self._metrics = metrics

    async def ready(self, request: Request) -> Response:
        """Open, so it says whether, and why not in words that hold no path: the log has those."""
        seen(request.scope).route = READY
        trouble = await self._behind.trouble()
        if not trouble:
            # Not 503: what still works, such as deleting, must go on reaching this process.
            shortage = self._behind.shortage()
            return JSONResponse({"status": "limited", "reason": shortage} if shortage else {"status": "ok"})
        return JSONResponse({"status": "unavailable", "reason": trouble}, 503)

    async def metrics(self, request: Request) -> Response:
        """For those who bear a good key."""
        notes = seen(request.scope)
        notes.route = METRICS
        try:
            notes.holder = await holder(request.headers, self._verify)
            return Response(self._metrics.text(await self._behind.figures()), media_type=CONTENT_TYPE)
        except SkiffError as error:
            return envelope.refusal(error, notes.id)


async def _refused(request: Request, error: Exception) -> Response:
    """What the routes say no to themselves: a method, or without the REST door a path."""
    allowed = getattr(error, "headers", None) or {}
    if "Allow" in allowed:
        refusal: SkiffError = envelope.MethodNotAllowed(request.method, sorted(allowed["Allow"].split(", ")))
    else:
        refusal = NotFound("Not found")
    return envelope.refusal(refusal, seen(request.scope).id)


def _nothing() -> None:
    """Nobody waits."""


async def _healthz(request: Request) -> Response:
    seen(request.scope).route = HEALTH
    return JSONResponse({"status": "ok"})
