"""An agent: from what a caller asks for to the resolved configuration that the wire reads back. Pure.

Two ways in. `create`, `update` and `override` take the wire's fields, strictly. `resolve` takes what a caller of the
MCP door writes, who is often a model, and makes the wire's form of it:

    name, model    may be left out
    tools          ["bash", "file_operations", "web_fetch"], or the wire's objects, also mixed
    system         also as `system_instructions` (the form of the managed-agents announcement)
    effort, max_tokens   beside `model`

Inside, Skiff's own addition `max_tokens` stands beside the wire's fields; `wire` puts it where clients read it.
What is understood but not there yet is refused by name; what is unknown is refused with the names that are known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.catalog import fields, later
from server.catalog import tools as toolsets
from server.errors import Conflict, InvalidRequest, NotSupported, Refused, coded
from server.ids import new_id, now
from server.tools import toolset

Web = Callable[[str], bool]
"""Whether the provider of this model has web tools of its own."""

FRIENDLY = (
    "name", "model", "system", "system_instructions", "tools", "description", "metadata", "effort", "max_tokens",
)  # fmt: skip
WIRE = (
    "name", "model", "system", "tools", "description", "metadata", "mcp_servers", "skills", "multiagent",
    "execution_identity", "skiff",
)  # fmt: skip
OVERRIDES = ("model", "system", "tools", "mcp_servers", "skills")
LATER = {
    "mcp_servers": "MCP servers for sub-agents",
    "skills": "skills",
    "multiagent": "delegation to other agents",
    "callable_agents": "delegation to other agents",
}
"""What the MCP door refuses by name."""
EFFORTS = ("low", "medium", "high", "xhigh", "max")
DEFAULT_EFFORT = "high"
"""Of every model that knows effort, by the provider's own word."""
MAX_NAME, MAX_MODEL, MAX_DESCRIPTION, MAX_SYSTEM = 256, 256, 2048, 100_000
"""Characters (reference: overview, limits)."""
LEAST_TOKENS, MOST_TOKENS = 256, 128_000
"""Of one answer: less does not hold a tool call, more no model writes."""
SERVICE_ACCOUNT = {"type": "service_account"}


# --- the wire's form -------------------------------------------------------------------------------------------------


def create(asked: Mapping[str, Any], web: Web) -> dict[str, Any]:
    """The agent as stored, with a new id. Raises InvalidRequest, or NotSupported for what is not there yet."""
    fields.known(asked, WIRE)
    for key in ("name", "model"):
        if asked.get(key) is None:
            raise InvalidRequest(f"{key} is required.")
    at = now()
    agent = {
        "id": new_id("agent"),
        "type": "agent",
        "version": 1,
        "name": fields.text(asked["name"], "name", MAX_NAME, 1),
        "description": None,
        "model": _model(asked["model"]),
        "system": None,
        "tools": [],
        "mcp_servers": [],
        "skills": [],
        "multiagent": None,
        "execution_identity": dict(SERVICE_ACCOUNT),
        "metadata": fields.metadata(asked.get("metadata")),
        "max_tokens": None,
        "created_at": at,
        "updated_at": at,
        "archived_at": None,
    }
    return _with(agent, {key: asked[key] for key in asked if key not in ("name", "model", "metadata")}, web)


def update(agent: Mapping[str, Any], patch: Mapping[str, Any], web: Web) -> dict[str, Any] | None:
    """The agent's next version; None when the patch changes nothing.

    Raises InvalidRequest, Refused when it is archived, Conflict when the patch names another version than the newest.
    """
    fields.known(patch, (*WIRE, "version"))
    version = later.version(patch.get("version"), "version")
    if agent["archived_at"]:
        raise Refused("Cannot modify archived agent")
    if version not in (None, agent["version"]):
        raise Conflict("Concurrent modification detected. Please fetch the latest version and retry.")
    for key in ("name", "model"):
        if key in patch and patch[key] is None:
            raise InvalidRequest(f"{key} cannot be cleared.")
    changed = dict(agent)
    if "name" in patch:
        changed["name"] = fields.text(patch["name"], "name", MAX_NAME, 1)
    if "model" in patch:
        changed["model"] = _model(patch["model"], agent["model"])
    if "metadata" in patch:
        changed["metadata"] = fields.merged(agent["metadata"], patch["metadata"])
    changed = _with(changed, {key: patch[key] for key in patch if key not in ("name", "model", "metadata")}, web)
    if changed == agent:
        return None
    return {**changed, "version": agent["version"] + 1, "updated_at": now()}


