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
    """The toolset as the wire reads it back: defaults filled, one entry a tool."""
    return {
        "type": TOOLSET,
        "default_config": {"enabled": False, "permission_policy": ALLOW},
        "configs": [
            {"name": name, "type": name, "enabled": name in enabled, "permission_policy": ALLOW} for name in NAMES
        ],
    }


def enabled(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the enabled builtin tools of a resolved agent, in the toolset's order."""
    return [
        config["name"]
        for toolset in tools
        if toolset["type"] == TOOLSET
        for config in toolset["configs"]
        if config["enabled"]
    ]
