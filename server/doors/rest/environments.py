"""Environments: create, retrieve, update, list, archive, delete.

Above: `app`. Below: the use-cases of the catalog. It translates, and knows no rule of an environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.doors.rest.endpoint import Call, Endpoint
from server.doors.rest.paging import Position, page

DEFAULT, MOST = 20, 100
"""Elements of a page; the wire states none for environments, so these are the agents'."""
_ENVIRONMENT = "anthropic.types.beta.BetaEnvironment"


async def create(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.create_environment(call.body, call.keep)


async def retrieve(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.environment(call.path["environment_id"])


async def update(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.update_environment(call.path["environment_id"], call.body)


async def archive(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.archive_environment(call.path["environment_id"])


async def delete(call: Call) -> Mapping[str, Any]:
    return await call.uses.catalog.delete_environment(call.path["environment_id"])


async def index(call: Call) -> Mapping[str, Any]:
    archived = call.query.flag("include_archived")

    async def fetch(limit: int, after: Position | None, order: str) -> Sequence[Mapping[str, Any]]:
        return await call.uses.catalog.list_environments(limit, after, order, include_archived=archived)

    return await page(call, fetch, default=DEFAULT, most=MOST)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/environments",
        create,
        "Create an environment.",
        takes="anthropic.types.beta.EnvironmentCreateParams",
        gives=_ENVIRONMENT,
    ),
    Endpoint(
        "GET",
        "/v1/environments",
        index,
        "List environments, the newest first.",
        gives=_ENVIRONMENT,
        many=True,
        query={
            "limit": {"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT},
            "page": {"type": "string", "description": "`next_page` of the page before."},
            "include_archived": {"type": "boolean", "default": False},
        },
    ),
    Endpoint(
        "GET",
        "/v1/environments/{environment_id}",
        retrieve,
        "Retrieve an environment.",
        gives=_ENVIRONMENT,
    ),
    Endpoint(
        "POST",
        "/v1/environments/{environment_id}",
        update,
        "Update an environment: what is left out stays. Sessions that exist keep what they were made of.",
        takes="anthropic.types.beta.EnvironmentUpdateParams",
        gives=_ENVIRONMENT,
    ),
    Endpoint(
        "POST",
        "/v1/environments/{environment_id}/archive",
        archive,
        "Archive an environment: it takes no new sessions any more.",
        gives=_ENVIRONMENT,
    ),
    Endpoint(
        "DELETE",
        "/v1/environments/{environment_id}",
        delete,
        "Delete an environment; its sessions go on.",
        gives="anthropic.types.beta.BetaEnvironmentDeleteResponse",
    ),
)
