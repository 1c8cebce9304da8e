"""Looking at sessions: as they are now, at what happened in them, and at what happens. It changes nothing.

Above: `lifecycle` and `service`, which are this and more. Below: the store and the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Literal

from server import events
from server.errors import InvalidRequest, NotFound
from server.events import INPUT_TYPES, PRIVATE_DELIVERED, StoredEvent
from server.sessions.fold import fold
from server.sessions.history import Numbered
from server.sessions.live import Frame, Live, waiting
from server.sessions.log import Delta, Log
from server.sessions.pages import Chosen, Pages, Place
from server.sessions.reading import view_from, view_now
from server.sessions.view import SessionView
from server.store.store import Filter as Filter
from server.store.store import SessionRow, Store, Stretch


class Looking:
    """The use-cases that only read."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log

    # --- sessions ----------------------------------------------------------------------------------------------------

    async def view(self, session_id: str) -> SessionView:
        """A session as it is now. Raises NotFound."""
        return await view_now(self._store, session_id)

    async def list_sessions(
        self,
        *,
        limit: int = 20,
        before: tuple[str, str] | None = None,
        archived: bool = False,
        order: str = "desc",
        chosen: Filter | None = None,
    ) -> list[SessionView]:
        """Sessions, newest first (`order` desc); `before` is the (created_at, id) of the last one of the page before.

        `chosen` says more of which; `archived` counts where it is not given.
        """
        rows = await self._store.sessions(chosen or Filter(archived), limit=limit, after=before, order=order)
        return [await view_from(self._store, row) for row in rows]

    async def at_work(self) -> list[str]:
        """The sessions that have something to do, oldest first."""
        return await self._store.at_work()

    async def spent_on(self, day: str) -> tuple[Decimal, int]:
        """US dollars (list price) and tokens of all sessions on a day of UTC, deleted ones included."""
        return await self._store.spent_on(day)

    async def wait(
        self,
        session_ids: Sequence[str],
        mode: Literal["any", "all"],
        seconds: float,
        on_news: Callable[[SessionView], None] | None = None,
    ) -> list[SessionView]:
        """Wait until any or all of the sessions rest, or the time is over; returns their views, in the order asked.

        `on_news` is called with every session's view, then with a session's view at each of its events.
        Cancelling it changes nothing.
        """
        views = {session_id: await self.view(session_id) for session_id in session_ids}
        if on_news is not None:
            for view in views.values():
                on_news(view)

        async def watch(session_id: str) -> None:
            async with aclosing(self._watch(views[session_id])) as seen:
                async for view in seen:
                    views[session_id] = view
                    if on_news is not None:
                        on_news(view)
                    if view.settled:
                        return

        waiting_for = [asyncio.create_task(watch(key)) for key, view in views.items() if not view.settled]
        enough = asyncio.ALL_COMPLETED if mode == "all" else asyncio.FIRST_COMPLETED
        try:
            if waiting_for and (mode == "all" or len(waiting_for) == len(views)):
                await asyncio.wait(waiting_for, timeout=max(0.0, seconds), return_when=enough)
            for task in waiting_for:
                if task.done():
                    task.result()
        finally:
            for task in waiting_for:
                task.cancel()
            if waiting_for:
                await asyncio.wait(waiting_for)
        return [views[session_id] for session_id in session_ids]

    # --- what happened -----------------------------------------------------------------------------------------------

    async def transcript(
        self,
        session_id: str,
        after: int = 0,
        limit: int = 200,
        types: Collection[str] = (),
        *,
        costs: bool = False,
    ) -> list[Numbered]:
        """The public events numbered above `after` (of these types, if any), each with its number, about `limit`: those
        that share a number are not parted. Inputs stand where they were delivered, queued ones last.

        With `costs` the end of a model request also has its `model` and `cost_usd`, which the wire has no fields for.
        """
        return await self._pages(await self.view(session_id), Chosen(types, costs=costs)).since(after, limit)

    async def newest(self, view: SessionView, event_type: str) -> Numbered | None:
        """The newest event of a type that `view` knows of."""
        found = await self._pages(view, Chosen((event_type,))).page(1, back=True)
        return found[0] if found else None

    async def requests(self, view: SessionView, limit: int) -> list[Numbered]:
        """The ends of the newest model requests that `view` knows of, the oldest of them first, with their costs."""
        chosen = Chosen(("span.model_request_end",), costs=True)
        return (await self._pages(view, chosen).page(limit, back=True))[::-1]

    async def list_events(
        self,
        session_id: str,
        thread_id: str | None = None,
        *,
        limit: int = 1000,
        after: Place | None = None,
        order: str = "asc",
        types: Collection[str] = (),
        created: Mapping[str, str] | None = None,
    ) -> list[Numbered]:
        """The public events of a thread (None: the primary one), inputs where they were delivered, queued ones last.

        after     where the last event of the page before stands
        types     only these; empty is all
        created   bounds on `processed_at` by gt, gte, lt, lte; a queued input lies within none
        Raises NotFound, and InvalidRequest when there is no event `after`.
        """
        view = await self.view(session_id)
        _check_thread(view.row, thread_id)
        return await self._pages(view, Chosen(types, created or {})).page(limit, after, back=order == "desc")

    # --- what happens ------------------------------------------------------------------------------------------------

    def follow(self, session_id: str, after: int = 0, *, deltas: bool = False) -> AsyncGenerator[StoredEvent | Delta]:
        """See `Log.follow`."""
        return self._log.follow(session_id, after, deltas=deltas)

    async def live(
        self,
        session_id: str,
        thread_id: str | None = None,
        *,
        previews: Collection[str] = (),
        after: int | None = None,
    ) -> AsyncGenerator[Frame]:
        """A thread's events as they come from now on, or all above number `after`. It ends with the session's deletion.

        Raises NotFound, and InvalidRequest for a number that the log has not reached. When this returns the place is
        fixed: whatever is appended afterwards will come, however late it is iterated.
        """
        view = await self.view(session_id)
        _check_thread(view.row, thread_id)
        start = view.state.seq if after is None else after
        if start > view.state.seq:
            raise InvalidRequest(f"The last event of this session is number {view.state.seq}: there is no {start} yet.")
        past = Stretch((*INPUT_TYPES, PRIVATE_DELIVERED), before=start + 1)
        unread = after is None and not view.state.queue
        queued = {} if unread else waiting(await self._store.stretch(session_id, past))
        thread = view.row.thread_id
        return self._frames(session_id, start, thread, Live(thread, queued, previews), bool(previews))

    async def _frames(
        self, session_id: str, after: int, thread: str, live: Live, deltas: bool
    ) -> AsyncGenerator[Frame]:
        try:
            async with aclosing(self._log.follow(session_id, after, deltas=deltas)) as log:
                async for item in log:
                    for frame in live.take(item):
                        yield frame
        except NotFound:
            deleted = events.session_deleted(thread).public
            assert deleted is not None
            yield Frame(deleted)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _pages(self, view: SessionView, chosen: Chosen) -> Pages:
        return Pages(self._store, view.row, view.state, chosen)

    async def _watch(self, view: SessionView) -> AsyncGenerator[SessionView]:
        state = view.state
        async with aclosing(self._log.follow(view.id, state.seq)) as log:
            async for event in log:
                if isinstance(event, StoredEvent):
                    state = fold(state, (event,))
                    yield SessionView(view.row, view.spec, state)


def _check_thread(row: SessionRow, thread_id: str | None) -> None:
    """Raises NotFound for every thread but the primary one: there is no other yet."""
    if thread_id not in (None, row.thread_id):
        raise NotFound(f"Session {row.id} has no thread {thread_id!r:.80}.")
