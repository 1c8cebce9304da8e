"""What a session was given, over REST: add, list, retrieve, update, delete. Thin over the use-cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.doors.rest.endpoint import Call, Endpoint
from server.doors.rest.paging import Position, page

MOST = 1000
"""Resources of a page, and as many as a session can have: all, when no limit is given."""


async def add(call: Call) -> Mapping[str, Any]:
    return await call.uses.files.add_resource(call.path["session_id"], call.body, call.keep)


async def listed(call: Call) -> Mapping[str, Any]:
    async def fetch(limit: int, after: Position | None, order: str) -> Sequence[Mapping[str, Any]]:
        return await call.uses.files.resources(call.path["session_id"], limit, after)

    return await page(call, fetch, default=MOST, most=MOST, order="asc")


async def retrieve(call: Call) -> Mapping[str, Any]:
    return await call.uses.files.resource(call.path["session_id"], call.path["resource_id"])


async def update(call: Call) -> Mapping[str, Any]:
    return await call.uses.files.rotate_token(call.path["session_id"], call.path["resource_id"], call.body)


async def delete(call: Call) -> Mapping[str, Any]:
    return await call.uses.files.delete_resource(call.path["session_id"], call.path["resource_id"])


_ALL = "/v1/sessions/{session_id}/resources"
_ONE = _ALL + "/{resource_id}"
_RESOURCE = "anthropic.types.beta.sessions.BetaManagedAgentsSessionResource"

ENDPOINTS = (
    Endpoint(
        "POST",
        _ALL,
        add,
        "Mount one more file in a session's sandbox, read-only.",
        takes="anthropic.types.beta.sessions.ResourceAddParams",
        gives="anthropic.types.beta.sessions.BetaManagedAgentsFileResource",
    ),
    Endpoint(
        "GET",
        _ALL,
        listed,
        "List what a session was given, oldest first.",
        gives=_RESOURCE,
        many=True,
        query={
            "limit": {"type": "integer", "minimum": 1, "maximum": MOST, "description": "Elements of a page."},
            "page": {"type": "string", "description": "`next_page` of the page before."},
        },
    ),
    Endpoint("GET", _ONE, retrieve, "One thing that a session was given.", gives=_RESOURCE),
    Endpoint(
        "POST",
        _ONE,
        update,
        "Give a repository another credential; one that could not be fetched is tried again.",
        takes="anthropic.types.beta.sessions.ResourceUpdateParams",
        gives=_RESOURCE,
    ),
    Endpoint(
        "DELETE",
        _ONE,
        delete,
        "Take a file out of a session's sandbox.",
        gives="anthropic.types.beta.sessions.BetaManagedAgentsDeleteSessionResource",
    ),
)