def override(agent: Mapping[str, Any], given: Mapping[str, Any], web: Web) -> dict[str, Any]:
    """The agent with a session's own values for some fields; its id and version stay. None clears a field.

    `given` holds keys of OVERRIDES. Raises InvalidRequest (with the wire's code where there is no model left).
    """
    fields.known(given, OVERRIDES)
    changed = dict(agent)
    if "model" in given:
        if given["model"] is None:
            raise coded(InvalidRequest("agent.model cannot be cleared."), "agent_model_required")
        asked = given["model"]
        plain = {key: value for key, value in asked.items() if key != "effort"} if isinstance(asked, Mapping) else asked
        changed["model"] = _model(plain)
    return _with(changed, {key: given[key] for key in given if key != "model"}, web)


def wire(agent: Mapping[str, Any]) -> dict[str, Any]:
    """The agent as a client reads it."""
    shown = {key: value for key, value in agent.items() if key != "max_tokens"}
    own = agent.get("max_tokens")
    return shown if own is None else {**shown, "skiff": {"max_tokens": own}}


def snapshot(agent: Mapping[str, Any]) -> dict[str, Any]:
    """The agent as a session shows it: without metadata and dates."""
    hidden = ("metadata", "created_at", "updated_at", "archived_at", "max_tokens")
    return {key: value for key, value in agent.items() if key not in hidden}


def _with(agent: dict[str, Any], given: Mapping[str, Any], web: Web) -> dict[str, Any]:
    """The agent with these fields replaced, each as a whole; None and emptiness clear."""
    for key, limit in (("description", MAX_DESCRIPTION), ("system", MAX_SYSTEM)):
        if key in given:
            agent[key] = None if given[key] is None else fields.text(given[key], key, limit) or None
    if "execution_identity" in given:
        agent["execution_identity"] = _identity(given["execution_identity"])
    if "skiff" in given:
        agent["max_tokens"] = _own(given["skiff"], agent["max_tokens"])
    servers = later.server_names(given.get("mcp_servers"))
    if given.get("tools") is not None or servers:
        agent["tools"] = _available(toolsets.resolve(given.get("tools"), servers), web(agent["model"]["id"]))
    elif "tools" in given:
        agent["tools"] = []
    later.refuse_servers(servers)
    later.refuse_skills(given.get("skills"))
    later.refuse_multiagent(given.get("multiagent"))
    return agent


def _available(tools: list[dict[str, Any]], web: bool) -> list[dict[str, Any]]:
    """Web tools that are on by default, and not by name, are off where the provider has none: read back as such."""
    found = []
    for tool in tools:
        named = [config["name"] for config in tool.get("configs", ())]
        if tool["type"] == toolset.TOOLSET and not web and tool["default_config"]["enabled"]:
            policy = tool["default_config"]["permission_policy"]
            off = [
                {"name": name, "type": name, "enabled": False, "permission_policy": policy}
                for name in toolset.WEB
                if name not in named
            ]
            tool = {**tool, "configs": [*tool["configs"], *off]}
        toolsets.check_waiting(tool, "tools")
        found.append(tool)
    return found


def _identity(value: Any) -> dict[str, Any]:
    if value is None:
        return dict(SERVICE_ACCOUNT)
    identity = fields.mapping(value, "execution_identity")
    kind = fields.choice(identity.get("type"), "execution_identity.type", ("service_account", "aws_role"))
    if kind == "aws_role":
        fields.known(identity, ("type", "role_arn"), "execution_identity.")
        fields.text(identity.get("role_arn"), "execution_identity.role_arn", 2048, 1)
        raise fields.later("execution_identity", "aws_role is")
    fields.known(identity, ("type",), "execution_identity.")
    return dict(SERVICE_ACCOUNT)


def _own(value: Any, stored: int | None) -> int | None:
    """Skiff's own addition: what is left out stays, None clears."""
    if value is None:
        return None
    own = fields.mapping(value, "skiff")
    fields.known(own, ("max_tokens",), "skiff.")
    return _max_tokens(own["max_tokens"], "skiff.max_tokens") if "max_tokens" in own else stored


def _max_tokens(value: Any, path: str) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and LEAST_TOKENS <= value <= MOST_TOKENS
    if value is not None and not good:
        raise InvalidRequest(f"{path} must be a whole number from {LEAST_TOKENS} to {MOST_TOKENS:,}.")
    return value if good else None


