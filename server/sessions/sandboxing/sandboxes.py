"""Which sandbox belongs to which session: made on first need, kept across turns, stopped when idle, put away later.

Above: `loop` (uses them), `workspace` (reads and writes files through them), `supervisor` (owns the task group). Below:
`opening` (makes and finds them), `berths` (how many may be live), `tending` (which are idle).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sandbox.errors import SandboxError, SandboxGone, SandboxUnavailable
from sandbox.protocol import Sandbox, SandboxBackend
from server.errors import SkiffError, StoreError
from server.ids import ago
from server.sessions.sandboxing.archives import Archives
from server.sessions.sandboxing.berths import Berths
from server.sessions.sandboxing.mounting import Mounting
from server.sessions.sandboxing.opening import Opening
from server.sessions.sandboxing.place import Place, Places
from server.sessions.sandboxing.tending import IdleRules, Tending
from server.sessions.spec import Spec
from server.store.store import Store

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 5.0
"""For freezing a container on the way out; the engine needs 30 ms."""
MOUNT_SECONDS = 20.0
"""How long whoever gives something to a live session waits for it to be there; a large repository goes on after it."""


class Sandboxes:
    """The sandboxes of the sessions that this engine drives."""

    def __init__(
        self, store: Store, backend: SandboxBackend, rules: IdleRules, mounting: Mounting, archives: Archives
    ) -> None:
        self._store = store
        self._backend = backend
        self._rules = rules
        self._mounting = mounting
        self._archives = archives
        self._opening = Opening(store, backend, mounting, archives)
        self._places = Places()
        self.berths = Berths(rules.most, self._places, self._stop_unused)
        self._tending = Tending(store, backend, rules, archives, self._places, self._stop_unused)

    async def reconcile(self) -> None:
        """After a start: finish removals that were begun. Adoption happens on the first use of each session."""
        for row in await self._store.sandboxes():
            if row.state == "removing" and row.backend == self._backend.name:
                await self._opening.remove(row)
        await self._archives.sweep()
        try:
            await self.collect()
        except SandboxError as error:
            logger.warning("collecting left-over sandboxes: %s", error)

    async def collect(self) -> Sequence[str]:
        """Remove what is ours and no session's: a pooled sandbox of a process that was killed, a half-made one, one
        that was put away.

        Returns the slots removed. Raises SandboxError when the backend cannot be asked.
        """
        busy = {place.session_id for place in self._places.values() if place.lock.locked()}
        rows = await self._store.sandboxes()
        removed = await self._backend.reap(
            {row.slot for row in rows if row.state != "stored" or row.session_id in busy}
        )
        for slot in removed:
            logger.info("removed the left-over sandbox %s", slot)
        return removed

    # --- using -------------------------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, session_id: str) -> Iterator[None]:
        """The session is in the middle of a turn: its sandbox is not idle, whatever it does. A turn that failed is in
        the middle still: it is tried again, and a result that could not be stored is in the sandbox yet."""
        place = self._place(session_id)
        place.at_work = True
        try:
            yield
        except StoreError:
            raise
        except SkiffError:
            self._rest(place)  # deposed, or deleted
            raise
        except Exception:
            raise
        except BaseException:
            self._rest(place)
            raise
        self._rest(place)

    def _rest(self, place: Place) -> None:
        place.at_work = place.promised = False
        place.idle_since = time.monotonic()
        self._look(place)

    def prepare(self, session_id: str, spec: Spec) -> None:
        """Begin to make the sandbox, while the model thinks, if there is room. Failures show up at `use`. No call is on
        its way to it then, even where some were that came to nothing."""
        place = self._place(session_id)
        place.promised = False
        if place.sandbox is None and place.making is None and self.berths.at_once():
            self._begin(place, spec)
        self._look(place)

    def incarnation(self, session_id: str) -> str | None:
        """The life of the sandbox if it is attached now: a call may be dispatched to it without waiting, for it is kept
        until the call comes."""
        place = self._places.get(session_id)
        if place is None or place.sandbox is None or not place.sandbox.alive:
            return None
        place.promised = True
        return place.sandbox.incarnation

    def attached(self, session_id: str) -> bool:
        """Whether the session's sandbox is live now."""
        place = self._places.get(session_id)
        return place is not None and place.sandbox is not None and place.sandbox.alive

    @asynccontextmanager
    async def use(self, session_id: str, spec: Spec, patience: float | None = None) -> AsyncIterator[Sandbox]:
        """The session's sandbox, attached and running; it is not frozen or stopped while in use. Waits in line where
        all that are allowed are in use, for `patience` seconds, else for as long as it takes.

        Raises SandboxUnavailable when none can be made. A SandboxGone raised inside drops the attachment.
        """
        place = self._place(session_id)
        place.users += 1
        sandbox: Sandbox | None = None
        try:
            if place.sandbox is not None and not place.sandbox.alive:
                await self._drop(place)  # it died while nobody used it
            sandbox = place.sandbox or await self._opened(place, spec, patience)
            place.promised = False
            yield sandbox
        except SandboxGone:
            if place.sandbox is sandbox:  # else another user has opened it again already
                await self._drop(place)
            raise
        finally:
            place.users -= 1
            place.idle_since = time.monotonic()
            if not place.users:
                self.berths.leave(place)
            self._look(place)
            if place.told:
                place.told = False
                await self._store.news_told(session_id)

    async def mount(self, session_id: str) -> None:
        """The session was given something, or something was taken from it: let a live sandbox show it, within
        MOUNT_SECONDS or later. One that is not live shows it when it is opened."""
        place = self._places.get(session_id)
        if place is None or (place.sandbox is None and place.making is None):
            return
        before = {task for task in (place.mounting, place.making) if task is not None}
        place.mounting = asyncio.create_task(self._mount(place, before), name=f"mount {session_id}")
        place.mounting.add_done_callback(lambda task: self._mounted(place, task))
        await asyncio.wait({place.mounting}, timeout=MOUNT_SECONDS)

    def _mounted(self, place: Place, task: asyncio.Task[None]) -> None:
        if place.mounting is task:
            place.mounting = None
        if not task.cancelled():
            task.exception()
        self._look(place)

    async def _mount(self, place: Place, before: set[asyncio.Task[Any]]) -> None:
        """`before`: what may have looked too early, and must not be met on the way."""
        if before:
            await asyncio.wait(before)
        sandbox = place.sandbox
        if sandbox is None:
            return
        place.users += 1
        try:
            await self._mounting.bring(place.session_id, sandbox)
        except SandboxError as error:
            logger.warning("what %s was given comes when its sandbox is opened: %s", place.session_id, error)
        finally:
            place.users -= 1
            place.idle_since = time.monotonic()

    def take_news(self, session_id: str) -> list[str]:
        """What the agent must be told once."""
        place = self._places.get(session_id)
        if place is None or not place.news:
            return []
        news, place.news, place.told = place.news, [], True
        return news

    # --- opening -----------------------------------------------------------------------------------------------------

    def _place(self, session_id: str) -> Place:
        return self._places.at(session_id)

    def _look(self, place: Place) -> None:
        """Something has changed: whoever waits may be served, and a place where nothing is under way is forgotten."""
        self.berths.look()
        self._places.forget_if_empty(place)

    def _begin(self, place: Place, spec: Spec) -> asyncio.Task[Sandbox | None]:
        place.making = asyncio.create_task(self._open(place, spec), name=f"sandbox {place.session_id}")
        place.making.add_done_callback(lambda task: task.cancelled() or task.exception())
        return place.making

    async def _opened(self, place: Place, spec: Spec, patience: float | None) -> Sandbox:
        while True:
            making = place.making or self._begin(place, spec)
            if patience is not None:
                await asyncio.wait({making}, timeout=patience)
                if not making.done() and self.berths.before(place.session_id) is not None:
                    raise SandboxUnavailable(
                        f"All {self._rules.most} sandboxes are in use (setting max_sandboxes). Try again later."
                    )
            try:
                sandbox = await asyncio.shield(making)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if making.cancelled() and task is not None and not task.cancelling():
                    raise SandboxUnavailable("The session was deleted while its sandbox was being made.") from None
                raise
            if sandbox is not None:  # else it was made ahead, when nobody wanted it, and there was no room
                return sandbox

    async def _open(self, place: Place, spec: Spec) -> Sandbox | None:
        try:
            if place.storing is not None:
                place.storing.cancel()
            async with place.lock:
                if place.sandbox is None:
                    if not await self.berths.take(place):
                        return None
                    place.sandbox = await self._opening.open(place, spec)
                    place.idle_since = place.since = time.monotonic()
                    self._tending.used(place.session_id)
                return place.sandbox
        finally:
            place.reserved = False
            if place.making is asyncio.current_task():
                place.making = None
            self._look(place)

    async def _drop(self, place: Place) -> None:
        dead, place.sandbox = place.sandbox, None
        place.promised = False
        if dead is not None:
            await dead.close()
            self._look(place)

    # --- stopping ----------------------------------------------------------------------------------------------------

    async def tend(self) -> None:
        """Stop what is idle, and put away what has been for long, for ever. Run it in a task of its own."""
        await self._tending.run()

    async def _stop_unused(self, place: Place) -> bool:
        """Stop a sandbox that nobody uses; whether it is gone. Under its lock, so that its session cannot take it back
        meanwhile."""
        async with place.lock:
            sandbox = place.sandbox
            if sandbox is None or place.users or place.promised:
                return sandbox is None
            place.sandbox, place.reserved = None, True  # it counts until it is gone
            try:
                await sandbox.stop()
                await self._store.sandbox_stopped(place.session_id, ago(time.monotonic() - place.idle_since))
            except (SandboxError, StoreError) as error:
                logger.warning("stopping the idle sandbox of %s: %s", place.session_id, error)
                place.sandbox = sandbox if sandbox.alive else None  # the next look tries again
            finally:
                place.reserved = False
        self._look(place)
        return place.sandbox is None

    # --- ending ------------------------------------------------------------------------------------------------------

    async def remove(self, session_id: str) -> None:
        """Remove the session's sandbox and workspace; the intent to do so is already stored."""
        place = self._places.pop(session_id, None)
        if place is not None:
            await _break_off(place)
            if place.sandbox is not None:
                await place.sandbox.close()
        self._tending.used(session_id)
        row = await self._store.sandbox(session_id)
        if row is not None:
            await self._opening.remove(row)
        self.berths.look()

    async def close(self, at_work: Collection[str] = ()) -> None:
        """Let go of every sandbox. Those that outlive the server live on: frozen, unless their session is at work, for
        nobody may be there to freeze them later."""
        places = list(self._places.values())
        await asyncio.gather(*(self._let_go(place, place.session_id not in at_work) for place in places))
        self._places.clear()

    async def _let_go(self, place: Place, freeze: bool) -> None:
        await _break_off(place)
        if place.sandbox is None:
            return
        promises = self._backend.promises
        try:
            if freeze and promises.pause and promises.survives_server_restart:
                async with asyncio.timeout(LEAVE_SECONDS):
                    await place.sandbox.pause()
        except (SandboxError, TimeoutError) as error:
            logger.warning("freezing a sandbox: %s", error)
        await place.sandbox.close()


async def _break_off(place: Place) -> None:
    """End what is being made, brought or packed."""
    tasks = place.tasks
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
