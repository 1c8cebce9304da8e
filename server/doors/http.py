"""The doors over HTTP: MCP at `/mcp`, and `/healthz` for whoever watches the process.

Above: `commands.serve`. Below: the SDK's transport, and uvicorn. Two locks before the door: a bearer token, and the
Host and Origin headers, so that a web page cannot reach it by DNS tricks. TLS is left to a proxy.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from server.errors import InvalidRequest

if TYPE_CHECKING:
    from server.settings import Settings

PATH = "/mcp"
MAX_BODY = 32 << 20
"""Bytes of a request: 20 MiB of files for a new session, and what JSON adds to them."""
GRACEFUL_SECONDS = 3
"""Hosts keep a listening stream open for ever; without a bound, shutting down would wait for it."""
BACKLOG = 128
"""Connections that wait to be accepted: more than the sessions that may work at once."""
_SCOPE = "all"
_LOCAL = ("127.0.0.1", "localhost", "[::1]")


class StaticToken:
    """One bearer token, for the owner of this server."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Compares in constant time."""
        if not hmac.compare_digest(token.encode(), self._token):
            return None
        return AccessToken(token=token, client_id="local", subject="owner", scopes=[_SCOPE])


def application(
    mcp: MCPServer[Any], token: str | None, *, host: str = "127.0.0.1", allowed_hosts: Sequence[str] = ()
) -> Starlette:
    """The ASGI application; its lifespan runs the MCP transport, once.

    token           what requests must bear, not blank; None lets everybody in who reaches the address
    host            the address that it will be bound to; it is a good Host header too, unless it stands for all
    allowed_hosts   further Host headers, `name` or `name:port`
    Raises InvalidRequest for a blank token, and for an address that others can reach when there is none.
    """
    if token is not None and not token.strip():
        raise InvalidRequest("The bearer token is blank, so it protects nothing. Set SKIFF_API_KEY to another.")
    if token is None and not is_loopback(host):
        raise InvalidRequest(f"Without a bearer token Skiff serves this machine only, not {host}. Set SKIFF_API_KEY.")
    names = host_headers(host, allowed_hosts)
    inner = mcp.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=MAX_BODY,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=names,
            allowed_origins=[f"{scheme}://{name}" for scheme in ("http", "https") for name in names],
        ),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with mcp.session_manager.run():
            yield

    health = Route("/healthz", _healthz, methods=["GET"])
    if token is None:
        return Starlette(routes=[health, Mount("/", inner)], lifespan=lifespan)
    return Starlette(
        routes=[health, Mount("/", RequireAuthMiddleware(inner, [_SCOPE]))],
        middleware=[
            Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(StaticToken(token))),
            Middleware(AuthContextMiddleware),
        ],
        lifespan=lifespan,
    )


async def run_http(
    mcp: MCPServer[Any], settings: Settings, token: str, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, as `settings` say (host, port, allowed_hosts, log_level).

    `ready` gets the address, such as http://127.0.0.1:8400/mcp, once it listens. Raises InvalidRequest when the address
    cannot be bound.
    """
    served = application(mcp, token, host=settings.host, allowed_hosts=settings.allowed_hosts)
    with listen(settings.host, settings.port) as listener:
        if ready is not None:
            shown = f"[{settings.host}]" if ":" in settings.host else settings.host
            ready(f"http://{shown}:{listener.getsockname()[1]}{PATH}")
        config = uvicorn.Config(
            served,
            log_level=settings.log_level.lower(),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
        await uvicorn.Server(config).serve(sockets=[listener])


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


def host_headers(host: str, allowed: Sequence[str]) -> list[str]:
    """The Host headers that are taken; `name:*` is the name with any port."""
    own = () if host in ("0.0.0.0", "::", "") else (f"[{host}]" if ":" in host else host,)
    names = [*_LOCAL, *own, *(name for name in allowed if not _has_port(name))]
    patterns = [pattern for name in names for pattern in (name, f"{name}:*")]
    return list(dict.fromkeys([*patterns, *filter(_has_port, allowed)]))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _has_port(name: str) -> bool:
    return name.rpartition("]")[2].count(":") == 1


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})
