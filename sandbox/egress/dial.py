"""Connecting to a host that the policy allows: resolve once, check every address, connect to a checked one.

Above: `proxy`. Below: the system's resolver and sockets. A name is never resolved twice, so what was checked is what is
connected to, whatever the name says a moment later. This module knows no policy about names.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from sandbox.egress.addresses import address_allowed
from sandbox.egress.refusal import Refused

Address = tuple[str, int]
Resolver = Callable[[str, int], Awaitable[list[Address]]]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CONNECT_SECONDS = 10.0
"""To resolve and connect, all addresses together: a client gives up soon after, and a model waits meanwhile."""
RESOLVER_THREADS = 4
"""Names resolved at a time: few enough that slow names of one sandbox cost nobody else a thread."""


def reachable(ip: str) -> bool:
    """The strict rule: a public address that is not one of this machine's own.

    A server with a public address would else offer its local services to its sandboxes. Connecting a datagram socket
    sends nothing; it only asks the kernel for the route, and a route to oneself starts where it ends.
    """
    if not address_allowed(ip):
        return False
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip, 443))
        except OSError:
            return True  # no route: the connection itself will say so
        return bool(probe.getsockname()[0] != ip)


class Dialer:
    """Makes connections for one sandbox. In tests `resolver` and `allowed` replace the system's and the strict rule."""

    def __init__(self, resolver: Resolver | None = None, allowed: Callable[[str], bool] = reachable) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "egress-resolver")
        self._resolve = resolver or self._system_resolver
        self._allowed = allowed

    def close(self) -> None:
        """Let the resolver threads end; names still being resolved are abandoned."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def connect(self, host: str, port: int) -> Connection:
        """A connection to `host`. The caller aborts its transport; `drain()` waits until all is with the kernel, so
        nothing drained is lost by that.

        Raises Refused: 403 when any address is not allowed, 502 when there is no answer, 504 when it takes too long.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await self._checked_addresses(host, port)
                reader, writer = await self._first_connection(host, addresses)
        except TimeoutError:
            raise Refused(504, f"no connection to {host}:{port} within {CONNECT_SECONDS:.0f} s") from None
        writer.transport.set_write_buffer_limits(0)
        return reader, writer

    async def _checked_addresses(self, host: str, port: int) -> list[Address]:
        """Every address of a name; one that is not allowed spoils the name, since no honest public name has one."""
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise Refused(502, f"{host} cannot be resolved: {error}") from None
        if not addresses:
            raise Refused(502, f"{host} has no address")
        for ip, _ in addresses:
            if not self._allowed(ip):
                raise Refused(403, f"{host} is blocked: it resolves to {ip}, which is not a public address")
        return addresses

    async def _first_connection(self, host: str, addresses: list[Address]) -> Connection:
        """One address after the other, each with an equal part of the time left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONNECT_SECONDS
        failure: Exception = OSError("no address")
        for tried, (ip, port) in enumerate(addresses):
            try:
                async with asyncio.timeout((deadline - loop.time()) / (len(addresses) - tried)):
                    return await asyncio.open_connection(ip, port)
            except OSError as error:  # TimeoutError is one
                failure = error
        if isinstance(failure, TimeoutError):
            raise failure
        raise Refused(502, f"cannot connect to {host}: {failure}")

    async def _system_resolver(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [(str(entry[4][0]), port) for entry in found]
