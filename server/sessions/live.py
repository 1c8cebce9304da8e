"""A log that is being followed, as the wire's streams tell it. Pure: stored events and deltas in, frames out.

An input appears twice under one id: when it is queued (`processed_at` null) and when it is delivered. Private rows
never appear. Text that is still being written appears as `event_start` and `event_delta`, for those who asked, and what
they get of a text is always its beginning without gaps, or nothing.

Above: `looking`, which feeds it. Below: the vocabulary. It does not know HTTP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from server.events import INPUT_TYPES, PRIVATE_DELIVERED, StoredEvent
from server.sessions.log import Delta

PREVIEWS = ("agent.message", "agent.thinking")
"""Types of events that can be shown while they are written."""


@dataclass(frozen=True)
class Frame:
    """One event of a stream. `seq`, where there is one, is the place to resume from once this was received."""

    event: Mapping[str, Any]
    seq: int | None = None


def waiting(log: Iterable[StoredEvent]) -> dict[str, Mapping[str, Any]]:
    """The inputs that this log, read from its beginning, leaves queued: their public parts by id."""
    queued: dict[str, Mapping[str, Any]] = {}
    for event in log:
        if event.type in INPUT_TYPES and event.public is not None:
            queued[event.id] = event.public
        elif event.type == PRIVATE_DELIVERED and event.private is not None:
            for event_id in event.private["ids"]:
                queued.pop(event_id, None)
    return queued


class Live:
    """The events of one thread as one connection gets them."""

    def __init__(self, thread: str, queued: Mapping[str, Mapping[str, Any]], previews: Collection[str] = ()) -> None:
        """`queued`: the inputs that wait where the connection begins; `previews`: types to be shown while written."""
        self._thread = thread
        self._queued = dict(queued)
        self._previews = frozenset(previews)
        self._written: dict[str, int] = {}

    def take(self, item: StoredEvent | Delta) -> list[Frame]:
        """What the next item of the log means for the connection, in order."""
        if isinstance(item, Delta):
            return [Frame(event) for event in self._preview(item)]
        if item.thread_id != self._thread:
            return []
        if item.type == PRIVATE_DELIVERED:
            shown = self._delivered(item.private or {})
        else:
            shown = [] if item.public is None else [item.public]
            self._note(item)
        # Events that came in one row share its number: only the last may carry it, or a break in between loses some.
        return [Frame(event, item.seq if n == len(shown) else None) for n, event in enumerate(shown, 1)]

    def _note(self, event: StoredEvent) -> None:
        if event.type in INPUT_TYPES and event.public is not None:
            self._queued[event.id] = event.public
        elif event.type == "span.model_request_end":
            self._written.clear()  # it closes what was begun and came to nothing
        else:
            self._written.pop(event.id, None)

    def _delivered(self, row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        given = [self._queued.pop(event_id, None) for event_id in row.get("ids", ())]
        return [{**event, "processed_at": row["at"]} for event in given if event is not None]

    def _preview(self, delta: Delta) -> list[Mapping[str, Any]]:
        if delta.event_type not in self._previews:
            return []
        known = self._written.get(delta.event_id)
        if delta.at != (known or 0):
            return []  # its beginning was missed: nothing of it, rather than a piece from the middle
        shown: list[Mapping[str, Any]] = []
        if known is None:
            shown.append({"type": "event_start", "event": {"type": delta.event_type, "id": delta.event_id}})
        self._written[delta.event_id] = delta.at + len(delta.text)
        if delta.text and delta.event_type == "agent.message":
            content = {"type": "text", "text": delta.text}
            piece = {"type": "content_delta", "index": 0, "content": content}
            shown.append({"type": "event_delta", "event_id": delta.event_id, "delta": piece})
        return shown
