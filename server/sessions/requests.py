"""What a client asks for when it creates or updates a session on the wire, read and checked. Pure.

Above: `lifecycle`. Below: fields. It does not know whether what is named exists. What this version cannot do is refused
by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.catalog import fields
from server.errors import InvalidRequest, Refused, coded

MAX_TITLE = 1024
"""Characters: a heading, not a text. The wire names no bound."""
MAX_RESOURCES = 1000
"""As many as one page lists; how many of each kind is for those who know them."""
MAX_EVENTS = 50
"""Initial events (reference: overview, limits)."""

_NEW = ("agent", "environment_id", "title", "metadata", "resources", "initial_events", "vault_ids", "budget")
_UPDATE = ("title", "metadata", "agent", "vault_ids", "budget")
_AGENT = ("tools", "mcp_servers")


@dataclass(frozen=True)
class AskedSession:
    """A session to be made."""

    agent: str | Mapping[str, Any]
    environment_id: str
    title: str | None
    metadata: Mapping[str, str]
    resources: Sequence[Any]
    initial_events: Sequence[Any]


@dataclass(frozen=True)
class AskedUpdate:
    """What is to be changed; None is left as it is."""

    title: tuple[str | None] | None
    """In a tuple, because null takes the title away."""
    metadata: Any
    """A patch, to be merged with what there is: null takes a pair away."""
    agent: Mapping[str, Any] | None
    """`tools` and `mcp_servers`, as far as they were given."""


def read_new(body: Mapping[str, Any]) -> AskedSession:
    """Raises InvalidRequest, NotSupported."""
    fields.known(body, _NEW)
    agent = body.get("agent")
    if not isinstance(agent, str | Mapping) or not agent:
        raise InvalidRequest("agent must be the id of an agent, or an object with its `type` and `id`.")
    environment_id = fields.text(body.get("environment_id"), "environment_id", 256, least=1)
    if body.get("budget") is not None:
        raise fields.later("budget", "budgets are")
    if fields.listed(body.get("vault_ids"), "vault_ids", 50):
        raise fields.later("vault_ids", "vaults are")
    return AskedSession(
        agent,
        environment_id,
        _title(body.get("title")),
        fields.metadata(body.get("metadata")),
        fields.listed(body.get("resources"), "resources", MAX_RESOURCES),
        fields.listed(body.get("initial_events"), "initial_events", MAX_EVENTS),
    )


def read_update(body: Mapping[str, Any]) -> AskedUpdate:
    """Raises InvalidRequest, NotSupported, Refused."""
    fields.known(body, _UPDATE)
    if "vault_ids" in body:
        raise fields.later("vault_ids", "changing them is")
    if body.get("budget") is not None:
        problem = "budget: this session has none, and one can only be given when a session is created."
        raise coded(Refused(problem), "budget_create_only")
    agent = body.get("agent")
    if agent is not None:
        fields.known(fields.mapping(agent, "agent"), _AGENT, "agent.")
    return AskedUpdate((_title(body["title"]),) if "title" in body else None, body.get("metadata"), agent or None)


def _title(value: Any) -> str | None:
    return None if value is None else fields.text(value, "title", MAX_TITLE)
