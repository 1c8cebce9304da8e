"""A few sandboxes made ahead, so that a session's first command does not wait for a container's start.

Above: `backend`, which owns the task that refills. Below: two functions handed in: make one, discard one. A pooled
sandbox already owns an empty volume under a slot of its own; the session that claims it adopts that slot, so that
nothing of it need be renamed or mounted on the way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from sandbox.docker.container import Container, Discard
from sandbox.errors import SandboxError

PING_SECONDS = 1.0
"""A healthy pooled runner answers in 2 ms, on a busy machine in 10; one that needs a second is discarded."""
REST_SECONDS = 0.5
"""Between a claim and the refill: a start costs 0.2 s of processor, which the session's first command needs more."""
START_SECONDS = 2.0
"""Before the first filling: a server that has just started imports the model's SDK for about so long, and a container's
start beside that costs its first model request 0.3 s."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
"""While the engine refuses: doubling from the first to the last."""

log = logging.getLogger("skiff.sandbox.docker")


class Pool:
    """`size` ready sandboxes of one specification; size 0 is a pool that never has one."""

    def __init__(self, size: int, make: Callable[[], Awaitable[Container]], discard: Discard) -> None:
        self._size = size
        self._make = make
        self._discard = discard
        self._ready: deque[Container] = deque()
        self._wanted = asyncio.Event()
        self._filled = asyncio.Event()
        self._claimed = float("-inf")
        self._wanted.set()

    @property
    def slots(self) -> set[str]:
        """The slots that wait here; they are nobody's, and not to be collected."""
        return {container.ref.slot for container in self._ready}

    async def claim(self) -> Container | None:
        """One that has just answered a ping, or None: then make one cold. The oldest first."""
        while self._ready:
            container = self._ready.popleft()
            self._filled.clear()
            self._claimed = time.monotonic()
            self._wanted.set()
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await container.ping()
            except (SandboxError, TimeoutError) as error:
                log.warning("pooled sandbox %s does not answer (%r); discarded", container.ref.slot, error)
                await self._discard(container)
                continue
            return container
        return None

    async def filled(self) -> None:
        """Wait until the pool is full."""
        await self._filled.wait()

    async def refill(self) -> None:
        """Keep the pool full, one at a time (more at once only slow each other down); runs until cancelled."""
        retry = FIRST_RETRY_SECONDS
        await anyio.sleep(START_SECONDS)
        while True:
            await self._wanted.wait()
            if len(self._ready) >= self._size:
                self._wanted.clear()
                self._filled.set()
                continue
            await anyio.sleep(max(0.0, self._claimed + REST_SECONDS - time.monotonic()))
            try:
                self._ready.append(await self._make())
                retry = FIRST_RETRY_SECONDS
            except SandboxError as error:
                log.warning("the warm pool cannot be filled: %s; next try in %d s", error, retry)
                await anyio.sleep(retry)
                retry = min(retry * 2, LAST_RETRY_SECONDS)

    async def drain(self) -> None:
        """Discard what waits: an unclaimed sandbox is of no use to the next process."""
        ready, self._ready = list(self._ready), deque()
        await asyncio.gather(*(self._discard(container) for container in ready))
