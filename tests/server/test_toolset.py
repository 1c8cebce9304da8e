"""The toolset as it is read back."""

from __future__ import annotations

from server.tools import toolset


def test_the_names_are_those_of_the_wire() -> None:
    wire = {"bash", "edit", "glob", "grep", "read", "web_fetch", "web_search", "write"}
    assert set(toolset.NAMES) == wire
    assert {name for names in toolset.CATEGORIES.values() for name in names} <= wire


def test_what_was_enabled_reads_back_enabled_in_the_toolsets_order_and_the_rest_disabled() -> None:
    resolved = toolset.resolved(["grep", "bash"])
    assert toolset.enabled([resolved]) == ["bash", "grep"]
    assert len(resolved["configs"]) == len(toolset.NAMES)
    assert toolset.enabled([]) == []


def test_the_resolved_toolset_is_what_the_sdk_expects() -> None:
    from anthropic.types.beta.beta_managed_agents_agent_toolset20260401 import BetaManagedAgentsAgentToolset20260401

    read = BetaManagedAgentsAgentToolset20260401.model_validate(toolset.resolved(["bash"]))
    assert not read.model_extra
    assert not any(config.model_extra for config in read.configs)
