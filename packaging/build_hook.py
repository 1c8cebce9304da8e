"""Wheels hold `server` and `sandbox` below the package; a checkout's own environment must see the checkout instead."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    """Leaves the copies out of editable installs: the build's `dev-mode-dirs` put the checkout itself on the path."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            build_data["force_include_editable"] = {"packaging/skiff_agents.py": "skiff_agents.py"}
