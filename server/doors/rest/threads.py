"""The threads of a session over REST. So far there is the primary one. Thin over the use-cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.doors.rest import events, stream
from server.doors.rest.endpoint import Call, Endpoint
from server.doors.rest.paging import Position, created, page
from server.doors.rest.sessions import STATUSES, paged, some

DEFAULT = MOST = 1000
"""Threads of a page, as the hosted service has them."""


async def listed(call: Call) -> Mapping[str, Any]:
    statuses = some(call, "statuses[]", STATUSES)

    async def fetch(limit: int, after: Position | None, _: str) -> Sequence[Mapping[str, Any]]:
        threads = await call.uses.sessions.threads(call.path["session_id"])
        chosen = (thread for thread in threads if not statuses or thread["status"] in statuses)
        return [thread for thread in chosen if after is None or created(thread) > after][:limit]

    return await page(call, fetch, default=DEFAULT, most=MOST, order="asc")


async def retrieve(call: Call) -> Mapping[str, Any]:
    return await call.uses.sessions.thread(call.path["session_id"], call.path["thread_id"])


async def archive(call: Call) -> Mapping[str, Any]:
    return await call.uses.sessions.archive_thread(call.path["session_id"], call.path["thread_id"])


_THREAD = "anthropic.types.beta.sessions.BetaManagedAgentsSessionThread"
_ALL = "/v1/sessions/{session_id}/threads"
_ONE = f"{_ALL}/{{thread_id}}"

ENDPOINTS = (
    Endpoint(
        "GET",
        _ALL,
        listed,
        "The lines of conversation in a session.",
        gives=_THREAD,
        many=True,
        query={
            **paged(MOST),
            "statuses[]": {"type": "array", "items": {"type": "string", "enum": list(STATUSES)}},
        },
    ),
    Endpoint("GET", _ONE, retrieve, "A thread as it is now.", gives=_THREAD),
    Endpoint("POST", f"{_ONE}/archive", archive, "Archive a thread that another one began.", gives=_THREAD),
    Endpoint(
        "GET",
        f"{_ONE}/events",
        events.listed,
        "What happened in a thread.",
        gives=events.EVENT,
        many=True,
        query=paged(MOST),
    ),
    Endpoint(
        "GET",
        f"{_ONE}/stream",
        stream.stream,
        "What happens in a thread from now on, as server-sent events.",
        gives="anthropic.types.beta.sessions.BetaManagedAgentsStreamSessionThreadEvents",
        query=stream.QUERY,
        media="text/event-stream",
    ),
)
