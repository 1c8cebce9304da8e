"""Pages of a session's history: whatever its length, a page reads the rows that stand on it and little more.

Above: `looking`. Below: the store, and `history`, which says what rows mean. What is listed is the log as it stood at
one moment: rows are only ever added, so that its newest number is all that has to be remembered of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from server.errors import InvalidRequest
from server.events import INPUT_TYPES, LISTED_TYPES, PRIVATE_DELIVERED, StoredEvent
from server.sessions.history import Numbered, delivered_by, present, within
from server.sessions.state import SessionState, size
from server.store.store import SessionRow, Store, Stretch

ROWS = 250
"""Rows that are read at a time: few enough to hold, and the database's reader is somebody else's turn in between."""
SIZE = 16 << 20
"""Characters that a page holds, about: its answer is built in memory, some three times over. A history with pictures
has more than that in a few hundred events."""
_INPUTS = tuple(sorted(INPUT_TYPES))
_EVERY_ROW = (*LISTED_TYPES, PRIVATE_DELIVERED)


@dataclass(frozen=True)
class Place:
    """Where a listed event stands: its number, and its id among those that share it."""

    number: int
    id: str


@dataclass(frozen=True)
class Chosen:
    """Which events a list shows; empty does not filter."""

    types: Collection[str] = ()
    created: Mapping[str, str] = field(default_factory=dict)
    """Bounds on `processed_at` by gt, gte, lt, lte."""
    costs: bool = False
    """Whether the ends of model requests tell their cost."""

    def has(self, item: Numbered) -> bool:
        if self.types and item[1]["type"] not in self.types:
            return False
        return not self.created or within(item[1]["processed_at"], self.created)

    @property
    def row_types(self) -> tuple[str, ...]:
        """The types of the rows that have to be read for it."""
        if not self.types:
            return tuple(name for name in _EVERY_ROW if name not in INPUT_TYPES)
        wanted = [name for name in self.types if name not in INPUT_TYPES]
        return tuple(wanted if len(wanted) == len(self.types) else (*wanted, PRIVATE_DELIVERED))


class Cut(list[Numbered]):
    """A page that is full by its size before it is by number: there is more behind it."""


class Pages:
    """The history of a session's primary thread, as it stood when its log had been folded to `state`."""

    def __init__(self, store: Store, row: SessionRow, state: SessionState, chosen: Chosen) -> None:
        self._store = store
        self._id = row.id
        self._thread = row.thread_id
        self._end = state.seq + 1
        self._waiting = [item.id for item in state.queue]
        self._chosen = chosen

    async def page(self, limit: int, after: Place | None = None, *, back: bool = False) -> list[Numbered]:
        """At most `limit` events behind a place, or from the beginning; `back`: from the end. Raises InvalidRequest
        when no event stands there."""
        found, room = list[Numbered](), SIZE
        async with aclosing(self._walk(after, back, limit)) as walk:
            async for item in walk:
                if room <= 0:
                    return Cut(found)
                if self._chosen.has(item):
                    found.append(item)
                    room -= _size(item[1])
                    if len(found) >= limit:
                        break
        return found

    async def since(self, after: int, limit: int) -> list[Numbered]:
        """The events numbered above `after`, about `limit` of them: those of one number, which a reader goes on from,
        are not parted."""
        found, room = list[Numbered](), SIZE
        async with aclosing(self._rows(after, False, limit)) as rows:
            async for item in rows:
                if (len(found) >= limit or room <= 0) and item[0] != found[-1][0]:
                    return found
                if self._chosen.has(item):
                    found.append(item)
                    room -= _size(item[1])
        queued = [item for item in await self._queue() if item[0] > after and self._chosen.has(item)]
        return found + queued[: max(0, limit - len(found))]

    async def _walk(self, after: Place | None, back: bool, limit: int) -> AsyncGenerator[Numbered]:
        """Everything behind a place, in order: what has been processed, then what waits, or the other way round."""
        queue = await self._queue()
        if back:
            queue.reverse()
        start = None
        seen = next((n for n, (_, body) in enumerate(queue, 1) if after and body["id"] == after.id), 0)
        if seen or (back and after is None):
            for item in queue[seen:]:
                yield item
        if seen and not back:
            return
        if after is not None and not seen:
            start, rest = await self._behind(after, back)
            for item in rest:
                yield item
        async with aclosing(self._rows(start, back, limit)) as rows:
            async for item in rows:
                yield item
        if not back:
            for item in queue:
                yield item

    async def _rows(self, start: int | None, back: bool, limit: int) -> AsyncGenerator[Numbered]:
        """What has been processed, beyond a number."""
        low, high = (0, start or self._end) if back else (start or 0, self._end)
        many = ROWS if self._chosen.created else min(limit, ROWS)
        while True:
            rows = await self._read(self._chosen.row_types, after=low, before=high, back=back, limit=many)
            for item in await self._listed(rows, back):
                yield item
            if not rows:
                return
            low, high = (low, rows[-1].seq) if back else (rows[-1].seq, high)

    async def _behind(self, place: Place, back: bool) -> tuple[int, list[Numbered]]:
        """The number of the row in which an event stands by now, and what that row holds behind it."""
        row = await self._row(place.number)
        if row is not None and row.type in INPUT_TYPES and row.id == place.id:
            row = await self._delivery(row)  # it waited when it was seen
        if row is not None:
            items = await self._listed([row], back)
            for n, (_, body) in enumerate(items, 1):
                if body["id"] == place.id:
                    return row.seq, items[n:]
        raise InvalidRequest("invalid page cursor")

    async def _row(self, number: int) -> StoredEvent | None:
        return next(iter(await self._read(_EVERY_ROW, after=number - 1, before=number + 1)), None)

    async def _delivery(self, given: StoredEvent) -> StoredEvent | None:
        after = given.seq
        while rows := await self._read((PRIVATE_DELIVERED,), after=after):
            for row in rows:
                if given.id in delivered_by(row):
                    return row
            after = rows[-1].seq
        return None

    async def _listed(self, rows: Sequence[StoredEvent], back: bool) -> list[Numbered]:
        ids = [event_id for row in rows for event_id in delivered_by(row)]
        newest = max((row.seq for row in rows), default=0)
        inputs = await self._inputs(ids, newest) if ids else []
        known = {event.id: event for event in inputs}
        listed = present(reversed(rows) if back else rows, known, costs=self._chosen.costs)
        return listed[::-1] if back else listed

    async def _queue(self) -> list[Numbered]:
        """What waits, in the order in which it came. It was not processed, so it lies within no bounds of time."""
        inputs = await self._inputs(self._waiting, self._end) if self._waiting else []
        return [(event.seq, event.public) for event in reversed(inputs) if event.public is not None]

    async def _inputs(self, ids: Sequence[str], before: int) -> list[StoredEvent]:
        """Inputs by id, the newest first: they are looked for backwards, standing shortly before their delivery."""
        return await self._read(_INPUTS, before=before, ids=ids, back=True, limit=len(ids))

    async def _read(
        self,
        types: Sequence[str],
        *,
        after: int = 0,
        before: int = 0,
        ids: Sequence[str] | None = None,
        back: bool = False,
        limit: int = ROWS,
    ) -> list[StoredEvent]:
        end = min(before or self._end, self._end)
        which = Stretch(types, after, end, self._thread, ids, back, limit, whole=self._chosen.costs)
        return await self._store.stretch(self._id, which if ids else replace(which, size=SIZE))


def _size(body: Mapping[str, Any]) -> int:
    """Characters of what can be long in an event."""
    content = body.get("content")
    return 500 + (size(content) if isinstance(content, list) else 0) + len(str(body.get("input", "")))
