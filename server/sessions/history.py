"""The log as people and clients read it: public events, inputs where they were delivered. Pure.

An input is stored when it comes and delivered later; it is listed once, at its delivery, with `processed_at` set. One
that still waits is listed last, with `processed_at` null.

Above: `pages`, which reads only the rows that a page needs. Below: the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server.events import INPUT_TYPES, PRIVATE_DELIVERED, StoredEvent

Numbered = tuple[int, Mapping[str, Any]]
"""A listed event and the number it stands under: a delivered input under its delivery's, a queued one under its own."""
_INSIDE = {"gt": str.__gt__, "gte": str.__ge__, "lt": str.__lt__, "lte": str.__le__}


def present(rows: Iterable[StoredEvent], inputs: Mapping[str, StoredEvent], *, costs: bool = False) -> list[Numbered]:
    """The public events of some rows of a log, in the rows' order. `inputs`: those that the rows deliver, by id.

    With `costs` the end of a model request also has its `model` and `cost_usd`, which the wire has no fields for.
    """
    listed: list[Numbered] = []
    for row in rows:
        if row.type == PRIVATE_DELIVERED:
            at = (row.private or {}).get("at")
            given = (inputs.get(event_id) for event_id in delivered_by(row))
            listed += [(row.seq, {**each.public, "processed_at": at}) for each in given if each and each.public]
        elif row.public is not None and row.type not in INPUT_TYPES:
            listed.append((row.seq, _priced(row) if costs else row.public))
    return listed


def _priced(row: StoredEvent) -> Mapping[str, Any]:
    body, raw = row.public or {}, row.private or {}
    if row.type != "span.model_request_end" or not raw:
        return body
    return {**body, "model": raw.get("model"), "cost_usd": raw.get("cost_usd")}


def delivered_by(row: StoredEvent) -> Sequence[str]:
    """The ids of the inputs that a row delivers."""
    return (row.private or {}).get("ids", ()) if row.type == PRIVATE_DELIVERED else ()


def within(at: str | None, bounds: Mapping[str, str]) -> bool:
    """Whether a time lies within bounds by gt, gte, lt, lte. What was not processed yet lies within none."""
    return at is not None and all(_INSIDE[side](at, bound) for side, bound in bounds.items())
