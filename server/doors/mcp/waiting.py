"""Waiting for sessions on behalf of a request, and telling its host what goes on meanwhile.

Above: `tools`. Below: `Service.wait`, and the connection's progress notifications; `progress` decides what is told.
Nothing here can stop a turn: cancelling a wait lets go of the wait, and of nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from server.doors.mcp.progress import activity, message, pause, value_after

if TYPE_CHECKING:
    from server.sessions.service import Service, SessionView

logger = logging.getLogger(__name__)

T = TypeVar("T")
Tell = Callable[[float, float | None, str], Awaitable[None]]
"""Sends a progress notification: value, total (unknown here), message."""

_unfinished: set[asyncio.Task[Any]] = set()


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Do it to its end, even when the request that asked for it goes away meanwhile.

    For what changes something: half of a use-case (a message stored, its engine not woken) must not be left behind.
    """
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_finished)
    return await asyncio.shield(task)


def _finished(task: asyncio.Task[Any]) -> None:
    _unfinished.discard(task)
    if not task.cancelled():
        task.exception()  # seen; whoever still waits gets it raised


async def wait(
    service: Service, session_ids: Sequence[str], mode: Literal["any", "all"], seconds: float, tell: Tell
) -> list[SessionView]:
    """`Service.wait`, telling progress. Raises NotFound."""
    teller = _Teller(service, session_ids, tell)
    waiting = asyncio.create_task(service.wait(session_ids, mode, seconds, teller.news))
    telling = asyncio.create_task(teller.run())
    try:
        return await waiting
    finally:
        waiting.cancel()
        telling.cancel()
        await asyncio.wait({waiting, telling})


def _is_news(view: SessionView, known: SessionView) -> bool:
    at, before = view.state.seq, known.state.seq
    return at > before or (at == before and view.waiting != known.waiting)


class _Teller:
    """Turns news of sessions into progress notifications, neither too many nor too few."""

    def __init__(self, service: Service, session_ids: Sequence[str], tell: Tell) -> None:
        self._service = service
        self._ids = session_ids
        self._tell = tell
        self._views: dict[str, SessionView] = {}
        self._newest: SessionView | None = None
        self._activity_since = time.monotonic()
        self._fresh = asyncio.Event()
        self._value: float | None = None

    def news(self, view: SessionView) -> None:
        """This is how the session stands now."""
        known = self._views.get(view.id)
        if known is not None and not _is_news(view, known):
            return
        if self._newest is None or activity(view) != activity(self._newest):
            self._activity_since = time.monotonic()
        self._views[view.id] = self._newest = view
        self._fresh.set()

    async def run(self) -> None:
        """Tell, for ever. A host that does not listen any more ends it."""
        told: float | None = None
        try:
            while True:
                since = None if told is None else time.monotonic() - told
                due = pause(since, self._fresh.is_set())
                if due:
                    await self._sleep(due)
                    continue
                if not self._fresh.is_set():
                    await self._look()
                self._fresh.clear()
                await self._tell_newest()
                told = time.monotonic()
        except Exception as error:  # a closed connection has as many names as there are transports
            logger.debug("no more progress is told: %s: %s", type(error).__name__, error)

    async def _look(self) -> None:
        """See how the sessions stand: at the beginning, and when they have been silent."""
        for view in await self._service.with_waiting([await self._service.view(key) for key in self._ids]):
            self.news(view)

    async def _sleep(self, seconds: float) -> None:
        if self._fresh.is_set():
            await asyncio.sleep(seconds)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):  # see `Role._look`
                    await self._fresh.wait()

    async def _tell_newest(self) -> None:
        assert self._newest is not None  # there is at least one session, and it was looked at
        number = sum(view.state.seq for view in self._views.values())
        self._value = value_after(self._value, number)
        name = (self._newest.row.title or self._newest.id)[:40] if len(self._ids) > 1 else ""
        seconds = time.monotonic() - self._activity_since
        await self._tell(self._value, None, message(self._newest, seconds, name))
