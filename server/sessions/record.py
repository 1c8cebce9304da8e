"""A session's log as its loop knows it: folded, kept up to date, appended to.

Above: `loop`, `asking`, `hands`, which share one. Below: the log. It reads only when somebody else may have written:
what this process appends it folds itself, and a gap in the numbers shows what it has missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

from server import events, ids
from server.events import NewEvent, StoredEvent
from server.sessions.conversation.transcript import Transcript
from server.sessions.decide import Limits, Rest, next_work
from server.sessions.fold import fold
from server.sessions.log import Log
from server.sessions.state import SessionState, dump
from server.store.store import HeadMoved


class News:
    """A flag that can be waited for without a task of one's own: a round of tools waits for it four times."""

    def __init__(self) -> None:
        self._told: asyncio.Future[None] | None = None
        self._set = False

    def set(self) -> None:
        self._set = True
        if self._told is not None and not self._told.done():
            self._told.set_result(None)

    def clear(self) -> None:
        self._set = False
        if self._told is not None and self._told.done():
            self._told = None

    def is_set(self) -> bool:
        return self._set

    def told(self) -> asyncio.Future[None]:
        """Done once the flag is set."""
        if self._told is None:
            self._told = asyncio.get_running_loop().create_future()
            if self._set:
                self._told.set_result(None)
        return self._told


class Record:
    """The state and the transcript of one session, as far as its log has been read."""

    def __init__(self, log: Log, session_id: str, thread: str, limits: Limits) -> None:
        self._log = log
        self.limits = limits
        self.session_id = session_id
        self.thread = thread
        self.state = SessionState()
        self.transcript = Transcript()
        self.spec: Mapping[str, Any] | None = None
        """What the session was updated to since somebody last took it from here."""
        self.news = News()
        """Somebody else has written, or may have."""
        self._foreseen: tuple[SessionState, Sequence[NewEvent], SessionState] = (self.state, (), self.state)
        """The state before events that may come next, those events, and the state after them."""
        self._unread = True
        self._clock_ahead = ids.CLOCK.ahead
        """By how much the clock had gone ahead in steps when something was appended last."""

    def wake(self) -> None:
        """Somebody else has written."""
        self._unread = True
        self.news.set()

    async def read_on(self) -> None:
        """Take what others have written into account."""
        while self._unread:  # again, when more came while it was read
            self._unread = False
            self.news.clear()
            self._take(await self._log.read(self.session_id, self.state.seq))

    async def ahead(self) -> SessionState:
        """The state with what others have written, without taking it: whoever acts now may still append to the old."""
        self.news.clear()
        return fold(self.state, await self._log.read(self.session_id, self.state.seq))

    async def append(self, new: Sequence[NewEvent]) -> None:
        """Append what was done. Raises StaleWriter."""
        new, ahead = self._timed(new)
        try:
            stored = await self._log.append(self.session_id, new, attention=True)
        except asyncio.CancelledError:
            self._unread = True  # it is stored all the same
            raise
        if stored[0].seq > self.state.seq + 1:  # somebody appended in between
            self._take(await self._log.read(self.session_id, self.state.seq))
        self._take(stored)
        self._clock_ahead = ahead

    async def append_if_newest(self, new: Sequence[NewEvent]) -> bool:
        """Append what was decided on all there is, or nothing when something has come that was not known."""
        new, ahead = self._timed(new)
        after = self.after(new)
        at_rest = isinstance(next_work(after, self.limits), Rest)
        try:
            stored = await self._log.append(
                self.session_id,
                new,
                if_head=self.state.seq,
                attention=not at_rest,
                fold=dump(after) if at_rest else None,
            )
        except HeadMoved:
            self._unread = True
            return False
        except asyncio.CancelledError:
            self._unread = True
            raise
        self._take(stored)
        self._clock_ahead = ahead
        return True

    def _timed(self, new: Sequence[NewEvent]) -> tuple[Sequence[NewEvent], float]:
        """The same, after a word on how far the clock was set ahead in this turn since something was appended last."""
        ahead = ids.CLOCK.ahead
        if ahead == self._clock_ahead or self.state.active_since is None:
            return new, ahead
        return [events.clock_set_ahead(self.thread, ahead - self._clock_ahead), *new], ahead

    def after(self, new: Sequence[NewEvent]) -> SessionState:
        """The state if these events came next. What it says of the first ones is not worked out again when they are
        asked about with more behind them, nor when they have come."""
        before, known, state = self._foreseen
        if before is not self.state or len(known) > len(new) or not all(map(is_, known, new)):
            known, state = (), self.state
        after = fold(state, self._numbered(new[len(known) :], state.seq))
        self._foreseen = (self.state, new, after)
        return after

    def _numbered(self, new: Sequence[NewEvent], seq: int) -> list[StoredEvent]:
        session = self.session_id
        return [
            StoredEvent(seq + n, session, event.thread_id, event.id, event.type, event.public, event.private)
            for n, event in enumerate(new, 1)
        ]

    def _came_as_foreseen(self, stored: Sequence[StoredEvent]) -> bool:
        """Not so when somebody else's came between, or when the store could not keep them as they were."""
        before, new, _ = self._foreseen
        return (
            before is self.state
            and len(stored) == len(new)
            and stored[0].seq == before.seq + 1
            and all(map(is_, (event.public for event in stored), (event.public for event in new)))
            and all(map(is_, (event.private for event in stored), (event.private for event in new)))
        )

    def _take(self, stored: Sequence[StoredEvent]) -> None:
        seq = self.state.seq
        if stored and self._came_as_foreseen(stored):
            self.state = self._foreseen[2]
        for event in stored:
            if event.seq == seq + 1:
                seq = event.seq
                if seq > self.state.seq:
                    self.state = fold(self.state, (event,))
                self.transcript.apply(event)
                if event.type == "session.updated" and event.private is not None:
                    self.spec = event.private.get("spec", self.spec)
