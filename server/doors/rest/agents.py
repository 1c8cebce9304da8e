"""Agents: create, retrieve, update, list, archive, versions.

Above: `app`. Below: the use-cases of the catalog. It translates, and knows no rule of an agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.doors.rest.endpoint import Call, Endpoint
from server.doors.rest.paging import Position, page

DEFAULT, MOST = 20, 100
"""Elements of a page (reference: overview, pagination)."""
_VERSIONS = 2**31 - 1
"""No agent has as many."""
_LIMIT: Mapping[str, Any] = {"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT}
_PAGE: Mapping[str, Any] = {"type": "string", "description": "`next_page` of the page before."}
_TIME: Mapping[str, Any] = {"type": "string", "format": "date-time"}
_AGENT = "anthropic.types.beta.BetaManagedAgentsAgent"


async def create(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.create_agent(call.body, call.keep)


async def retrieve(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.agent(call.path["agent_id"], call.query.number("version", 1, _VERSIONS))


async def update(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.update_agent(call.path["agent_id"], call.body, call.keep)


async def archive(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.archive_agent(call.path["agent_id"])


async def index(call: Call) -> Mapping[str, Any]:
    created, archived = call.query.times("created_at"), call.query.flag("include_archived")

    async def fetch(limit: int, after: Position | None, order: str) -> Sequence[Mapping[str, Any]]:
        return await call.uses.catalog.list_agents(limit, after, order, created=created, include_archived=archived)

    return await page(call, fetch, default=DEFAULT, most=MOST)


async def versions(call: Call) -> Mapping[str, Any]:
    async def fetch(limit: int, after: Position | None, order: str) -> Sequence[Mapping[str, Any]]:
        return await call.uses.catalog.agent_versions(call.path["agent_id"], limit, after, order)

    def at(agent: Mapping[str, Any]) -> Position:
        return str(agent["version"]), str(agent["id"])

    return await page(call, fetch, default=DEFAULT, most=MOST, at=at)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/agents",
        create,
        "Create an agent.",
        takes="anthropic.types.beta.AgentCreateParams",
        gives=_AGENT,
    ),
    Endpoint(
        "GET",
        "/v1/agents",
        index,
        "List agents, the newest first.",
        gives=_AGENT,
        many=True,
        query={
            "limit": _LIMIT,
            "page": _PAGE,
            "include_archived": {"type": "boolean", "default": False},
            "created_at[gte]": _TIME,
            "created_at[lte]": _TIME,
        },
    ),
    Endpoint(
        "GET",
        "/v1/agents/{agent_id}",
        retrieve,
        "Retrieve an agent, in its newest version or in `version`.",
        gives=_AGENT,
        query={"version": {"type": "integer", "minimum": 1, "maximum": _VERSIONS}},
    ),
    Endpoint(
        "POST",
        "/v1/agents/{agent_id}",
        update,
        "Update an agent: what is left out stays. A change makes a version.",
        takes="anthropic.types.beta.AgentUpdateParams",
        gives=_AGENT,
    ),
    Endpoint(
        "POST",
        "/v1/agents/{agent_id}/archive",
        archive,
        "Archive an agent: it takes no changes and no new sessions any more.",
        gives=_AGENT,
    ),
    Endpoint(
        "GET",
        "/v1/agents/{agent_id}/versions",
        versions,
        "List the versions of an agent, the newest first.",
        gives=_AGENT,
        many=True,
        query={"limit": _LIMIT, "page": _PAGE},
    ),
)
