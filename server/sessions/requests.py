"""What a client asks for when it creates or updates a session on the wire, read and checked. Pure.

Above: `lifecycle`. Below: fields. It does not know whether what is named exists. What this version cannot do is refused
by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from server.catalog import fields
from server.errors import InvalidRequest
from server.sessions.money.budget import MEASURES

MAX_TITLE = 1024
"""Characters: a heading, not a text. The wire names no bound."""
MAX_RESOURCES = 1000
"""As many as one page lists; how many of each kind is for those who know them."""
MAX_EVENTS = 50
"""Initial events (reference: overview, limits)."""

MOST_DOLLARS, MOST_COUNTED = Decimal(10**9), 10**15
"""Of a budget: far beyond what a session can use up, and exact in every JSON."""

_NEW = ("agent", "environment_id", "title", "metadata", "resources", "initial_events", "vault_ids", "budget", "skiff")
_UPDATE = ("title", "metadata", "agent", "vault_ids", "budget", "skiff")
_OWN = ("tokens", "turns", "seconds")
"""Measures of a budget that the wire has no words for: they are given under the key `skiff`."""
_CENTS = re.compile("[1-9][0-9]{0,10}")
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
    budget: Mapping[str, Any]
    """Measure to bound, as far as there are any."""


@dataclass(frozen=True)
class AskedUpdate:
    """What is to be changed; None is left as it is."""

    title: tuple[str | None] | None
    """In a tuple, because null takes the title away."""
    metadata: Any
    """A patch, to be merged with what there is: null takes a pair away."""
    agent: Mapping[str, Any] | None
    """`tools` and `mcp_servers`, as far as they were given."""
    budget: Mapping[str, Any]
    """Measure to bound, as far as they were given: None takes a bound away."""


def read_new(body: Mapping[str, Any]) -> AskedSession:
    """Raises InvalidRequest, NotSupported."""
    fields.known(body, _NEW)
    agent = body.get("agent")
    if not isinstance(agent, str | Mapping) or not agent:
        raise InvalidRequest("agent must be the id of an agent, or an object with its `type` and `id`.")
    environment_id = fields.text(body.get("environment_id"), "environment_id", 256, least=1)
    if fields.listed(body.get("vault_ids"), "vault_ids", 50):
        raise fields.later("vault_ids", "vaults are")
    return AskedSession(
        agent,
        environment_id,
        _title(body.get("title")),
        fields.metadata(body.get("metadata")),
        fields.listed(body.get("resources"), "resources", MAX_RESOURCES),
        fields.listed(body.get("initial_events"), "initial_events", MAX_EVENTS),
        {name: value for name, value in _budget(body).items() if value is not None},
    )


def read_update(body: Mapping[str, Any]) -> AskedUpdate:
    """Raises InvalidRequest, NotSupported."""
    fields.known(body, _UPDATE)
    if "vault_ids" in body:
        raise fields.later("vault_ids", "changing them is")
    agent = body.get("agent")
    if agent is not None:
        fields.known(fields.mapping(agent, "agent"), _AGENT, "agent.")
    title = (_title(body["title"]),) if "title" in body else None
    return AskedUpdate(title, body.get("metadata"), agent or None, _budget(body))


def measures(given: Any, path: str, names: Sequence[str] = MEASURES) -> dict[str, Any]:
    """A budget's bounds by name, as they are kept: dollars as exact text, the others as numbers; None is none.

    Raises InvalidRequest.
    """
    asked = fields.mapping(given, path)
    fields.known(asked, names, f"{path}.")
    return {name: None if value is None else _measure(name, value, f"{path}.{name}") for name, value in asked.items()}


def _measure(name: str, value: Any, path: str) -> Any:
    if name in ("tokens", "turns"):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_COUNTED:
            raise InvalidRequest(f"{path} must be a whole number of at least 1.")
        return value
    number = Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else Decimal(0)
    if not 0 < number <= MOST_DOLLARS:
        what = "US dollars" if name == "usd" else "seconds"
        raise InvalidRequest(f"{path} must be a number of {what} above 0.")
    return _plain(number) if name == "usd" else float(value)


def _budget(body: Mapping[str, Any]) -> dict[str, Any]:
    """The bounds that the wire's `budget` and our own `skiff.budget` name."""
    found: dict[str, Any] = {}
    if "budget" in body:
        found["usd"] = None if body["budget"] is None else _limit(body["budget"])
    if body.get("skiff") is not None:
        own = fields.mapping(body["skiff"], "skiff")
        fields.known(own, ("budget",), "skiff.")
        if own.get("budget") is not None:
            found |= measures(own["budget"], "skiff.budget", _OWN)
    return found


def _limit(value: Any) -> str:
    given = fields.mapping(value, "budget")
    fields.known(given, ("type", "max_list_cost"), "budget.")
    fields.choice(given.get("type"), "budget.type", ("limit",))
    cost = fields.mapping(given.get("max_list_cost"), "budget.max_list_cost")
    fields.known(cost, ("amount", "currency"), "budget.max_list_cost.")
    fields.choice(cost.get("currency"), "budget.max_list_cost.currency", ("USD",))
    amount = cost.get("amount")
    if not isinstance(amount, str) or not _CENTS.fullmatch(amount):
        raise InvalidRequest("budget.max_list_cost.amount must be whole cents above 0, as text without leading zeros.")
    return _plain(Decimal(amount) / 100)


def _plain(number: Decimal) -> str:
    """One spelling for each amount."""
    return format(number.normalize(), "f")


def _title(value: Any) -> str | None:
    return None if value is None else fields.text(value, "title", MAX_TITLE)
