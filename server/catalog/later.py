"""What an agent may name and the engine does not have yet: checked in full, then refused by name. Pure.

Above: `agents`. Below: `fields`. What is malformed is told as such, so that a client learns of its own mistakes here
and not on the day when this is supported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from server.catalog import fields
from server.errors import InvalidRequest

ADDRESS = re.compile(
    r"https?://(?:[^\s/?#@]*@)?(?:\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)(?::[0-9]{1,5})?(?:[/?#]\S*)?", re.I
)
MOST_SERVERS = 20
MOST_SKILLS = 500
MOST_MEMBERS = 20
"""Reference: overview, limits."""


def server_names(asked: Any) -> list[str]:
    """The names of the MCP servers that a request declares. Raises InvalidRequest."""
    names = [_server(item, f"mcp_servers.{n}") for n, item in enumerate(_list(asked, "mcp_servers", MOST_SERVERS))]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"mcp_servers: two servers are named {name!r}.")
    return names


def _server(given: Any, path: str) -> str:
    server = fields.mapping(given, path)
    fields.known(server, ("type", "name", "url"), f"{path}.")
    fields.choice(server.get("type"), f"{path}.type", ("url",))
    url = fields.text(server.get("url"), f"{path}.url", 2048, 1)
    if not ADDRESS.fullmatch(url):
        raise InvalidRequest(f"{path}.url must be an http or https address.")
    return fields.text(server.get("name"), f"{path}.name", 255, 1)


def refuse_servers(names: list[str]) -> None:
    """Raises NotSupported where there are any."""
    if names:
        raise fields.later("mcp_servers", "MCP servers for agents are")


def refuse_skills(asked: Any) -> None:
    """Raises InvalidRequest for malformed skills, NotSupported for others, nothing for none."""
    for number, given in enumerate(_list(asked, "skills", MOST_SKILLS)):
        path = f"skills.{number}"
        skill = fields.mapping(given, path)
        fields.known(skill, ("type", "skill_id", "version"), f"{path}.")
        fields.choice(skill.get("type"), f"{path}.type", ("anthropic", "custom"))
        fields.text(skill.get("skill_id"), f"{path}.skill_id", 255, 1)
        if skill.get("version") is not None:
            fields.text(skill["version"], f"{path}.version", 255, 1)
    if asked:
        raise fields.later("skills", "skills are")


def refuse_multiagent(asked: Any) -> None:
    """Likewise for delegation to other agents."""
    if asked is None:
        return
    given = fields.mapping(asked, "multiagent")
    kind = fields.choice(given.get("type"), "multiagent.type", ("coordinator", "multiagent_20261001"))
    if kind == "coordinator":
        _coordinator(given)
    else:
        _delegation(given)
    raise fields.later("multiagent", "delegation to other agents is")


def _coordinator(given: Mapping[str, Any]) -> None:
    fields.known(given, ("type", "agents"), "multiagent.")
    members = _list(given.get("agents"), "multiagent.agents", MOST_MEMBERS)
    if not members:
        raise InvalidRequest(f"multiagent.agents must be a list of 1 to {MOST_MEMBERS}.")
    for number, member in enumerate(members):
        _member(member, f"multiagent.agents.{number}", ("agent", "self", "advisor"))
    if sum(isinstance(member, Mapping) and member["type"] == "advisor" for member in members) > 1:
        raise InvalidRequest("multiagent.agents: at most one advisor.")
    if any(members.count(member) > 1 for member in members):
        raise InvalidRequest("multiagent.agents: a member is there twice.")


def _member(given: Any, path: str, kinds: tuple[str, ...]) -> None:
    if isinstance(given, str):
        fields.text(given, path, 255, 1)
        return
    member = fields.mapping(given, path)
    kind = fields.choice(member.get("type"), f"{path}.type", kinds)
    fields.known(
        member, {"agent": ("type", "id", "version"), "advisor": ("type", "model")}.get(kind, ("type",)), f"{path}."
    )
    if kind == "agent":
        fields.text(member.get("id"), f"{path}.id", 255, 1)
        version(member.get("version"), f"{path}.version")
    if kind == "advisor":
        _model(member.get("model"), f"{path}.model")


def _delegation(given: Mapping[str, Any]) -> None:
    fields.known(given, ("type", "workflows", "subagents", "advisor"), "multiagent.")
    for part in ("workflows", "subagents"):
        if given.get(part) is not None:
            _delegates(given[part], f"multiagent.{part}")
    if given.get("advisor") is not None:
        advisor = fields.mapping(given["advisor"], "multiagent.advisor")
        kind = fields.choice(advisor.get("type"), "multiagent.advisor.type", ("enabled", "disabled"))
        fields.known(advisor, ("type", "model") if kind == "enabled" else ("type",), "multiagent.advisor.")
        if kind == "enabled":
            _model(advisor.get("model"), "multiagent.advisor.model")


def _delegates(given: Any, path: str) -> None:
    part = fields.mapping(given, path)
    kind = fields.choice(part.get("type"), f"{path}.type", ("enabled", "disabled"))
    enabled = kind == "enabled"
    fields.known(part, ("type", "inline_agents", "predefined_agents") if enabled else ("type",), f"{path}.")
    members = _list(part.get("predefined_agents"), f"{path}.predefined_agents", MOST_MEMBERS)
    for number, member in enumerate(members):
        _member(member, f"{path}.predefined_agents.{number}", ("agent", "self"))
    inline = part.get("inline_agents")
    if inline is not None:
        fields.known(fields.mapping(inline, f"{path}.inline_agents"), ("type",), f"{path}.inline_agents.")
        kind = fields.choice(inline.get("type"), f"{path}.inline_agents.type", ("enabled", "disabled"))
        if kind == "disabled" and not members:
            raise InvalidRequest(f"{path}: inline_agents is disabled and predefined_agents is empty.")


def version(value: Any, path: str) -> int | None:
    """A version's number, or None. Raises InvalidRequest."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31):
        raise InvalidRequest(f"{path} must be a whole number of at least 1.")
    return value


def _model(given: Any, path: str) -> None:
    name = given.get("id") if isinstance(given, Mapping) else given
    fields.text(name, path, 256, 1)


def _list(value: Any, path: str, most: int) -> list[Any]:
    return list(fields.listed(value, path, most))
