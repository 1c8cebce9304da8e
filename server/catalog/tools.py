"""An agent's `tools`: from what a request says to the resolved list that the wire reads back. Pure.

Above: `agents`. Below: `fields`, `web` (the settings of web tools), `toolset` (which tools there are). It does not
know how a tool is offered to a model or run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from server.catalog import fields, web
from server.errors import InvalidRequest, NotSupported
from server.tools import toolset
from server.tools.recall import RECALL

MOST_TOOLS = 256
"""Across all toolsets (reference: overview, limits)."""
MOST_DESCRIPTION = 65_536
"""Characters of a custom tool's description; the wire names no bound, and this is far over what a model reads well."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
RESERVED = ("mcp__", "ant__")
POLICIES = ("always_allow", "always_ask", "auto")


def resolve(asked: Any, servers: Sequence[str], path: str = "tools") -> list[dict[str, Any]]:
    """The tools as stored and read back. `servers`: the names of the declared MCP servers.

    Raises InvalidRequest, or NotSupported for what the engine cannot do yet.
    """
    found = [_tool(item, f"{path}.{n}") for n, item in enumerate(fields.listed(asked, path, MOST_TOOLS))]
    _check_together(found, path)
    _check_servers(found, servers, path)
    if any(tool["type"] == "mcp_toolset" for tool in found):
        raise fields.later(path, "mcp_toolset: tools of MCP servers are")
    return found


def _tool(item: Any, path: str) -> dict[str, Any]:
    kind = fields.mapping(item, path).get("type")
    if kind == toolset.TOOLSET:
        return _toolset(item, path)
    if kind == "custom":
        return _custom(item, path)
    if kind == "mcp_toolset":
        return _mcp_toolset(item, path)
    raise InvalidRequest(f"{path}.type must be one of {toolset.TOOLSET}, custom, mcp_toolset, not {kind!r:.80}.")


def _check_together(found: Sequence[Mapping[str, Any]], path: str) -> None:
    kinds = [tool["type"] for tool in found]
    if kinds.count(toolset.TOOLSET) > 1:
        raise InvalidRequest(f"{path}: {toolset.TOOLSET} is there twice.")
    custom = [tool["name"] for tool in found if tool["type"] == "custom"]
    for name in custom:
        if custom.count(name) > 1:
            raise InvalidRequest(f"{path}: two custom tools are named {name!r}.")
    if len(custom) + len(toolset.enabled(found)) > MOST_TOOLS:
        raise InvalidRequest(f"{path}: at most {MOST_TOOLS} tools across all toolsets.")


def _check_servers(found: Sequence[Mapping[str, Any]], servers: Sequence[str], path: str) -> None:
    """Every toolset names a server, every server is named, by one toolset."""
    named = [tool["mcp_server_name"] for tool in found if tool["type"] == "mcp_toolset"]
    for name in named:
        if name not in servers:
            raise InvalidRequest(f'{path}: references server "{name}" which is not defined in mcp_servers')
        if named.count(name) > 1:
            raise InvalidRequest(f'{path}: two toolsets for server "{name}"')
    for name in servers:
        if name not in named:
            raise InvalidRequest(f'mcp_servers: server "{name}" is not referenced by an mcp_toolset in tools')


# --- the builtin tools -----------------------------------------------------------------------------------------------


def _toolset(item: Mapping[str, Any], path: str) -> dict[str, Any]:
    fields.known(item, ("type", "default_config", "configs"), f"{path}.")
    default = _default(item.get("default_config"), f"{path}.default_config", "always_allow")
    given = fields.listed(item.get("configs"), f"{path}.configs", len(toolset.NAMES))
    configs = [_config(config, default, f"{path}.configs.{n}") for n, config in enumerate(given)]
    names = [config["name"] for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"{path}.configs: {name} is configured twice.")
    return {"type": toolset.TOOLSET, "default_config": default, "configs": configs}


def _default(given: Any, path: str, policy: str) -> dict[str, Any]:
    config = fields.mapping({} if given is None else given, path)
    fields.known(config, ("enabled", "permission_policy"), f"{path}.")
    return {
        "enabled": fields.flag(config.get("enabled"), f"{path}.enabled", True),
        "permission_policy": _policy(config.get("permission_policy"), f"{path}.permission_policy", {"type": policy}),
    }


