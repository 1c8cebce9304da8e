"""An agent: from what a caller asks for to the resolved configuration that the wire reads back. Pure.

Accepted are the wire's own fields and friendlier ones, because callers are often models:

    tools             ["bash", "file_operations", "web_fetch"], or the wire's toolset object
    system            also as `system_instructions` (the form of the managed-agents announcement)
    effort, max_tokens   beside `model`
What is understood but not there yet is refused by name; what is unknown is refused with the names that are known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from server.errors import InvalidRequest, NotSupported
from server.ids import new_id, now
from server.tools import toolset

KNOWN = (
    "name", "model", "system", "system_instructions", "tools", "description", "metadata", "effort", "max_tokens",
)  # fmt: skip
LATER = {
    "mcp_servers": "MCP servers for sub-agents",
    "skills": "skills",
    "multiagent": "delegation to other agents",
    "callable_agents": "delegation to other agents",
}
EFFORTS = ("low", "medium", "high", "xhigh", "max")
MAX_SYSTEM = 100_000
"""Characters (reference: overview, limits)."""


def resolve(asked: Mapping[str, Any], *, default_model: str, web: bool) -> dict[str, Any]:
    """The agent as stored and read back, with a new id. `web`: whether web tools are on where tools are not named.

    Raises InvalidRequest, or NotSupported for what this version cannot do yet.
    """
    _check_keys(asked)
    name = asked.get("name") or "agent"
    if not isinstance(name, str) or len(name) > 256:
        raise InvalidRequest("agent.name must be text of 1 to 256 characters.")
    return {
        "id": new_id("agent"),
        "type": "agent",
        "version": 1,
        "name": name,
        "description": _text(asked, "description", 2048),
        "model": _model(asked, default_model),
        "system": _system(asked),
        "tools": _tools(asked.get("tools"), web),
        "mcp_servers": [],
        "skills": [],
        "multiagent": None,
        "execution_identity": {"type": "service_account"},
        "metadata": _metadata(asked.get("metadata")),
        "max_tokens": _max_tokens(asked.get("max_tokens")),
        "created_at": (at := now()),
        "updated_at": at,
        "archived_at": None,
    }


def digest(agent: Mapping[str, Any]) -> str:
    """Equal for agents that differ in nothing but id and dates."""
    body = {key: value for key, value in agent.items() if key not in ("id", "created_at", "updated_at")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def snapshot(agent: Mapping[str, Any]) -> dict[str, Any]:
    """The agent as a session shows it: without metadata and dates."""
    hidden = ("metadata", "created_at", "updated_at", "archived_at", "max_tokens")
    return {key: value for key, value in agent.items() if key not in hidden}


def _check_keys(asked: Mapping[str, Any]) -> None:
    for key, value in asked.items():
        if key in LATER and value:
            raise NotSupported(f"agent.{key}: {LATER[key]} are not supported by this version of Skiff.")
        if key not in KNOWN and key not in LATER:
            raise InvalidRequest(f"agent.{key} is unknown. Known: {', '.join(KNOWN)}.")


def _text(asked: Mapping[str, Any], key: str, limit: int) -> str | None:
    value = asked.get(key)
    if value is not None and (not isinstance(value, str) or len(value) > limit):
        raise InvalidRequest(f"agent.{key} must be text of at most {limit:,} characters.")
    return value or None


def _system(asked: Mapping[str, Any]) -> str | None:
    if asked.get("system") and asked.get("system_instructions"):
        raise InvalidRequest("agent: give `system` or `system_instructions`, not both.")
    key = "system" if asked.get("system") else "system_instructions"
    return _text(asked, key, MAX_SYSTEM)


def _model(asked: Mapping[str, Any], default: str) -> dict[str, Any]:
    model = asked.get("model") or default
    fields = dict(model) if isinstance(model, Mapping) else {"id": model}
    unknown = set(fields) - {"id", "effort", "speed", "inference_geo"}
    if unknown or not isinstance(fields.get("id"), str) or not fields["id"]:
        raise InvalidRequest("agent.model must be a model's name, or an object with `id` and `effort`.")
    if fields.get("speed") not in (None, "standard"):
        raise NotSupported("agent.model.speed: only `standard` is supported by this version of Skiff.")
    if fields.get("inference_geo") is not None:
        raise NotSupported("agent.model.inference_geo is not supported by this version of Skiff.")
    effort = asked.get("effort") or fields.get("effort") or "high"
    effort = effort.get("type") if isinstance(effort, Mapping) else effort
    if effort not in EFFORTS:
        raise InvalidRequest(f"agent effort must be one of {', '.join(EFFORTS)}.")
    return {"id": fields["id"], "effort": {"type": effort}, "speed": "standard", "inference_geo": None}


def _max_tokens(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 256 <= value <= 128_000):
        raise InvalidRequest("agent.max_tokens must be a whole number from 256 to 128,000.")
    return value


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    good = isinstance(value, Mapping) and len(value) <= 16
    if not good or any(
        not isinstance(item, str) or len(item) > 512 or not isinstance(key, str) or not 0 < len(key) <= 64
        for key, item in value.items()
    ):
        raise InvalidRequest("agent.metadata: at most 16 pairs, keys of 1 to 64 and values of at most 512 characters.")
    return dict(value)


def _tools(asked: Any, web: bool) -> list[dict[str, Any]]:
    if asked is None:
        names = [name for name in toolset.NAMES if web or name not in toolset.WEB]
        return [toolset.resolved(names)]
    if not isinstance(asked, Sequence) or isinstance(asked, str):
        raise InvalidRequest("agent.tools must be a list of tool names, categories or toolset objects.")
    names = [name for item in asked for name in _named(item, web)]
    return [toolset.resolved(names)] if names else []


def _named(item: Any, web: bool) -> Sequence[str]:
    """The tools that one entry of `tools` enables; web tools that it does not name only where there are some."""
    if isinstance(item, str):
        if item in toolset.NAMES:
            return (item,)
        if item in ("all", toolset.TOOLSET):
            return _from_toolset({}, web)
        if item in toolset.CATEGORIES:
            return toolset.CATEGORIES[item]
        known = ", ".join((*toolset.NAMES, *toolset.CATEGORIES))
        raise InvalidRequest(f"agent.tools: there is no tool or category {item!r}. Known: {known}.")
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == toolset.TOOLSET:
        return _from_toolset(item, web)
    if kind in ("custom", "mcp_toolset"):
        raise NotSupported(f"agent.tools: {kind} tools are not supported by this version of Skiff.")
    raise InvalidRequest(f"agent.tools: entries are names or a {toolset.TOOLSET} object, not {item!r:.80}.")


def _from_toolset(item: Mapping[str, Any], web: bool) -> Sequence[str]:
    _check_fields("toolset", item, {"type", "default_config", "configs"})
    default = _enabled("default_config", item.get("default_config") or {}, True)
    chosen = {name: default and (web or name not in toolset.WEB) for name in toolset.NAMES}
    configs = item.get("configs") or ()
    if not isinstance(configs, Sequence) or not all(isinstance(config, Mapping) for config in configs):
        raise InvalidRequest("agent.tools: configs must be a list of objects with `name` and `enabled`.")
    named = [config.get("name") for config in configs]
    for name, config in zip(named, configs, strict=True):
        if name not in toolset.NAMES or config.get("type", name) != name:
            raise InvalidRequest(f"agent.tools: the toolset has no tool {name!r}. It has {', '.join(toolset.NAMES)}.")
        if named.count(name) > 1:
            raise InvalidRequest(f"agent.tools: {name} is configured twice.")
        chosen[name] = _enabled(name, config, default)
    return [name for name, on in chosen.items() if on]


def _enabled(where: str, config: Any, default: bool) -> bool:
    """Whether this part of a toolset's configuration turns its tools on. Raises for what it asks for besides."""
    if not isinstance(config, Mapping):
        raise InvalidRequest(f"agent.tools: {where} must be an object with `enabled`.")
    _check_fields(where, config, {"name", "type", "enabled", "permission_policy"})
    _check_policy(config)
    enabled = config.get("enabled")
    if not isinstance(enabled, bool | None):
        raise InvalidRequest(f"agent.tools: {where}.enabled must be true or false.")
    return default if enabled is None else enabled


def _check_fields(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    for field in given:
        if field not in known:
            raise NotSupported(f"agent.tools: {where}.{field} is not supported by this version of Skiff.")


def _check_policy(config: Mapping[str, Any]) -> None:
    policy = config.get("permission_policy")
    kind = policy.get("type") if isinstance(policy, Mapping) else policy
    if kind not in (None, "always_allow"):
        raise NotSupported(f"agent.tools: permission policy {kind!r} is not supported by this version of Skiff.")
