"""Sessions over REST: create, list, retrieve, update, archive, delete. Thin over the use-cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.doors.rest.endpoint import Call, Endpoint
from server.doors.rest.paging import ORDERS, Position, page
from server.errors import InvalidRequest
from server.sessions.looking import Filter

STATUSES = ("rescheduling", "running", "idle", "terminated")
DEFAULT, MOST = 20, 100
"""Sessions of a page; the wire names no bounds, so those of its other lists."""
MOST_VERSION = 2**31 - 1
"""Versions are counted from 1; a larger number stands for none."""
_TEXT = {"type": "string"}


def times(what: str) -> dict[str, Mapping[str, Any]]:
    """The four bounds on a time, as query parameters."""
    words = {"gt": "after", "gte": "at or after", "lt": "before", "lte": "at or before"}
    return {
        f"created_at[{side}]": {
            "type": "string",
            "format": "date-time",
            "description": f"Only {what} {word} this time.",
        }
        for side, word in words.items()
    }


def paged(most: int) -> dict[str, Mapping[str, Any]]:
    """`limit` and `page`."""
    return {
        "limit": {"type": "integer", "minimum": 1, "maximum": most, "description": "Elements of a page."},
        "page": {**_TEXT, "description": "`next_page` of the page before."},
    }


ORDER: Mapping[str, Mapping[str, Any]] = {"order": {"type": "string", "enum": list(ORDERS)}}

_LIST: Mapping[str, Mapping[str, Any]] = {
    **paged(MOST),
    **ORDER,
    **times("sessions created"),
    "agent_id": {**_TEXT, "description": "Only sessions of this agent."},
    "agent_version": {"type": "integer", "minimum": 1, "description": "Only of this version of it; with `agent_id`."},
    "statuses[]": {"type": "array", "items": {"type": "string", "enum": list(STATUSES)}},
    "include_archived": {"type": "boolean", "description": "Archived sessions too."},
    "deployment_id": {**_TEXT, "description": "There are no deployments here: matches none."},
    "memory_store_id": {**_TEXT, "description": "There are no memory stores here: matches none."},
}


async def create(call: Call) -> Mapping[str, Any]:
    sessions = call.uses.sessions
    return (await sessions.shown(await sessions.new_session(call.body, call.key)))[0]


async def retrieve(call: Call) -> Mapping[str, Any]:
    sessions = call.uses.sessions
    return (await sessions.shown(await sessions.view(call.path["session_id"])))[0]


async def update(call: Call) -> Mapping[str, Any]:
    sessions = call.uses.sessions
    return (await sessions.shown(await sessions.update_session(call.path["session_id"], call.body)))[0]


async def archive(call: Call) -> Mapping[str, Any]:
    sessions = call.uses.sessions
    return (await sessions.shown(await sessions.archive_session(call.path["session_id"])))[0]


async def delete(call: Call) -> Mapping[str, Any]:
    session_id = call.path["session_id"]
    await call.uses.sessions.remove_session(session_id)
    return {"id": session_id, "type": "session_deleted"}


async def listed(call: Call) -> Mapping[str, Any]:
    chosen = _filter(call)
    none = any(call.query.text(name) is not None for name in ("deployment_id", "memory_store_id"))

    async def fetch(limit: int, after: Position | None, order: str) -> Sequence[Mapping[str, Any]]:
        return [] if none else await call.uses.sessions.list_shown(limit, after, order, chosen)

    return await page(call, fetch, default=DEFAULT, most=MOST, both=True)


def _filter(call: Call) -> Filter:
    query = call.query
    agent_id, version = query.text("agent_id"), query.number("agent_version", 1, MOST_VERSION)
    if version is not None and agent_id is None:
        raise InvalidRequest("agent_version: goes with agent_id.")
    return Filter(
        archived=query.flag("include_archived"),
        agent_id=agent_id,
        agent_version=version,
        statuses=some(call, "statuses[]", STATUSES),
        created=query.times("created_at"),
    )


def some(call: Call, name: str, options: Sequence[str]) -> Sequence[str]:
    """The values of a repeated parameter, each once. Raises InvalidRequest for one that is not among the options."""
    values = list(dict.fromkeys(call.query.many(name)))
    if wrong := [value for value in values if value not in options]:
        raise InvalidRequest(f"{name}: {wrong[0]!r:.80} is none of {', '.join(options)}.")
    return values


_SESSION = "anthropic.types.beta.BetaManagedAgentsSession"
_ONE = "/v1/sessions/{session_id}"

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/sessions",
        create,
        "Make a session of an agent in an environment, and start on its initial events.",
        takes="anthropic.types.beta.SessionCreateParams",
        gives=_SESSION,
        keeps_key=True,
    ),
    Endpoint("GET", "/v1/sessions", listed, "Sessions by age.", gives=_SESSION, many=True, query=_LIST),
    Endpoint("GET", _ONE, retrieve, "A session as it is now.", gives=_SESSION),
    Endpoint(
        "POST",
        _ONE,
        update,
        "Change a session's title, metadata, budget, or its agent's tools from the next turn on.",
        takes="anthropic.types.beta.SessionUpdateParams",
        gives=_SESSION,
    ),
    Endpoint(
        "DELETE",
        _ONE,
        delete,
        "Remove a session that does not run, with its history, sandbox and files.",
        gives="anthropic.types.beta.BetaManagedAgentsDeletedSession",
    ),
    Endpoint("POST", f"{_ONE}/archive", archive, "End a session; it can still be read.", gives=_SESSION),
)