def _model(asked: Any, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A model, replaced as a whole; but the same model without a word about effort keeps the stored one."""
    model = asked if isinstance(asked, Mapping) else {"id": asked}
    fields.known(model, ("id", "effort", "speed", "inference_geo"), "model.")
    if not isinstance(model.get("id"), str) or not 0 < len(model["id"]) <= MAX_MODEL:
        raise InvalidRequest("model must be a model's name, or an object with `id` and `effort`.")
    speed, region = model.get("speed"), model.get("inference_geo")
    if speed is not None and fields.choice(speed, "model.speed", ("standard", "fast")) == "fast":
        raise fields.later("model.speed", "`fast` is")
    if region is not None:
        fields.text(region, "model.inference_geo", 64, 1)
        raise fields.later("model.inference_geo", "the choice of a region is")
    effort = model.get("effort")
    if effort is None:
        kept = stored is not None and stored["id"] == model["id"]
        level = stored["effort"]["type"] if stored is not None and kept else DEFAULT_EFFORT
    else:
        level = _effort(effort)
    return {"id": model["id"], "effort": {"type": level}, "speed": "standard", "inference_geo": None}


def _effort(value: Any) -> str:
    if isinstance(value, Mapping):
        fields.known(value, ("type",), "model.effort.")
        value = value.get("type")
    return fields.choice(value, "model.effort", EFFORTS)


# --- the friendly form -----------------------------------------------------------------------------------------------


def resolve(asked: Mapping[str, Any], *, default_model: str, web: bool) -> dict[str, Any]:
    """The agent that a caller of the MCP door describes, as stored, with a new id.

    `web`: whether web tools are on where tools are not named. Raises InvalidRequest, or NotSupported for what this
    version cannot do yet.
    """
    with fields.within("agent"):
        for key, value in asked.items():
            if key in LATER and value:
                raise NotSupported(f"{key}: {LATER[key]} are not supported by this version of Skiff.")
        fields.known({key: value for key, value in asked.items() if key not in LATER}, FRIENDLY)
        form = {
            "name": asked.get("name") or "agent",
            "model": _friendly_model(asked, default_model),
            "description": asked.get("description"),
            "system": _friendly_system(asked),
            "tools": friendly_tools(asked.get("tools")),
            "metadata": asked.get("metadata"),
        }
        _max_tokens(asked.get("max_tokens"), "max_tokens")
        return {**create(form, lambda model: web), "max_tokens": asked.get("max_tokens")}


def digest(agent: Mapping[str, Any]) -> str:
    """Equal for agents that differ in nothing but id and dates."""
    body = {key: value for key, value in agent.items() if key not in ("id", "created_at", "updated_at")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _friendly_model(asked: Mapping[str, Any], default: str) -> Any:
    model = asked.get("model") or default
    if asked.get("effort") is None:
        return model
    return {**(model if isinstance(model, Mapping) else {"id": model}), "effort": asked["effort"]}


def _friendly_system(asked: Mapping[str, Any]) -> Any:
    if asked.get("system") and asked.get("system_instructions"):
        raise InvalidRequest("system: give `system` or `system_instructions`, not both.")
    return asked.get("system") or asked.get("system_instructions")


def friendly_tools(asked: Any) -> list[Any]:
    """The wire's tools for a list of names, categories and the wire's own objects; None is the whole toolset."""
    if asked is None:
        return [{"type": toolset.TOOLSET}]
    if not isinstance(asked, Sequence) or isinstance(asked, str):
        raise InvalidRequest("tools must be a list of tool names, categories or toolset objects.")
    named = {name for item in asked if isinstance(item, str) for name in _named(item)}
    objects = [item for item in asked if not isinstance(item, str)]
    if not all(isinstance(item, Mapping) for item in objects):
        raise InvalidRequest("tools: entries are names or objects with a `type`.")
    if not named:
        return objects
    if any(item.get("type") == toolset.TOOLSET for item in objects):
        raise InvalidRequest(f"tools: name tools, or give a {toolset.TOOLSET} object, not both.")
    if not named & {"all", toolset.TOOLSET}:
        return [toolset.resolved(sorted(named)), *objects]
    by_name = [{"name": name, "enabled": True} for name in toolset.WEB if name in named]
    return [{"type": toolset.TOOLSET, "configs": by_name}, *objects]


def _named(item: str) -> Sequence[str]:
    if item in toolset.NAMES or item in ("all", toolset.TOOLSET):
        return (item,)
    if item in toolset.CATEGORIES:
        return toolset.CATEGORIES[item]
    known = ", ".join((*toolset.NAMES, *toolset.CATEGORIES))
    raise InvalidRequest(f"tools: there is no tool or category {item!r}. Known: {known}.")
