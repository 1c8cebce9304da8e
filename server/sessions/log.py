"""The log: the only writer of events. `append` stores and then wakes; `follow` reads on for ever.

A follower keeps nothing but its place: it is woken and reads the store from there, so a slow one costs no memory and
loses nothing. Only deltas (text that a model is still writing) are kept per follower, bounded, and shed when it is
slow; they are never stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.errors import StoreBlocked
from server.events import NewEvent, StoredEvent
from server.store.store import Change, Store

logger = logging.getLogger(__name__)

RECENT = 64
"""Events of a followed session that are kept in memory: a few rounds of tools. Older ones are read from the store."""
PAGE = 100
"""Events that a follower who is behind reads at a time: what it holds while its reader is slow. The largest have
100,000 characters."""
HOLD_SECONDS, HOLD_PAUSE = 600.0, 1.0
"""How long what the engine did is held while it cannot be stored, and between two tries: somebody has to make room."""
MAX_DELTAS = 1_000
"""Deltas that wait for one follower; beyond it the rest of that text is shed (the stored event brings all of it)."""


@dataclass(frozen=True)
class Delta:
    """Text that is being written: more of the event `event_id`, published when the log stood at `after`."""

    session_id: str
    event_id: str
    event_type: str
    text: str
    after: int
    at: int = 0
    """Characters of this event's text that came before: who has missed some can tell."""


class _Waiting(deque[Delta]):
    """The deltas that wait for one follower. What it gets of a text is always the text's beginning, without gaps."""

    def __init__(self) -> None:
        super().__init__()
        self._shed = ""

    def offer(self, delta: Delta) -> None:
        """Take it, or shed it and whatever else comes of the same text."""
        if len(self) >= MAX_DELTAS:
            self._shed = delta.event_id
        if delta.event_id != self._shed:
            self.append(delta)


class _Channel:
    """Who waits for news of one session."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.followers = 0
        self.deltas: list[_Waiting] = []
        self.recent: deque[StoredEvent] = deque(maxlen=RECENT)
        self.pokes = 0
        """How often others may have written: what is in `recent` is then not all there is."""

    def ring(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def remember(self, stored: Sequence[StoredEvent]) -> None:
        """Keep the newest events for followers who are nearly there, without a gap."""
        if self.recent and stored[0].seq <= self.recent[-1].seq:
            return  # a request asked again: its events are old ones
        if self.recent and stored[0].seq != self.recent[-1].seq + 1:
            self.recent.clear()
        self.recent.extend(stored)

    def since(self, after: int) -> list[StoredEvent] | None:
        """The events above `after`, if they are all in memory."""
        if not self.recent or self.recent[0].seq > after + 1:
            return None
        return [event for event in self.recent if event.seq > after]


class Log:
    """The sessions' events in this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._channels: dict[str, _Channel] = {}
        self.epoch: int | None = None
        """The engine's epoch once this process is the engine."""
        self.on_append: Callable[[str], None] | None = None
        """Told of every session that has news, for followers in other processes; set while this is the engine."""

    async def append_input(
        self,
        session_id: str,
        events: Sequence[NewEvent],
        key: tuple[str, str] | None = None,
        *,
        if_head: int | None = None,
    ) -> list[StoredEvent]:
        """Append what a client sent; any process may. The engine has something to do afterwards.

        Raises Conflict when the session is archived, HeadMoved by `if_head`.
        """
        return await self._store.append(session_id, events, attention=True, key=key, if_head=if_head, done=self._ring)

    async def append_change(
        self,
        session_id: str,
        events: Sequence[NewEvent],
        change: Change,
        *,
        if_head: int,
        attention: bool | None = None,
    ) -> list[StoredEvent]:
        """Append what a client changed of a session that stands at `if_head`, and change its row.

        `attention`: the engine has something to do now; None: as before. Raises Conflict when the session is archived,
        HeadMoved when it has moved on.
        """
        return await self._store.append(
            session_id, events, change=change, if_head=if_head, attention=attention, done=self._ring
        )

    async def append(
        self,
        session_id: str,
        events: Sequence[NewEvent],
        *,
        if_head: int | None = None,
        attention: bool | None = None,
        fold: Mapping[str, Any] | None = None,
    ) -> list[StoredEvent]:
        """Append what the engine did. Raises StaleWriter when another engine has taken over, HeadMoved by `if_head`.

        A store that is locked or full is waited for, HOLD_SECONDS at most: an answer of the model was paid for.
        """
        until = time.monotonic() + HOLD_SECONDS
        while True:
            try:
                return await self._store.append(
                    session_id,
                    events,
                    epoch=self.epoch,
                    if_head=if_head,
                    attention=attention,
                    fold=fold,
                    done=self._ring,
                )
            except StoreBlocked as blocked:
                if time.monotonic() > until:
                    raise
                logger.error("%s waits to be stored: %s", session_id, blocked)
            await asyncio.sleep(HOLD_PAUSE)

    async def read(self, session_id: str, after: int = 0, limit: int = 1_000_000) -> list[StoredEvent]:
        """The events numbered above `after`."""
        return await self._store.events(session_id, after, limit)

    def poke(self, session_id: str | None = None) -> None:
        """Another process may have written: let the followers of this session, or of all, look."""
        chosen = self._channels.values() if session_id is None else filter(None, [self._channels.get(session_id)])
        for channel in list(chosen):
            channel.pokes += 1
            channel.ring()

    def publish(self, delta: Delta) -> None:
        """Give text that is being written to the followers who want it."""
        channel = self._channels.get(delta.session_id)
        if channel is None or not channel.deltas:
            return
        for waiting in channel.deltas:
            waiting.offer(delta)
        channel.ring()

    async def follow(
        self, session_id: str, after: int = 0, *, deltas: bool = False
    ) -> AsyncGenerator[StoredEvent | Delta]:
        """Every event above `after`, stored ones first, then as they come; ends only when closed.

        Raises NotFound once the session is deleted.

        With `deltas`, also text as it is written: a delta comes after every event that was stored before it, and
        before the event that holds its whole text.
        """
        channel = self._channels.setdefault(session_id, _Channel())
        mine = _Waiting()
        channel.followers += 1
        pokes = -1
        if deltas:
            channel.deltas.append(mine)
        try:
            while True:
                news = channel.news  # taken before reading: what is stored after this rings it
                known = channel.since(after) if pokes == channel.pokes else None
                pokes = channel.pokes
                events = await self._store.events(session_id, after, PAGE) if known is None else known
                for event in events:
                    while mine and mine[0].after < event.seq:
                        yield mine.popleft()
                    yield event
                    after = event.seq
                shown = False
                while mine and mine[0].after <= after:
                    yield mine.popleft()
                    shown = True
                if not events:
                    if known is None and not shown:
                        await self._store.session(session_id)  # others wrote nothing: it may have been deleted
                    await news.wait()
        finally:
            channel.followers -= 1
            if deltas:
                channel.deltas = [waiting for waiting in channel.deltas if waiting is not mine]
            if not channel.followers:
                self._channels.pop(session_id, None)

    def _ring(self, stored: Sequence[StoredEvent]) -> None:
        """Wake whoever waits for news, once they are stored."""
        if not stored:
            return
        session_id = stored[0].session_id
        if self.on_append is not None:
            self.on_append(session_id)
        channel = self._channels.get(session_id)
        if channel is not None:
            channel.remember(stored)
            channel.ring()
