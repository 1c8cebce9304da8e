"""Rows of the log, inside a transaction: written once, never changed.

Above: `store.sessions` and `store.log`. Below: a `Cursor`. It knows numbers and JSON, not what an event means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from server.events import NewEvent, StoredEvent
from server.store.body import encoded
from server.store.database import Cursor, Row

ALL = 1_000_000
"""Events: more than any session has."""
FEW, FEW_CHARACTERS = 32, 256 << 10
"""Events that are read as a small piece of work: those of some rounds of tools, a fifth of a millisecond as a rule. A
single event can hold an image or a document of many megabytes."""
_WHOLE = "seq, session_id, thread_id, id, type, public, private"
_SHOWN = "seq, session_id, thread_id, id, type, public, CASE WHEN public IS NULL THEN private END"
"""What a reader of the history needs: the private parts that stand beside public ones can be larger than these."""


class HeadMoved(Exception):
    """A conditional change found a newer event than the caller had read. Read on and decide again."""


@dataclass(frozen=True)
class Stretch:
    """Some rows of a log: of these types, numbered above `after` and below `before`, at most `limit`."""

    types: Sequence[str]
    after: int = 0
    before: int = ALL
    thread_id: str | None = None
    """None: of any thread."""
    ids: Sequence[str] | None = None
    """Only these; None is all. There is no index for them: found from the end where they stand, they cost little."""
    back: bool = False
    """The newest first."""
    limit: int = ALL
    size: int = 1 << 62
    """Characters after which it ends, whatever else there is: the row that reaches it is the last one."""
    whole: bool = False
    """With the private parts of public rows too."""


def insert_events(cursor: Cursor, session_id: str, head: int, events: Sequence[NewEvent]) -> list[StoredEvent]:
    """Number the events from `head` on and store them."""
    stored = []
    for seq, event in enumerate(events, head + 1):
        (public, public_json), (private, private_json) = encoded(event.public), encoded(event.private)
        cursor.execute(
            "INSERT INTO events (session_id, seq, id, thread_id, type, public, private)"
            " VALUES (:session_id, :seq, :id, :thread_id, :type, :public, :private)",
            {
                "session_id": session_id,
                "seq": seq,
                "id": event.id,
                "thread_id": event.thread_id,
                "type": event.type,
                "public": public_json,
                "private": private_json,
            },
        )
        stored.append(StoredEvent(seq, session_id, event.thread_id, event.id, event.type, public, private))
    return stored


def events_after(cursor: Cursor, session_id: str, after: int, limit: int) -> list[StoredEvent]:
    """The events numbered above `after`, in order."""
    return [_event(row) for row in _rows_after(cursor, session_id, after, limit)]


def few_after(cursor: Cursor, session_id: str, after: int, limit: int) -> list[StoredEvent] | None:
    """The same; None where they are too many, or too long, to be a small piece of work."""
    rows: list[Row] = []
    left = FEW_CHARACTERS
    for row in _rows_after(cursor, session_id, after, min(limit, FEW + 1)):
        rows.append(row)
        left -= sum(len(part) for part in row[-2:] if part)
        if left < 0 or len(rows) > FEW:
            return None
    return [_event(row) for row in rows]


def _rows_after(cursor: Cursor, session_id: str, after: int, limit: int) -> Iterator[Row]:
    return cursor.each(
        f"SELECT {_WHOLE} FROM events WHERE session_id = :id AND seq > :after ORDER BY seq LIMIT :limit",
        {"id": session_id, "after": after, "limit": limit},
    )


def clear(cursor: Cursor, session_id: str, limit: int) -> bool:
    """Remove the first `limit` rows of a log. Whether some are left."""
    key = {"id": session_id}
    beyond = cursor.one(
        "SELECT seq FROM events WHERE session_id = :id ORDER BY seq LIMIT 1 OFFSET :n", {**key, "n": limit}
    )
    if beyond is None:
        cursor.execute("DELETE FROM events WHERE session_id = :id", key)
    else:
        cursor.execute("DELETE FROM events WHERE session_id = :id AND seq < :seq", {**key, "seq": beyond[0]})
    return beyond is not None


def stretch(cursor: Cursor, session_id: str, which: Stretch) -> list[StoredEvent]:
    """These rows in order."""
    params: dict[str, Any] = {"id": session_id, "after": which.after, "before": which.before, "limit": which.limit}
    where = ["session_id = :id", "seq > :after", "seq < :before", _among("type", which.types, params)]
    if which.thread_id is not None:
        where.append("thread_id = :thread")
        params["thread"] = which.thread_id
    if which.ids is not None:
        where.append(_among("id", which.ids, params))
    order = "DESC" if which.back else "ASC"
    columns = _WHOLE if which.whole else _SHOWN
    sql = f"SELECT {columns} FROM events WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT :limit"
    rows: list[Row] = []
    left = which.size
    for row in cursor.each(sql, params):
        rows.append(row)
        left -= sum(len(part) for part in row[-2:] if part)
        if left <= 0:
            break
    return [_event(row) for row in rows]


def _among(column: str, values: Sequence[str], params: dict[str, Any]) -> str:
    """The condition that a column has one of these values, which are added to the parameters."""
    named = {f"{column}_{n}": value for n, value in enumerate(values)}
    params |= named
    return f"{column} IN ({', '.join(f':{name}' for name in named)})"


def _event(row: Row) -> StoredEvent:
    seq, session_id, thread_id, event_id, kind, public, private = row
    return StoredEvent(
        seq,
        session_id,
        thread_id,
        event_id,
        kind,
        json.loads(public) if public else None,
        json.loads(private) if private else None,
    )
