"""The log as people and clients read it: public events, inputs where they were delivered. Pure.

An input is stored when it comes and delivered later; it is listed once, at its delivery, with `processed_at` set. One
that still waits is listed last, with `processed_at` null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.events import INPUT_TYPES, PRIVATE_DELIVERED, StoredEvent


def present(log: Sequence[StoredEvent], after: int = 0, limit: int = 200) -> list[tuple[int, Mapping[str, Any]]]:
    """The public events whose number is above `after`, about `limit` of them, each with the number it stands under.

    A delivered input stands under its delivery's number; a queued one under its own, after everything else.
    """
    inputs: dict[str, StoredEvent] = {}
    listed: list[tuple[int, Mapping[str, Any]]] = []
    for event in log:
        if event.type in INPUT_TYPES:
            inputs[event.id] = event
        elif event.type == PRIVATE_DELIVERED and event.private is not None:
            for event_id in event.private["ids"]:
                given = inputs.pop(event_id, None)
                if given is not None and given.public is not None:
                    listed.append((event.seq, {**given.public, "processed_at": event.private["at"]}))
        elif event.public is not None:
            listed.append((event.seq, event.public))
    listed += [(event.seq, event.public) for event in inputs.values() if event.public is not None]
    page = [(seq, body) for seq, body in listed if seq > after]
    while 0 < limit < len(page) and page[limit][0] == page[limit - 1][0]:
        limit += 1  # inputs that were delivered together share a number, which a reader goes on from
    return page[:limit]
