"""What becomes of sandboxes that nobody uses: stopped after a while, put away after a long one.

Above: `sandboxes`, which runs it. Below: the places, the store (where a sandbox is idle that another process has left),
the backend, and `archives`. Freezing comes before both, and is the backend's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sandbox.errors import SandboxError
from sandbox.protocol import SandboxBackend
from server.errors import NotFound, SkiffError, TooLarge
from server.ids import ago
from server.sessions.sandboxing.archives import Archives, reference
from server.sessions.sandboxing.place import Place, Places
from server.sessions.spec import thaw
from server.store.store import SandboxRow, Store

logger = logging.getLogger(__name__)

TICK = 5.0
"""The most seconds between looks at what is idle; a quarter of the shortest bound, where that is less."""
AT_ONCE = 20
"""Idle sandboxes seen to in one look: the rest comes at the next."""
RETRY_SECONDS = 600.0
"""Until a sandbox that could not be put away is tried again: a full disk or a sick engine stays so for a while."""


@dataclass(frozen=True)
class IdleRules:
    """When an idle sandbox is stopped, when it is put away (0: never), in seconds since its last use; and how many may
    be live at once. Freezing before that is the backend's."""

    stop_after: float
    checkpoint_after: float
    most: int


class Tending:
    """Looks after idle sandboxes.

    stop   stops a place's sandbox, unless it is used by then
    """

    def __init__(
        self,
        store: Store,
        backend: SandboxBackend,
        rules: IdleRules,
        archives: Archives,
        places: Places,
        stop: Callable[[Place], Awaitable[bool]],
    ) -> None:
        self._store = store
        self._backend = backend
        self._rules = rules
        self._archives = archives
        self._places = places
        self._stop = stop
        self._not_before: dict[str, float] = {}
        """Sessions whose sandboxes could not be put away, and when they are tried again."""

    async def run(self) -> None:
        """Look after them for ever; the two beside each other, for packing may take minutes."""
        shortest = min(bound for bound in (self._rules.stop_after, self._rules.checkpoint_after) if bound)
        tick = min(TICK, shortest / 4)
        async with asyncio.TaskGroup() as both:
            both.create_task(_for_ever(tick, self._stop_idle), name="stop idle sandboxes")
            if self._rules.checkpoint_after:
                both.create_task(_for_ever(tick, self._store_idle), name="put idle sandboxes away")

    def used(self, session_id: str) -> None:
        """It was used again: what was known of it does not hold any more."""
        self._not_before.pop(session_id, None)

    async def _stop_idle(self) -> None:
        for place in list(self._places.values()):
            quiet = time.monotonic() - place.idle_since
            if place.unused and not place.at_work and quiet >= self._rules.stop_after:
                await self._stop(place)
        for row in await self._idle(("live",), self._rules.stop_after, AT_ONCE):  # left by another process
            place = self._places.at(row.session_id)
            try:
                async with place.lock:
                    if not place.counts:
                        await self._backend.stop(reference(row))
                        await self._store.sandbox_stopped(row.session_id, "")
            finally:
                self._places.forget_if_empty(place)

    async def _store_idle(self) -> None:
        for _ in range(AT_ONCE):  # asked anew each time: while one is packed, the next may be used
            most = 1 + len(self._not_before)
            rows = await self._idle(("live", "stopped"), self._rules.checkpoint_after, most)
            due = [row for row in rows if self._not_before.get(row.session_id, 0.0) <= time.monotonic()]
            if not due:
                return
            await self._store_one(self._places.at(due[0].session_id))

    async def _store_one(self, place: Place) -> None:
        place.storing = storing = asyncio.create_task(self._put_away(place), name=f"put away {place.session_id}")
        try:
            await asyncio.wait({storing})
        finally:
            storing.cancel()  # the server leaves
            await asyncio.wait({storing})
            place.storing = None
            self._places.forget_if_empty(place)

    async def _idle(self, states: Sequence[str], seconds: float, most: int) -> list[SandboxRow]:
        """Rows of sandboxes that nobody has used for so long, and nobody uses now."""
        rows = await self._store.idle_sandboxes(self._backend.name, states, ago(seconds), most + len(self._places))
        return [row for row in rows if row.session_id not in self._places]

    async def _put_away(self, place: Place) -> None:
        session_id = place.session_id
        async with place.lock:
            row = await self._store.sandbox(session_id)
            if row is None or row.state not in ("live", "stopped") or place.sandbox is not None:
                return
            try:
                spec = thaw((await self._store.session(session_id)).spec)
                await self._archives.put_away(row, spec)
            except NotFound:
                return  # deleted meanwhile
            except TooLarge:
                logger.warning("the files of %s are more than its disk may hold: it stays stopped", session_id)
                self._not_before[session_id] = float("inf")
            except (SkiffError, SandboxError) as error:
                logger.warning("the sandbox of %s could not be put away: %s", session_id, error)
                self._not_before[session_id] = time.monotonic() + RETRY_SECONDS


async def _for_ever(tick: float, look: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(tick)
        try:
            await look()
        except (SkiffError, SandboxError) as error:
            logger.warning("looking after idle sandboxes: %s", error)
        except Exception:  # whatever it was, the next look may do better, and nobody else looks
            logger.exception("looking after idle sandboxes failed; tried again in %.0f s", tick)
