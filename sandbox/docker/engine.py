"""The container engine as awaitable calls: docker-py in threads, each call bounded, each error translated once.

Above: everything else in this package. Below: docker-py, imported here alone and only when an engine is first
needed (0.2 s), and `failure`, which says what an error means. It knows nothing of sandboxes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio

from sandbox.docker.endpoint import Endpoint, resolve
from sandbox.docker.failure import classify, is_passing
from sandbox.errors import SandboxError, SandboxUnavailable

T = TypeVar("T")

CALL_SECONDS = 60
"""The longest an engine may stay silent within one request. Starting under load was seen at 4 s; a machine that
needs fifteen times that is broken."""
REACH_SECONDS = 5.0
"""For an engine's port to accept a connection; a distant one takes 0.3 s."""
PASSING_TRIES = 4
PASSING_SECONDS = 0.05
"""A 409 ("already paused", "removal in progress") was seen to pass within milliseconds: four tries, doubling."""
OLDEST_API = (1, 41)
"""Engine 20.10: the oldest that the options were tried against."""


class Engine:
    """One engine. Made without touching it; the first `call` connects."""

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        self._endpoint = endpoint
        self._client: Any = None
        self._connecting = asyncio.Lock()

    @property
    def endpoint(self) -> Endpoint:
        """Where the engine listens. Raises SandboxUnavailable when the configuration names none that can be dialled."""
        if self._endpoint is None:
            self._endpoint = resolve(os.environ, Path.home())
        return self._endpoint

    @property
    def api(self) -> str:
        """The negotiated API version, as "1.41". Valid after the first call."""
        return str(self._client.api_version)

    async def call(self, action: str, work: Callable[[Any], T]) -> T:
        """`work(client)` in a thread, with docker-py's low-level client; `action` completes "could not ...".

        Passing conflicts are tried again. Raises SandboxUnavailable, ImageMissing or SandboxGone. A cancelled caller
        leaves at once, the request itself runs on to its end: a caller that made something must clean up by name.
        """
        client = await self.connected()

        def reach_and_work(client: Any) -> T:
            if self.endpoint.socket:  # 50 microseconds there; over a network the request's own attempt must do
                _reach(self.endpoint)
            return work(client)

        return await asyncio.to_thread(_attempt, action, reach_and_work, client)

    async def finish(self, action: str, work: Callable[[Any], T]) -> T:
        """As `call`, but a cancelled caller leaves only when the request is over: what it made can then be found and
        removed by name."""
        request = asyncio.ensure_future(self.call(action, work))
        try:
            return await asyncio.shield(request)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):  # bounded: the request itself is
                await asyncio.wait({request})
            if not request.cancelled():
                request.exception()  # seen; the cancellation is what the caller hears
            raise

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    async def connected(self) -> Any:
        """docker-py's low-level client, dialled first where that has not been done."""
        async with self._connecting:
            if self._client is None:
                self._client = await asyncio.to_thread(_connect, self.endpoint)
            return self._client


def _connect(endpoint: Endpoint) -> Any:
    import docker  # here alone: a server that never uses containers should not pay for the import
    import docker.tls

    tls: Any = False
    if endpoint.tls:
        pair = (endpoint.tls.cert, endpoint.tls.key) if endpoint.tls.cert and endpoint.tls.key else None
        tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=endpoint.tls.ca, verify=endpoint.tls.verify)

    def dial(_: Any) -> Any:
        _reach(endpoint)
        return docker.APIClient(base_url=endpoint.url, version="auto", timeout=CALL_SECONDS, tls=tls)

    client = _attempt(f"answer at {endpoint.url} ({endpoint.source})", dial, None)
    if tuple(int(part) for part in str(client.api_version).split(".")) < OLDEST_API:
        raise SandboxUnavailable(
            f"the container engine at {endpoint.url} speaks API {client.api_version}; Skiff needs 1.41 (Engine 20.10)"
        )
    return client


def _reach(endpoint: Endpoint) -> None:
    """Raises OSError in the operating system's own words; docker-py would wrap them and leave its socket open."""
    if not endpoint.socket:
        socket.create_connection((endpoint.host, endpoint.port), REACH_SECONDS).close()
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(REACH_SECONDS)
        probe.connect(endpoint.socket)


def _attempt(action: str, work: Callable[[Any], T], client: Any) -> T:
    """Runs in a thread. The only place where an exception of docker-py or its HTTP library is seen."""
    import docker.errors
    import requests.exceptions

    for attempt in range(PASSING_TRIES):
        try:
            return work(client)
        except SandboxError:
            raise
        except docker.errors.APIError as error:
            status = error.response.status_code if error.response is not None else 500
            if not is_passing(status) or attempt == PASSING_TRIES - 1:
                raise classify(status, str(error.explanation or error), action) from error
        except docker.errors.DockerException as error:
            raise classify(0, _innermost(error), action) from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise classify(0, _innermost(error), action) from error
        time.sleep(PASSING_SECONDS * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _innermost(error: BaseException) -> str:
    """HTTP libraries wrap the operating system's words four deep; people want the words."""
    deepest = list(_chain(error))[-1]
    return deepest.strerror or str(deepest) if isinstance(deepest, OSError) else str(deepest)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
