"""Which sandbox belongs to which session: made on first need, kept across turns, stopped when idle.

Above: `loop` (uses them), `service` (reads and writes files through them), `supervisor` (owns the task group). Below:
one `SandboxBackend` and the store, where every engine call is announced by an intent row before it is made.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sandbox.errors import SandboxError, SandboxGone, SandboxUnavailable, WorkspaceGone
from sandbox.protocol import Sandbox, SandboxBackend, SandboxRef
from sandbox.wire import Call, Put
from server.ids import new_id
from server.sessions.mounting import Mounting
from server.sessions.spec import Spec
from server.sessions.view import cached, view_of
from server.store.store import SandboxRow, Store

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 5.0
"""For freezing a container on the way out; the engine needs 30 ms."""
MOUNT_SECONDS = 20.0
"""How long whoever gives something to a live session waits for it to be there; a large repository goes on after it."""
TICK = 5.0
"""Seconds between looks at what is idle."""


@dataclass(frozen=True)
class IdleRules:
    """When an idle sandbox is stopped, and how many may be live at once. Freezing before that is the backend's."""

    stop_after: float
    most: int


@dataclass
class _Place:
    """A session's place: its sandbox while attached, and who uses it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sandbox: Sandbox | None = None
    users: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    news: list[str] = field(default_factory=list)
    """What the agent has to be told with its next result: its processes or its files are gone."""
    making: asyncio.Task[Sandbox] | None = None
    mounting: asyncio.Task[None] | None = None
    """Something that the session was given while its sandbox was live is on its way into it."""
    reserved: bool = False
    """One of the live sandboxes that are allowed is being made for it."""

    @property
    def counts(self) -> bool:
        """Whether it takes up one of the live sandboxes that are allowed."""
        return self.sandbox is not None or self.reserved


class Sandboxes:
    """The sandboxes of the sessions that this engine drives."""

    def __init__(self, store: Store, backend: SandboxBackend, rules: IdleRules, mounting: Mounting) -> None:
        self._store = store
        self._backend = backend
        self._rules = rules
        self._mounting = mounting
        self._places: dict[str, _Place] = {}
        self._freed = asyncio.Event()

    async def reconcile(self) -> None:
        """After a start: finish removals that were begun. Adoption happens on the first use of each session."""
        for row in await self._store.sandboxes():
            if row.state == "removing" and row.backend == self._backend.name:
                await self._remove(row)
        try:
            await self.collect()
        except SandboxError as error:
            logger.warning("collecting left-over sandboxes: %s", error)

    async def collect(self) -> Sequence[str]:
        """Remove what is ours and no session's: a pooled sandbox of a process that was killed, a half-made one.

        Returns the slots removed. Raises SandboxError when the backend cannot be asked.
        """
        removed = await self._backend.reap({row.slot for row in await self._store.sandboxes()})
        for slot in removed:
            logger.info("removed the left-over sandbox %s", slot)
        return removed

    async def tend(self) -> None:
        """Stop what is idle, for ever. Run it in a task of its own."""
        while True:
            await asyncio.sleep(TICK)
            for session_id, place in list(self._places.items()):
                try:
                    await self._tend(session_id, place)
                except SandboxError as error:
                    logger.warning("sandbox of %s: %s", session_id, error)

    async def _tend(self, session_id: str, place: _Place) -> None:
        if place.users or place.sandbox is None or place.lock.locked():
            return
        if time.monotonic() - place.idle_since < self._rules.stop_after:
            return
        await self._stop_idle(place)

    async def _stop(self, place: _Place) -> None:
        assert place.sandbox is not None
        sandbox, place.sandbox = place.sandbox, None
        try:
            await sandbox.stop()
        except SandboxError:
            place.sandbox = sandbox if sandbox.alive else None  # it lives, and counts: the next look tries again
            raise
        self._freed.set()

    def prepare(self, session_id: str, spec: Spec) -> None:
        """Begin to make the sandbox, while the model thinks. Failures show up at `use`."""
        place = self._places.setdefault(session_id, _Place())
        place.idle_since = time.monotonic()  # in the middle of a turn: not the one to be stopped for another
        if place.sandbox is None and place.making is None:
            place.making = asyncio.create_task(self._open(session_id, spec, place), name=f"sandbox {session_id}")
            place.making.add_done_callback(lambda task: task.cancelled() or task.exception())

    def incarnation(self, session_id: str) -> str | None:
        """The life of the sandbox if it is attached now: a call may be dispatched to it without waiting."""
        place = self._places.get(session_id)
        return place.sandbox.incarnation if place and place.sandbox and place.sandbox.alive else None

    @asynccontextmanager
    async def use(self, session_id: str, spec: Spec) -> AsyncIterator[Sandbox]:
        """The session's sandbox, attached and running; it is not frozen or stopped while in use.

        Raises SandboxUnavailable when none can be made. A SandboxGone raised inside drops the attachment.
        """
        place = self._places.setdefault(session_id, _Place())
        place.users += 1
        sandbox: Sandbox | None = None
        try:
            if place.sandbox is not None and not place.sandbox.alive:
                await self._drop(place)  # it died while nobody used it
            sandbox = place.sandbox or await self._opened(session_id, spec, place)
            yield sandbox
        except SandboxGone:
            if place.sandbox is sandbox:  # else another user has opened it again already
                await self._drop(place)
            raise
        finally:
            place.users -= 1
            place.idle_since = time.monotonic()

    async def mount(self, session_id: str) -> None:
        """The session was given something, or something was taken from it: let a live sandbox show it, within
        MOUNT_SECONDS or later. One that is not live shows it when it is opened."""
        place = self._places.get(session_id)
        if place is None or (place.sandbox is None and place.making is None):
            return
        before = {task for task in (place.mounting, place.making) if task is not None}
        place.mounting = asyncio.create_task(self._mount(session_id, place, before), name=f"mount {session_id}")
        place.mounting.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait({place.mounting}, timeout=MOUNT_SECONDS)

    async def _mount(self, session_id: str, place: _Place, before: set[asyncio.Task[Any]]) -> None:
        """`before`: what may have looked too early, and must not be met on the way."""
        if before:
            await asyncio.wait(before)
        sandbox = place.sandbox
        if sandbox is None:
            return
        place.users += 1
        try:
            await self._mounting.bring(session_id, sandbox)
        except SandboxError as error:
            logger.warning("what %s was given comes when its sandbox is opened again: %s", session_id, error)
        finally:
            place.users -= 1
            place.idle_since = time.monotonic()

    async def _drop(self, place: _Place) -> None:
        dead, place.sandbox = place.sandbox, None
        if dead is not None:
            await dead.close()
            self._freed.set()

    def take_news(self, session_id: str) -> list[str]:
        """What the agent must be told once."""
        place = self._places.get(session_id)
        if place is None:
            return []
        news, place.news = place.news, []
        return news

    async def remove(self, session_id: str) -> None:
        """Remove the session's sandbox and workspace; the intent to do so is already stored."""
        place = self._places.pop(session_id, None)
        if place is not None:
            await self._break_off(place)
            if place.sandbox is not None:
                await place.sandbox.close()
        row = await self._store.sandbox(session_id)
        if row is not None:
            await self._remove(row)
        self._freed.set()

    async def close(self, at_work: Collection[str] = ()) -> None:
        """Let go of every sandbox. Those that outlive the server live on: frozen, unless their session is at work, for
        nobody may be there to freeze them later."""
        places = [(key, place) for key, place in self._places.items() if place.making or place.sandbox]
        await asyncio.gather(*(self._let_go(place, key not in at_work) for key, place in places))
        self._places.clear()

    async def _break_off(self, place: _Place) -> None:
        """End what is being made or brought."""
        tasks = {task for task in (place.making, place.mounting) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _let_go(self, place: _Place, freeze: bool) -> None:
        await self._break_off(place)
        if place.sandbox is None:
            return
        promises = self._backend.promises
        try:
            if freeze and promises.pause and promises.survives_server_restart:
                await asyncio.wait_for(place.sandbox.pause(), LEAVE_SECONDS)
        except (SandboxError, TimeoutError) as error:
            logger.warning("freezing a sandbox: %s", error)
        await place.sandbox.close()

    async def _opened(self, session_id: str, spec: Spec, place: _Place) -> Sandbox:
        self.prepare(session_id, spec)
        making = place.making
        assert making is not None
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if making.cancelled() and task is not None and not task.cancelling():
                raise SandboxUnavailable("The session was deleted while its sandbox was being made.") from None
            raise

    async def _open(self, session_id: str, spec: Spec, place: _Place) -> Sandbox:
        try:
            async with place.lock:
                if place.sandbox is None:
                    await self._make_room(place)
                    place.sandbox = await self._find_or_make(session_id, spec, place)
                    place.idle_since = time.monotonic()
                return place.sandbox
        finally:
            place.making, place.reserved = None, False
            self._freed.set()

    async def _make_room(self, place: _Place) -> None:
        """Reserve one of the live sandboxes that are allowed: stop the longest idle one, or wait for one to be idle."""
        deadline = time.monotonic() + 60
        while sum(other.counts for other in self._places.values()) >= self._rules.most:
            idle = [one for one in self._places.values() if one.sandbox and not one.users and not one.lock.locked()]
            if idle:
                await self._stop_idle(min(idle, key=lambda one: one.idle_since))
                continue
            if time.monotonic() > deadline:
                raise SandboxUnavailable(
                    f"All {self._rules.most} sandboxes are in use (setting max_sandboxes). Try again later."
                )
            self._freed.clear()
            try:
                await asyncio.wait_for(self._freed.wait(), 1.0)
            except TimeoutError:
                continue
        place.reserved = True

    async def _stop_idle(self, place: _Place) -> None:
        """Stop a sandbox that nobody uses. Under its lock, so that its session cannot take it back meanwhile."""
        async with place.lock:
            if place.sandbox is not None and not place.users:
                try:
                    await self._stop(place)
                except SandboxError as error:
                    logger.warning("stopping an idle sandbox: %s", error)

    async def _find_or_make(self, session_id: str, spec: Spec, place: _Place) -> Sandbox:
        row = await self._store.sandbox(session_id)
        if row is not None:
            found = await self._attach(row, spec, place)
            if found is not None:
                return found
        elif spec.backend not in ("none", self._backend.name):
            raise SandboxUnavailable(self._other_backend(spec.backend))
        return await self._make(session_id, spec, place)

    def _other_backend(self, name: str) -> str:
        return (
            f"This session belongs in a {name} sandbox, but this server uses {self._backend.name}. Start Skiff with"
            f" --sandbox {name}."
        )

    async def _attach(self, row: SandboxRow, spec: Spec, place: _Place) -> Sandbox | None:
        if row.backend != self._backend.name:
            raise SandboxUnavailable(self._other_backend(row.backend))
        ref = SandboxRef(row.backend, row.slot, row.container)
        try:
            sandbox = await self._backend.attach(ref, spec.sandbox)
        except SandboxGone as gone:
            if not isinstance(gone, WorkspaceGone):
                raise SandboxUnavailable(
                    f"The sandbox could not be started again: {gone}. Its files are kept."
                ) from gone
            await self._backend.destroy(ref)
            if row.state == "live":
                place.news.append("The sandbox was lost with all its files; this is a new, empty one.")
            return None
        if row.state == "live" and sandbox.incarnation != row.incarnation:
            place.news.append(
                "The sandbox was stopped and started again: files are kept; shell variables, background processes and"
                " /tmp are not."
            )
        await self._settle(row.session_id, sandbox, place)
        return sandbox

    async def _make(self, session_id: str, spec: Spec, place: _Place) -> Sandbox:
        slot = f"skiff-{session_id.split('_', 1)[1].lower()}"
        await self._store.put_sandbox(SandboxRow(session_id, slot, self._backend.name, "", "", "making"))
        making = asyncio.create_task(self._create(session_id, spec, slot, place), name=f"create sandbox {session_id}")
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            # Broken off half way, a pooled one would be known to nobody: it is recorded first, then let go.
            with suppress(SandboxError):
                await (await making).close()
            raise

    async def _create(self, session_id: str, spec: Spec, slot: str, place: _Place) -> Sandbox:
        sandbox = await self._backend.create(spec.sandbox, slot)
        try:
            await self._settle(session_id, sandbox, place, fresh=True)
        except BaseException:  # it is in no row, or in one that the next attempt will overwrite
            await asyncio.shield(self._backend.destroy(sandbox.ref))
            raise
        return sandbox

    async def _settle(self, session_id: str, sandbox: Sandbox, place: _Place, *, fresh: bool = False) -> None:
        """Record that this sandbox is live, then place the staged files and what the session was given."""
        ref = sandbox.ref
        row = SandboxRow(session_id, ref.slot, ref.backend, ref.container, sandbox.incarnation, "live")
        await self._store.put_sandbox(row)
        await self._clear_away(session_id, sandbox)
        staged = await self._store.staged_files(session_id)
        for path, content in staged.items():
            call = Call(new_id("stage"), Put(path), body=content)
            result = await sandbox.call(call)
            await sandbox.settle([call.op_id])
            if not result.ok:
                place.news.append(f"The file {path} could not be placed: {result.body.decode('utf-8', 'replace')}")
        if staged:
            await self._store.unstage_files(session_id)
        await self._mounting.bring(session_id, sandbox, fresh=fresh)

    async def _clear_away(self, session_id: str, sandbox: Sandbox) -> None:
        """Let the runner forget what a server that died left with it: results that are in the log already, and
        operations that nobody waits for. Open calls are not touched; they are asked for again under their ids."""
        if not sandbox.left:
            return
        session, tail = await self._store.session_and_tail(session_id)
        state = view_of(session, cached(session), tail).state
        nobodys = sandbox.left.keys() - {call.id for call in state.calls}
        for op_id in nobodys:
            if sandbox.left[op_id] == "running":
                await sandbox.cancel(op_id)
        await sandbox.settle(sorted(nobodys))

    async def _remove(self, row: SandboxRow) -> None:
        try:
            await self._backend.destroy(SandboxRef(row.backend, row.slot, row.container))
        except SandboxError as error:
            logger.warning("removing the sandbox of %s: %s; tried again at the next start", row.session_id, error)
            return
        await self._store.forget_sandbox(row.session_id)