def _config(given: Any, default: Mapping[str, Any], path: str) -> dict[str, Any]:
    config = fields.mapping(given, path)
    name = config.get("name")
    if name not in toolset.NAMES:
        known = ", ".join(toolset.NAMES)
        raise InvalidRequest(f"{path}.name: the toolset has no tool {name!r:.80}. It has {known}.")
    if config.get("type") not in (None, name):
        raise InvalidRequest(f"{path}.type must be equal to the name, {name!r}.")
    own = web.FIELDS.get(name, ())
    fields.known(config, ("name", "type", "enabled", "permission_policy", *own), f"{path}.")
    return {
        "name": name,
        "type": name,
        "enabled": fields.flag(config.get("enabled"), f"{path}.enabled", default["enabled"]),
        "permission_policy": _policy(
            config.get("permission_policy"), f"{path}.permission_policy", default["permission_policy"]
        ),
        **web.settings(name, config, path),
    }


def _policy(given: Any, path: str, default: Mapping[str, Any]) -> dict[str, Any]:
    if given is None:
        return dict(default)
    fields.known(fields.mapping(given, path), ("type",), f"{path}.")
    kind = fields.choice(given.get("type"), f"{path}.type", POLICIES)
    if kind == "auto":
        raise fields.later(path, "permission policy `auto` is")
    return {"type": kind}


def check_waiting(tool: Mapping[str, Any], path: str) -> None:
    """Raises NotSupported where a web tool must ask first: it runs inside the provider's answer, which cannot wait."""
    asking = [name for name in toolset.enabled([tool]) if name in toolset.WEB and _asks(tool, name)]
    if asking:
        raise NotSupported(
            f"{path}: always_ask is not supported for {', '.join(asking)}, which the model's provider runs by itself."
            " Give them entries in `configs` with always_allow, or with enabled: false."
        )


def _asks(tool: Mapping[str, Any], name: str) -> bool:
    return toolset.policy([tool], name) == "always_ask"


# --- tools of others -------------------------------------------------------------------------------------------------


def _custom(item: Mapping[str, Any], path: str) -> dict[str, Any]:
    fields.known(item, ("type", "name", "description", "input_schema"), f"{path}.")
    name = item.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequest(f"{path}.name must be 1 to 128 letters, digits, `_` and `-`.")
    if name.startswith(RESERVED):
        raise InvalidRequest(f"{path}.name {name!r}: names that begin with {' or '.join(RESERVED)} are reserved.")
    if name in (*toolset.NAMES, RECALL.name):
        raise InvalidRequest(f"{path}.name {name!r} is the name of a builtin tool.")
    return {
        "type": "custom",
        "name": name,
        "description": fields.text(item.get("description"), f"{path}.description", MOST_DESCRIPTION, 1),
        "input_schema": _schema(item.get("input_schema"), f"{path}.input_schema"),
    }


def _schema(given: Any, path: str) -> dict[str, Any]:
    schema = fields.mapping(given, path)
    if schema.get("type") != "object":
        raise InvalidRequest(f'{path}.type must be "object".')
    properties, required = schema.get("properties"), schema.get("required")
    if properties is not None:
        fields.mapping(properties, f"{path}.properties")
    names = required if isinstance(required, list | tuple) else () if required is None else (None,)
    if not all(isinstance(name, str) for name in names):
        raise InvalidRequest(f"{path}.required must be a list of names.")
    return {key: item for key, item in schema.items() if item is not None}


def _mcp_toolset(item: Mapping[str, Any], path: str) -> dict[str, Any]:
    fields.known(item, ("type", "mcp_server_name", "default_config", "configs"), f"{path}.")
    default = _default(item.get("default_config"), f"{path}.default_config", "always_ask")
    given = fields.listed(item.get("configs"), f"{path}.configs", MOST_TOOLS)
    return {
        "type": "mcp_toolset",
        "mcp_server_name": fields.text(item.get("mcp_server_name"), f"{path}.mcp_server_name", 255, 1),
        "default_config": default,
        "configs": [_mcp_config(config, default, f"{path}.configs.{n}") for n, config in enumerate(given)],
    }


def _mcp_config(given: Any, default: Mapping[str, Any], path: str) -> dict[str, Any]:
    config = fields.mapping(given, path)
    fields.known(config, ("name", "enabled", "permission_policy"), f"{path}.")
    name = config.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequest(f"{path}.name must be 1 to 128 letters, digits, `_` and `-`.")
    return {
        "name": name,
        "enabled": fields.flag(config.get("enabled"), f"{path}.enabled", default["enabled"]),
        "permission_policy": _policy(
            config.get("permission_policy"), f"{path}.permission_policy", default["permission_policy"]
        ),
    }
