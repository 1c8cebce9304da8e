"""The toolset as it is read back."""

from __future__ import annotations

from server.tools import toolset


def test_the_names_are_those_of_the_wire() -> None:
    wire = {"bash", "edit", "glob", "grep", "read", "web_fetch", "web_search", "write"}
    assert set(toolset.NAMES) == wire
    assert {name for names in toolset.CATEGORIES.values() for name in names} <= wire


def test_what_was_enabled_reads_back_enabled_in_the_toolsets_order_and_nothing_else() -> None:
    resolved = toolset.resolved(["grep", "bash"])
    assert toolset.enabled([resolved]) == ["bash", "grep"]
    assert toolset.enabled([]) == []


def test_a_tools_own_entry_counts_over_the_toolsets_default() -> None:
    tools = [
        {
            "type": toolset.TOOLSET,
            "default_config": {"enabled": True, "permission_policy": {"type": "always_ask"}},
            "configs": [
                {"name": "read", "type": "read", "enabled": True, "permission_policy": {"type": "always_allow"}},
                {"name": "bash", "type": "bash", "enabled": False, "permission_policy": {"type": "always_ask"}},
            ],
        }
    ]
    assert toolset.enabled(tools) == [name for name in toolset.NAMES if name != "bash"]
    assert toolset.policy(tools, "read") == "always_allow"
    assert toolset.policy(tools, "write") == "always_ask"


def test_the_tools_of_a_session_frozen_before_there_were_defaults_are_read_as_ever() -> None:
    frozen = {
        "type": toolset.TOOLSET,
        "default_config": {"enabled": False, "permission_policy": toolset.ALLOW},
        "configs": [
            {"name": name, "type": name, "enabled": name in ("bash", "read"), "permission_policy": toolset.ALLOW}
            for name in toolset.NAMES
        ],
    }
    assert toolset.enabled([frozen]) == ["bash", "read"]
    assert toolset.policy([frozen], "bash") == "always_allow"


def test_a_web_tools_settings_are_read_without_what_every_tool_has() -> None:
    tools = [
        {
            "type": toolset.TOOLSET,
            "default_config": {"enabled": True, "permission_policy": toolset.ALLOW},
            "configs": [
                {
                    "name": "web_search",
                    "type": "web_search",
                    "enabled": True,
                    "permission_policy": toolset.ALLOW,
                    "allowed_domains": ["example.org"],
                }
            ],
        }
    ]
    assert toolset.setting(tools, "web_search") == {"allowed_domains": ["example.org"]}
    assert toolset.setting(tools, "web_fetch") == {}
    assert toolset.setting([], "web_fetch") == {}


def test_the_resolved_toolset_is_what_the_sdk_expects() -> None:
    from anthropic.types.beta.beta_managed_agents_agent_toolset20260401 import BetaManagedAgentsAgentToolset20260401

    read = BetaManagedAgentsAgentToolset20260401.model_validate(toolset.resolved(["bash"]))
    assert not read.model_extra
    assert not any(config.model_extra for config in read.configs)
