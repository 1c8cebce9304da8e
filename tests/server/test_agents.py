"""Agents: what a caller may ask for, in which words, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from server.catalog import agents
from server.errors import InvalidRequest, NotSupported
from server.tools import toolset

FILES = ["read", "write", "edit", "glob", "grep"]
IN_SANDBOX = ["bash", *FILES]


def resolve(web: bool = False, **asked: Any) -> dict[str, Any]:
    return agents.resolve(asked, default_model="scripted", web=web)


def tools(asked: Any, web: bool = False) -> list[str]:
    return toolset.enabled(resolve(web, tools=asked)["tools"])


def test_nothing_asked_is_an_agent_with_the_default_model_and_every_sandbox_tool() -> None:
    agent = resolve()
    assert agent["model"] == {"id": "scripted", "effort": {"type": "high"}, "speed": "standard", "inference_geo": None}
    assert toolset.enabled(agent["tools"]) == IN_SANDBOX
    assert (agent["name"], agent["system"], agent["version"]) == ("agent", None, 1)


def test_the_form_of_the_announcement_is_accepted_as_it_stands() -> None:
    agent = resolve(
        model="claude-sonnet-5-5",
        system_instructions="You help.",
        tools=["bash", "file_operations", "web_fetch"],
    )
    assert agent["system"] == "You help."
    assert toolset.enabled(agent["tools"]) == [*IN_SANDBOX, "web_fetch"]


@pytest.mark.parametrize(
    ("asked", "enabled"),
    [
        ([], []),
        (["bash"], ["bash"]),
        (["file_operations"], FILES),
        (["web"], ["web_fetch", "web_search"]),
        (["all"], IN_SANDBOX),
        (["agent_toolset_20260401"], IN_SANDBOX),
        ([{"type": "agent_toolset_20260401"}], IN_SANDBOX),
        ([{"type": "agent_toolset_20260401", "default_config": {"enabled": False}}], []),
        (
            [
                {
                    "type": "agent_toolset_20260401",
                    "default_config": {"enabled": False, "permission_policy": {"type": "always_allow"}},
                    "configs": [{"name": "web_fetch", "type": "web_fetch", "enabled": True}],
                }
            ],
            ["web_fetch"],
        ),
        ([{"type": "agent_toolset_20260401", "configs": [{"name": "bash", "enabled": False}]}], FILES),
    ],
)
def test_tools_by_name_category_or_toolset(asked: Any, enabled: list[str]) -> None:
    assert tools(asked) == enabled


def test_web_tools_that_are_only_a_default_are_on_where_there_are_some() -> None:
    for asked in (None, ["all"], [{"type": "agent_toolset_20260401"}]):
        assert tools(asked, web=True) == [*IN_SANDBOX, "web_fetch", "web_search"]


def test_named_tools_read_back_as_a_toolset_that_is_off_but_for_them() -> None:
    (read_back,) = resolve(tools=["bash"])["tools"]
    assert read_back["default_config"]["enabled"] is False
    assert [(config["name"], config["enabled"]) for config in read_back["configs"]] == [("bash", True)]


def test_names_and_the_clients_own_tools_go_together() -> None:
    own = {"type": "custom", "name": "ask", "description": "Asks.", "input_schema": {"type": "object"}}
    agent = resolve(tools=["bash", own])
    assert toolset.enabled(agent["tools"]) == ["bash"]
    assert toolset.custom(agent["tools"]) == [own]


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("m", "high"),
        ({"id": "m"}, "high"),
        ({"id": "m", "effort": "low"}, "low"),
        ({"id": "m", "effort": {"type": "max"}}, "max"),
    ],
)
def test_a_model_by_name_or_as_an_object(model: Any, effort: str) -> None:
    assert resolve(model=model)["model"] == {
        "id": "m",
        "effort": {"type": effort},
        "speed": "standard",
        "inference_geo": None,
    }


TOOLSET = "agent_toolset_20260401"
ASK = {"permission_policy": {"type": "always_ask"}}
AUTO = {"permission_policy": {"type": "auto"}}


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"mcp_servers": [{"name": "x"}]}, "agent.mcp_servers"),
        ({"skills": [{"id": "x"}]}, "agent.skills"),
        ({"multiagent": {"type": "x"}}, "agent.multiagent"),
        ({"callable_agents": ["x"]}, "agent.callable_agents"),
        ({"model": {"id": "m", "speed": "fast"}}, "speed"),
        ({"model": {"id": "m", "inference_geo": "us"}}, "inference_geo"),
        ({"tools": [{"type": TOOLSET, "default_config": AUTO}]}, "default_config.permission_policy: .*`auto`"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "bash", **AUTO}]}]}, "configs.0.permission_policy"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "web_search", "enabled": True, **ASK}]}]}, "always_ask"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "web_fetch", "url_sources": {}}]}]}, "url_sources"),
    ],
)
def test_what_is_understood_but_not_there_yet_is_refused_by_name(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(NotSupported, match=named):
        resolve(**asked)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"budget": 5}, "agent.budget is unknown. Known: name"),
        ({"name": 5}, "agent.name"),
        ({"name": "x" * 257}, "agent.name"),
        ({"system": 5}, "agent.system"),
        ({"system": "x" * 100_001}, "100,000"),
        ({"system": "a", "system_instructions": "b"}, "not both"),
        ({"description": "x" * 2_049}, "agent.description"),
        ({"model": 5}, "agent.model"),
        ({"model": {"effort": "low"}}, "agent.model"),
        ({"model": {"id": "m", "surprise": 1}}, "agent.model"),
        ({"effort": "extreme"}, "effort"),
        ({"max_tokens": 255}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"tools": "bash"}, "agent.tools"),
        ({"tools": ["bsah"]}, "'bsah'. Known: bash"),
        ({"tools": [5]}, "agent.tools"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "nope"}]}]}, "'nope'"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "bash", "type": "read"}]}]}, "'bash'"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "bash"}, {"name": "bash"}]}]}, "twice"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "web_search", "max_uses": 3}]}]}, "configs.0.max_uses"),
        ({"tools": [{"type": TOOLSET, "default_config": {"sandbox": 1}}]}, "default_config.sandbox"),
        ({"tools": [{"type": TOOLSET, "surprise": 1}]}, "agent.tools.0.surprise"),
        ({"tools": ["bash", {"type": TOOLSET}]}, "not both"),
        ({"tools": [{"type": "mcp_toolset"}]}, "mcp_server_name"),
        ({"tools": [{"type": TOOLSET, "configs": ["bash"]}]}, "configs"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "bash", "enabled": "false"}]}]}, "configs.0.enabled"),
        ({"tools": [{"type": TOOLSET, "default_config": {"enabled": "no"}}]}, "default_config.enabled"),
        ({"tools": [{"type": TOOLSET, "default_config": [1]}]}, "default_config"),
    ],
)
def test_what_is_wrong_is_refused_with_words_that_help(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        resolve(**asked)


def test_equal_agents_have_one_digest_and_others_do_not() -> None:
    assert agents.digest(resolve(system="a")) == agents.digest(resolve(system="a"))
    assert agents.digest(resolve(system="a")) != agents.digest(resolve(system="b"))


def test_a_session_shows_its_agent_without_metadata_and_dates() -> None:
    from anthropic.types.beta.beta_managed_agents_session_agent import BetaManagedAgentsSessionAgent

    shown = agents.snapshot(resolve(metadata={"a": "b"}))
    assert not {"metadata", "created_at", "updated_at", "archived_at", "max_tokens"} & shown.keys()
    assert not BetaManagedAgentsSessionAgent.model_validate(shown).model_extra
