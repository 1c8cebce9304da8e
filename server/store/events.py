"""Rows of the log, inside a transaction: written once, never changed.

Above: `store.sessions` and `store.log`. Below: a `Cursor`. It knows numbers and JSON, not what an event means.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from server.events import NewEvent, StoredEvent
from server.store.body import encoded
from server.store.database import Cursor, Row

ALL = 1_000_000
"""Events: more than any session has."""


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
    rows = cursor.all(
        "SELECT seq, session_id, thread_id, id, type, public, private FROM events"
        " WHERE session_id = :id AND seq > :after ORDER BY seq LIMIT :limit",
        {"id": session_id, "after": after, "limit": limit},
    )
    return [_event(row) for row in rows]


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
