"""Agents in the wire's own form: what is resolved, what an update does, what a session may change, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from server.catalog import agents
from server.errors import Conflict, InvalidRequest, NotSupported, Refused
from server.tools import toolset

TOOLSET = "agent_toolset_20260401"
ALLOW, ASK, AUTO = ({"type": kind} for kind in ("always_allow", "always_ask", "auto"))
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
OWN = {"type": "custom", "name": "ask_a_human", "description": "Asks.", "input_schema": SCHEMA}
SERVER = {"type": "url", "name": "tickets", "url": "https://tickets.example.org/mcp"}
SERVER_TOOLS = {"type": "mcp_toolset", "mcp_server_name": "tickets"}


def with_web(model: str) -> bool:
    return model.startswith("claude")


def create(**asked: Any) -> dict[str, Any]:
    return agents.create({"name": "a", "model": "claude-opus-5-5", **asked}, with_web)


def update(agent: dict[str, Any], **patch: Any) -> dict[str, Any] | None:
    return agents.update(agent, patch, with_web)


def builtin(**fields: Any) -> dict[str, Any]:
    return {"type": TOOLSET, **fields}


# --- what is resolved ------------------------------------------------------------------------------------------------


def test_a_toolset_without_a_word_reads_back_with_its_default_and_no_entries() -> None:
    (tool,) = create(tools=[builtin()])["tools"]
    assert tool == {
        "type": TOOLSET,
        "default_config": {"enabled": True, "permission_policy": ALLOW},
        "configs": [],
    }
    assert toolset.enabled([tool]) == list(toolset.NAMES)


def test_an_entry_reads_back_with_everything_that_counts_for_it() -> None:
    (tool,) = create(tools=[builtin(default_config={"enabled": False}, configs=[{"name": "bash", "enabled": True}])])[
        "tools"
    ]
    assert tool["configs"] == [{"name": "bash", "type": "bash", "enabled": True, "permission_policy": ALLOW}]
    assert toolset.enabled([tool]) == ["bash"]


def test_web_tools_that_are_on_by_default_are_off_where_the_models_provider_has_none() -> None:
    (tool,) = create(model="scripted", tools=[builtin()])["tools"]
    assert [(config["name"], config["enabled"]) for config in tool["configs"]] == [
        ("web_fetch", False),
        ("web_search", False),
    ]
    (tool,) = create(model="scripted", tools=[builtin(configs=[{"name": "web_fetch"}])])["tools"]
    assert "web_fetch" in toolset.enabled([tool])  # asked for by name: the session will be refused


def test_settings_of_web_tools_are_kept() -> None:
    place = {"type": "approximate", "city": "Berlin", "country": "DE", "timezone": "Europe/Berlin"}
    (tool,) = create(
        tools=[
            builtin(
                configs=[
                    {"name": "web_search", "allowed_domains": ["example.org/docs"], "user_location": place},
                    {"name": "web_fetch", "blocked_domains": ["Example.COM"], "max_content_tokens": 5},
                ]
            )
        ]
    )["tools"]
    assert toolset.setting([tool], "web_search") == {"allowed_domains": ["example.org/docs"], "user_location": place}
    assert toolset.setting([tool], "web_fetch") == {"blocked_domains": ["Example.COM"], "max_content_tokens": 5}


def test_a_custom_tool_keeps_its_whole_schema() -> None:
    schema = {**SCHEMA, "additionalProperties": False, "$defs": {"x": {}}}
    agent = create(tools=[{**OWN, "input_schema": schema}])
    assert toolset.custom(agent["tools"]) == [{**OWN, "input_schema": schema}]


def test_what_stands_for_the_default_identity_is_the_default_identity() -> None:
    for identity in (None, {"type": "service_account"}):
        assert create(execution_identity=identity)["execution_identity"] == {"type": "service_account"}


def test_skiffs_own_addition_reads_back_under_its_own_key_and_only_where_it_was_given() -> None:
    assert agents.wire(create(skiff={"max_tokens": 500}))["skiff"] == {"max_tokens": 500}
    assert not {"skiff", "max_tokens"} & agents.wire(create()).keys()


# --- updates ---------------------------------------------------------------------------------------------------------


def test_an_update_keeps_what_it_does_not_name_and_counts_the_version_up() -> None:
    agent = create(system="Be brief.", description="d", tools=[builtin()])
    changed = update(agent, name="b")
    assert changed is not None
    assert (changed["name"], changed["version"]) == ("b", 2)
    kept = {key: value for key, value in changed.items() if key not in ("name", "version", "updated_at")}
    assert kept == {key: agent[key] for key in kept}


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"name": "a"},
        {"system": "Be brief."},
        {"model": "claude-opus-5-5"},
        {"model": {"id": "claude-opus-5-5"}},
        {"metadata": {"k": "v", "absent": None}},
        {"tools": [builtin()]},
        {"mcp_servers": None},
        {"multiagent": None},
        {"skills": []},
        {"execution_identity": None},
        {"version": 1},
    ],
)
def test_an_update_that_changes_nothing_makes_no_version(patch: dict[str, Any]) -> None:
    agent = create(
        system="Be brief.",
        metadata={"k": "v"},
        tools=[builtin()],
        model={"id": "claude-opus-5-5", "effort": "low"},
    )
    assert update(agent, **patch) is None


@pytest.mark.parametrize(
    ("patch", "field", "value"),
    [
        ({"system": None}, "system", None),
        ({"system": ""}, "system", None),
        ({"description": ""}, "description", None),
        ({"tools": None}, "tools", []),
        ({"tools": []}, "tools", []),
        ({"metadata": {"k": None, "l": "w"}}, "metadata", {"l": "w"}),
        ({"skiff": {"max_tokens": None}}, "max_tokens", None),
        ({"skiff": None}, "max_tokens", None),
    ],
)
def test_what_is_cleared_is_empty(patch: dict[str, Any], field: str, value: Any) -> None:
    agent = create(system="s", description="d", metadata={"k": "v"}, tools=[builtin()], skiff={"max_tokens": 500})
    changed = update(agent, **patch)
    assert changed is not None
    assert changed[field] == value


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("claude-opus-5-5", "low"),
        ({"id": "claude-opus-5-5"}, "low"),
        ({"id": "claude-opus-5-5", "effort": "max"}, "max"),
        ("claude-sonnet-5-5", "high"),
        ({"id": "claude-sonnet-5-5"}, "high"),
    ],
)
def test_the_same_model_keeps_its_effort_and_another_one_has_its_own(model: Any, effort: str) -> None:
    agent = create(model={"id": "claude-opus-5-5", "effort": "low"})
    assert (update(agent, model=model) or agent)["model"]["effort"] == {"type": effort}


def test_a_stale_version_is_a_conflict_even_where_nothing_would_change() -> None:
    with pytest.raises(Conflict, match=r"^Concurrent modification detected\. Please fetch the latest version and"):
        update(create(), version=2)


def test_an_archived_agent_takes_no_update() -> None:
    with pytest.raises(Refused, match=r"^Cannot modify archived agent$"):
        update({**create(), "archived_at": "2026-01-01T00:00:00Z"}, name="b")


# --- what a session may change ---------------------------------------------------------------------------------------


def test_a_session_has_its_own_values_on_the_agents_id_and_version() -> None:
    agent = create(system="s", model={"id": "claude-opus-5-5", "effort": "low"}, tools=[builtin()])
    own = agents.override(
        agent, {"system": None, "tools": [OWN], "model": {"id": "claude-opus-5-5", "effort": "max"}}, with_web
    )
    assert (own["id"], own["version"]) == (agent["id"], 1)
    assert (own["system"], own["tools"]) == (None, [OWN])
    assert own["model"]["effort"] == {"type": "high"}  # the effort of an override does not count, nor the agent's


def test_a_session_without_a_model_is_refused_with_the_wires_code() -> None:
    with pytest.raises(InvalidRequest) as caught:
        agents.override(create(), {"model": None}, with_web)
    assert caught.value.code == "agent_model_required"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"model": {"id": "m", "speed": "fast"}}, "model.speed"),
        ({"model": {"id": "m", "inference_geo": "us"}}, "model.inference_geo"),
        ({"mcp_servers": [SERVER], "tools": [SERVER_TOOLS]}, "mcp_toolset"),
        ({"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}, "skills"),
        ({"multiagent": {"type": "coordinator", "agents": ["agent_1", {"type": "self"}]}}, "multiagent"),
        ({"multiagent": {"type": "multiagent_20261001", "workflows": {"type": "disabled"}}}, "multiagent"),
        ({"execution_identity": {"type": "aws_role", "role_arn": "arn:aws:iam::1:role/x"}}, "aws_role"),
        ({"tools": [builtin(default_config={"permission_policy": AUTO})]}, "auto"),
        ({"tools": [builtin(default_config={"permission_policy": ASK})]}, "always_ask is not supported for web_fetch"),
        ({"tools": [builtin(configs=[{"name": "web_fetch", "url_sources": "all"}])]}, "url_sources"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_by_name(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(NotSupported, match=named):
        create(**asked)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"name": None}, "^name is required"),
        ({"name": ""}, "^name must be"),
        ({"model": None}, "^model is required"),
        ({"model": ""}, "^model must be"),
        ({"model": {"id": "m", "speed": "slow"}}, "model.speed must be one of"),
        ({"model": {"id": "m", "effort": "extreme"}}, "model.effort"),
        ({"surprise": 1}, "^surprise is unknown"),
        ({"description": 0}, "^description"),
        ({"system": []}, "^system"),
        ({"metadata": {"k": None}}, "metadata: the value of 'k'"),
        ({"metadata": {"": "v"}}, "metadata: key ''"),
        ({"skiff": {"surprise": 1}}, "skiff.surprise"),
        ({"skiff": {"max_tokens": 1}}, "skiff.max_tokens"),
        ({"tools": ["bash"]}, "tools.0 must be an object"),
        ({"tools": [builtin(), builtin()]}, "twice"),
        ({"tools": [{"type": "surprise"}]}, "tools.0.type"),
        ({"tools": [OWN, OWN]}, "two custom tools"),
        ({"tools": [{**OWN, "name": "bash"}]}, "builtin"),
        ({"tools": [{**OWN, "name": "recall"}]}, "builtin"),
        ({"tools": [{**OWN, "name": "mcp__x"}]}, "reserved"),
        ({"tools": [{**OWN, "name": "ant__x"}]}, "reserved"),
        ({"tools": [{**OWN, "name": "a b"}]}, "tools.0.name"),
        ({"tools": [{**OWN, "description": None}]}, "tools.0.description"),
        ({"tools": [{**OWN, "input_schema": {"type": "array"}}]}, "input_schema.type"),
        ({"tools": [{**OWN, "input_schema": {"type": "object", "required": "q"}}]}, "input_schema.required"),
        ({"tools": [{**OWN, "permission_policy": ALLOW}]}, "tools.0.permission_policy"),
        ({"tools": [{**OWN, "name": f"t{n}"} for n in range(257)]}, "256"),
        ({"tools": [{**OWN, "name": f"t{n}"} for n in range(249)] + [builtin()]}, "256"),
        ({"mcp_servers": [SERVER]}, 'server "tickets" is not referenced'),
        ({"mcp_servers": [SERVER, SERVER]}, "two servers"),
        ({"mcp_servers": [{**SERVER, "url": "ftp://x"}]}, "mcp_servers.0.url"),
        ({"mcp_servers": [{**SERVER, "name": f"s{n}"} for n in range(21)]}, "at most 20"),
        ({"tools": [SERVER_TOOLS]}, 'references server "tickets" which is not defined in mcp_servers'),
        ({"mcp_servers": [SERVER], "tools": [SERVER_TOOLS, SERVER_TOOLS]}, "two toolsets"),
        ({"skills": [{"type": "anthropic"}]}, "skills.0.skill_id"),
        ({"multiagent": {"type": "coordinator", "agents": []}}, "multiagent.agents"),
        ({"multiagent": {"type": "coordinator", "agents": ["a", "a"]}}, "twice"),
        ({"multiagent": {"type": "multiagent_20261001", "advisor": {"type": "enabled"}}}, "advisor.model"),
        (
            {"multiagent": {"type": "multiagent_20261001", "subagents": {"type": "enabled", "inline_agents": {}}}},
            "inline_agents.type",
        ),
        ({"execution_identity": {"type": "root"}}, "execution_identity.type"),
    ],
)
def test_what_is_wrong_is_refused_where_it_stands(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named) as caught:
        create(**asked)
    assert not isinstance(caught.value, NotSupported)


@pytest.mark.parametrize(
    "domain",
    [
        "https://example.org", "example.org:443", "*.example.org", "127.0.0.1", "0x7f.1", "1.2", "::1", "com", "co.uk",
        "localhost", "a.localhost", "printer.local", "x.internal", "user@example.org", "a b.org", "-a.org", "a-.org",
        "ex\u00e4mple.org", "", "x" * 250 + ".example", "example.org//", "example.org/a?b", "example..org", 5,
    ],
)  # fmt: skip
def test_a_domain_that_is_no_public_name_is_refused_by_its_place_in_the_list(domain: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"allowed_domains\.1"):
        create(tools=[builtin(configs=[{"name": "web_search", "allowed_domains": ["example.org", domain]}])])


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"allowed_domains": ["a.org"], "blocked_domains": ["b.org"]}, "Only one of allowed_domains or"),
        ({"allowed_domains": []}, "allowed_domains: Empty list of domains is ambiguous"),
        ({"allowed_domains": ["a.org", "A.org/"]}, "there twice"),
        ({"allowed_domains": [f"a{n}.org" for n in range(65)]}, "at most 64"),
        ({"allowed_domains": ["a.org/path"]}, "such a path"),
        ({"max_content_tokens": 0}, "max_content_tokens"),
        ({"user_location": {"type": "approximate"}}, "user_location is unknown"),
    ],
)
def test_settings_of_web_fetch_that_contradict_are_refused(config: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        create(tools=[builtin(configs=[{"name": "web_fetch", **config}])])


@pytest.mark.parametrize(
    "place",
    [{"type": "exact"}, {"type": "approximate", "country": "Germany"}, {"type": "approximate", "timezone": "here now"}],
)
def test_a_place_that_is_none_is_refused(place: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="user_location"):
        create(tools=[builtin(configs=[{"name": "web_search", "user_location": place}])])
