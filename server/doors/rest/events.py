"""The events of a session over REST: send, list, stream. Thin over the use-cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.doors.rest import stream
from server.doors.rest.endpoint import Call, Endpoint
from server.doors.rest.paging import Position, page
from server.doors.rest.sessions import ORDER, paged, some, times
from server.errors import InvalidRequest
from server.events import LISTED_TYPES
from server.sessions.history import Numbered
from server.sessions.pages import Place

DEFAULT = MOST = 1000
"""Events of a page, as the hosted service has them; its own helpers ask for so many."""
DIGITS = 15
"""Of an event's number: what the database holds, and more than any session has."""
_QUEUED = "9999-12-31T23:59:59.999999Z"
"""Where an input stands that nobody has processed yet: behind everything."""


async def send(call: Call) -> Mapping[str, Any]:
    for name in call.body:
        if name != "events":
            raise InvalidRequest(f"{name}: there is no such field. Known: events.")
    sent = await call.uses.sessions.send_events(call.path["session_id"], call.body.get("events", ()), call.key)
    return {"data": sent}


async def listed(call: Call) -> Mapping[str, Any]:
    """The events of the session's primary thread, or of the thread that the path names."""
    types, created = some(call, "types[]", LISTED_TYPES), call.query.times("created_at")

    async def fetch(limit: int, after: Position | None, order: str) -> Sequence[Numbered]:
        return await call.uses.sessions.list_events(
            call.path["session_id"],
            call.path.get("thread_id"),
            limit=limit,
            after=_place(after[1]) if after else None,
            order=order,
            types=types,
            created=created,
        )

    return await page(call, fetch, default=DEFAULT, most=MOST, order="asc", at=_position, body=lambda item: item[1])


def _position(item: Numbered) -> Position:
    number, event = item
    return event["processed_at"] or _QUEUED, f"{number}:{event['id']}"


def _place(text: str) -> Place:
    """Raises InvalidRequest for what is not half of a position."""
    number, _, event_id = text.partition(":")
    if not (number.isascii() and number.isdecimal() and len(number) <= DIGITS):
        raise InvalidRequest("invalid page cursor")
    return Place(int(number), event_id)


EVENT = "anthropic.types.beta.sessions.BetaManagedAgentsSessionEvent"
_ALL = "/v1/sessions/{session_id}/events"

ENDPOINTS = (
    Endpoint(
        "POST",
        _ALL,
        send,
        "Send messages, interrupts and answers to calls; all of them are taken, or none.",
        takes="anthropic.types.beta.sessions.EventSendParams",
        gives="anthropic.types.beta.sessions.BetaManagedAgentsSendSessionEvents",
        keeps_key=True,
    ),
    Endpoint(
        "GET",
        _ALL,
        listed,
        "What happened in a session; inputs stand where they were delivered, queued ones last.",
        gives=EVENT,
        many=True,
        query={
            **paged(MOST),
            **ORDER,
            **times("events processed"),
            "types[]": {"type": "array", "items": {"type": "string", "enum": list(LISTED_TYPES)}},
        },
    ),
    Endpoint(
        "GET",
        f"{_ALL}/stream",
        stream.stream,
        "What happens in a session from now on, as server-sent events; it ends with the session's deletion.",
        gives="anthropic.types.beta.sessions.BetaManagedAgentsStreamSessionEvents",
        query=stream.QUERY,
        media="text/event-stream",
    ),
)
