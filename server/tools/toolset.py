"""The wire's `agent_toolset_20260401`: which builtin tools an agent has, and how they are offered to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.tools import Tool
from server.tools.bash import BASH
from server.tools.files import EDIT, READ, WRITE
from server.tools.search import GLOB, GREP

TOOLSET = "agent_toolset_20260401"
IN_SANDBOX: Mapping[str, Tool] = {tool.name: tool for tool in (BASH, READ, WRITE, EDIT, GLOB, GREP)}
WEB = ("web_fetch", "web_search")
NAMES = (*IN_SANDBOX, *WEB)
CATEGORIES: Mapping[str, Sequence[str]] = {
    "file_operations": ("read", "write", "edit", "glob", "grep"),
    "web": WEB,
    "all": NAMES,
}
"""Friendly names for several tools at once."""

ALLOW = {"type": "always_allow"}


def resolved(enabled: Sequence[str]) -> dict[str, Any]:
    """A toolset of these tools and no others, as the wire reads it back."""
    return {
        "type": TOOLSET,
        "default_config": {"enabled": False, "permission_policy": ALLOW},
        "configs": [
            {"name": name, "type": name, "enabled": True, "permission_policy": ALLOW}
            for name in NAMES
            if name in enabled
        ],
    }


def enabled(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the enabled builtin tools of a resolved agent, in the toolset's order."""
    return [name for name in NAMES if _config(tools, name).get("enabled")]


def policy(tools: Sequence[Mapping[str, Any]], name: str) -> str:
    """The permission policy of a builtin tool of a resolved agent: `always_allow` or `always_ask`."""
    return str(_config(tools, name).get("permission_policy", ALLOW)["type"])


def setting(tools: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The further settings of a web tool, as in `{"allowed_domains": [...]}`; empty where there are none."""
    return {key: value for key, value in _config(tools, name).items() if key not in _COMMON and value is not None}


def custom(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The client's own tools of a resolved agent: name, description, input_schema."""
    return [tool for tool in tools if tool["type"] == "custom"]


_COMMON = ("name", "type", "enabled", "permission_policy")


def _config(tools: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """What counts for a builtin tool: its own entry over the toolset's default; empty where there is no toolset."""
    for toolset in tools:
        if toolset["type"] == TOOLSET:
            own = [config for config in toolset["configs"] if config["name"] == name]
            return {**toolset["default_config"], **(own[0] if own else {})}
    return {}
