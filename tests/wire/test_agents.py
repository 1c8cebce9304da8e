"""Agents over REST: made, read in any version, changed under a version, listed, archived; with both clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsAgent

from tests.support.judged import judged, refused
from tests.support.scenario import MODEL
from tests.support.served import Site

CLAUDE = "claude-opus-5-5"
TOOLSET = "agent_toolset_20260401"
OWN: Any = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks up.",
    "input_schema": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
}


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[anthropic.Anthropic]:
    with site.client() as opened:
        yield opened


def create(client: anthropic.Anthropic, **asked: Any) -> BetaManagedAgentsAgent:
    return client.beta.agents.create(**{"name": "a", "model": CLAUDE, **asked})


def body(agent: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(agent.to_json())
    return loaded


# --- made and read ---------------------------------------------------------------------------------------------------


def test_an_agent_reads_back_fully_resolved(site: Site) -> None:
    asked = {
        "name": "helper",
        "model": {"id": CLAUDE, "effort": "low"},
        "system": "Be brief.",
        "description": "Helps.",
        "metadata": {"team": "a"},
        "tools": [
            {
                "type": TOOLSET,
                "configs": [
                    {"name": "bash", "permission_policy": {"type": "always_ask"}},
                    {"name": "web_search", "allowed_domains": ["example.org"]},
                    {"name": "web_fetch", "max_content_tokens": 1000, "blocked_domains": ["example.com"]},
                ],
            },
            OWN,
        ],
    }
    with site.http() as http:
        made = http.post("/v1/agents", json=asked)
        assert made.status_code == 200, made.text
        agent = judged(BetaManagedAgentsAgent, made.text)
        assert http.get(f"/v1/agents/{agent.id}").json() == made.json()
    assert (agent.name, agent.version, agent.system, agent.archived_at) == ("helper", 1, "Be brief.", None)
    assert (agent.model.effort.type, agent.model.speed, agent.model.inference_geo) == ("low", "standard", None)
    assert agent.execution_identity.type == "service_account"
    builtin, own = agent.tools
    assert (builtin.default_config.enabled, builtin.default_config.permission_policy.type) == (True, "always_allow")
    assert [config.permission_policy.type for config in builtin.configs] == [
        "always_ask",
        "always_allow",
        "always_allow",
    ]
    assert [config.type for config in builtin.configs] == ["bash", "web_search", "web_fetch"]
    assert (builtin.configs[1].allowed_domains, builtin.configs[2].max_content_tokens) == (["example.org"], 1000)
    assert own.input_schema.required == ["key"]


def test_an_agent_of_a_name_and_a_model_alone_has_every_other_field_empty(client: anthropic.Anthropic) -> None:
    agent = create(client)
    assert (agent.tools, agent.skills, agent.mcp_servers, agent.metadata) == ([], [], [], {})
    assert (agent.system, agent.description, agent.multiagent) == (None, None, None)
    assert agent.model.effort is not None
    assert agent.model.effort.type == "high"


def test_the_whole_toolset_reads_back_as_on_the_hosted_service(client: anthropic.Anthropic) -> None:
    (tool,) = body(create(client, tools=[{"type": TOOLSET}]))["tools"]
    assert tool == {
        "type": TOOLSET,
        "default_config": {"enabled": True, "permission_policy": {"type": "always_allow"}},
        "configs": [],
    }


def test_skiffs_own_addition_is_taken_under_its_key_and_read_back_there(client: anthropic.Anthropic) -> None:
    agent = create(client, extra_body={"skiff": {"max_tokens": 500}})
    assert body(agent)["skiff"] == {"max_tokens": 500}


def test_the_asynchronous_client_makes_changes_and_reads_an_agent(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_client() as client:
            agents = client.beta.agents
            made = await agents.create(name="a", model=CLAUDE)
            changed = await agents.update(made.id, version=1, name="b")
            assert (changed.name, changed.version) == ("b", 2)
            assert (await agents.retrieve(made.id, version=1)).name == "a"
            assert [agent.version async for agent in agents.versions.list(made.id, limit=1)] == [2, 1]
            assert (await agents.archive(made.id)).archived_at is not None

    asyncio.run(scenario())


# --- versions --------------------------------------------------------------------------------------------------------


def test_every_change_makes_a_version_that_stays_readable(client: anthropic.Anthropic) -> None:
    agent = create(client, system="one", metadata={"a": "1", "b": "2"})
    client.beta.agents.update(agent.id, version=1, system="two", metadata={"a": None, "c": "3"})
    newest = client.beta.agents.update(agent.id, system=None)
    assert (newest.version, newest.system, newest.metadata) == (3, None, {"b": "2", "c": "3"})
    assert [client.beta.agents.retrieve(agent.id, version=n).system for n in (1, 2, 3)] == ["one", "two", None]
    assert client.beta.agents.retrieve(agent.id).version == 3
    assert newest.created_at == agent.created_at


def test_an_update_that_changes_nothing_makes_no_version(client: anthropic.Anthropic) -> None:
    tools: Any = [{"type": TOOLSET}]
    agent = create(client, system="one", tools=tools)
    same = client.beta.agents.update(agent.id, version=1, system="one", tools=tools, metadata={"x": None})
    assert body(same) == body(agent)


def test_a_stale_version_is_a_conflict_that_is_not_tried_again_and_burns_no_number(client: anthropic.Anthropic) -> None:
    agent = create(client)
    client.beta.agents.update(agent.id, version=1, name="b")
    refused(
        409,
        lambda: client.beta.agents.update(agent.id, version=1, name="c"),
        "Concurrent modification detected. Please fetch the latest version and retry.",
        retry="false",
    )
    assert client.beta.agents.update(agent.id, version=2, name="c").version == 3


def test_of_many_who_update_one_version_at_once_one_wins(site: Site) -> None:
    async def scenario() -> list[Any]:
        async with site.async_client() as client:
            made = await client.beta.agents.create(name="a", model=CLAUDE)
            tries = [client.beta.agents.update(made.id, version=1, name=f"n{n}") for n in range(8)]
            found = await asyncio.gather(*tries, return_exceptions=True)
            assert (await client.beta.agents.retrieve(made.id)).version == 2
            return found

    found = asyncio.run(scenario())
    lost = [each for each in found if isinstance(each, anthropic.ConflictError)]
    assert len(lost) == 7


def test_versions_are_listed_newest_first_beyond_the_first_page(site: Site, client: anthropic.Anthropic) -> None:
    agent = create(client)
    for number in range(2, 6):
        client.beta.agents.update(agent.id, name=f"n{number}")
    listed = list(client.beta.agents.versions.list(agent.id, limit=2))
    assert [each.version for each in listed] == [5, 4, 3, 2, 1]
    with site.http() as http:
        page = http.get(f"/v1/agents/{agent.id}/versions?limit=2").json()
    assert set(page) == {"data", "next_page"}
    for each in page["data"]:
        judged(BetaManagedAgentsAgent, each)


# --- listed ----------------------------------------------------------------------------------------------------------


def test_agents_are_listed_newest_first_beyond_the_first_page(client: anthropic.Anthropic) -> None:
    made = [create(client, name=f"n{number}") for number in range(5)]
    listed = list(client.beta.agents.list(limit=2, created_at_gte=made[0].created_at))
    assert [agent.id for agent in listed] == [agent.id for agent in reversed(made)]
    until = client.beta.agents.list(created_at_gte=made[0].created_at, created_at_lte=made[2].created_at)
    assert [agent.id for agent in until] == [agent.id for agent in reversed(made[:3])]


def test_archived_agents_are_listed_only_when_asked_for(client: anthropic.Anthropic) -> None:
    kept, gone = create(client), create(client)
    client.beta.agents.archive(gone.id)
    since = kept.created_at
    assert [agent.id for agent in client.beta.agents.list(created_at_gte=since)] == [kept.id]
    both = client.beta.agents.list(created_at_gte=since, include_archived=True)
    assert [agent.id for agent in both] == [gone.id, kept.id]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/agents?limit=0", "limit"),
        ("/v1/agents?limit=101", "limit"),
        ("/v1/agents?page=nothing", "invalid page cursor"),
        ("/v1/agents?created_at[gte]=yesterday", "RFC 3339"),
        ("/v1/agents?surprise=1", "surprise"),
        ("/v1/agents?include_archived=perhaps", "include_archived"),
    ],
)
def test_a_bad_question_is_refused(site: Site, path: str, words: str) -> None:
    with site.http() as http:
        answer = http.get(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert words in answer.json()["error"]["message"]


# --- archived --------------------------------------------------------------------------------------------------------


def test_an_archived_agent_can_be_read_in_every_version_and_takes_nothing_new(client: anthropic.Anthropic) -> None:
    agent = create(client)
    client.beta.agents.update(agent.id, name="b")
    archived = client.beta.agents.archive(agent.id)
    assert archived.archived_at is not None
    assert client.beta.agents.archive(agent.id).archived_at == archived.archived_at
    assert client.beta.agents.retrieve(agent.id, version=1).archived_at == archived.archived_at
    assert len(list(client.beta.agents.versions.list(agent.id))) == 2
    refused(400, lambda: client.beta.agents.update(agent.id, name="c"), "Cannot modify archived agent")


def test_a_session_is_made_of_any_version_but_not_of_an_archived_agent(client: anthropic.Anthropic) -> None:
    agent = create(client, model=MODEL, system="one")
    client.beta.agents.update(agent.id, system="two")
    place = client.beta.environments.create(
        name="e", config={"type": "cloud", "networking": {"type": "limited", "allowed_hosts": []}}
    )

    def made(asked: Any) -> Any:
        return client.beta.sessions.create(agent=asked, environment_id=place.id).agent

    assert (made(agent.id).version, made(agent.id).system) == (2, "two")
    assert made({"type": "agent", "id": agent.id, "version": 1}).system == "one"
    own = made({"type": "agent_with_overrides", "id": agent.id, "version": 1, "system": None, "tools": [OWN]})
    assert (own.id, own.version, own.system, own.tools[0].name) == (agent.id, 1, None, "lookup")
    bad = {"type": "agent", "id": agent.id, "version": 999}
    refused(404, lambda: made(bad), "agent.version: 999 not found", kind="not_found_error")
    no_model = {"type": "agent_with_overrides", "id": agent.id, "model": None}
    assert refused(400, lambda: made(no_model))["details"]["error_code"] == "agent_model_required"
    client.beta.agents.archive(agent.id)
    refused(400, lambda: made(agent.id), "is archived")


# --- refused ---------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_not_found(client: anthropic.Anthropic) -> None:
    agents = client.beta.agents
    for act in (
        lambda: agents.retrieve("agent_none"),
        lambda: agents.update("agent_none", name="b"),
        lambda: agents.archive("agent_none"),
        lambda: list(agents.versions.list("agent_none")),
    ):
        refused(404, act, "agent_none", kind="not_found_error")
    agent = create(client)
    refused(404, lambda: agents.retrieve(agent.id, version=2), "Agent version not found.", kind="not_found_error")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"name": ""}, "name"),
        ({"model": {"id": CLAUDE, "speed": "fast"}}, "model.speed"),
        ({"tools": [{"type": TOOLSET, "default_config": {"permission_policy": {"type": "auto"}}}]}, "auto"),
        ({"tools": [{"type": TOOLSET, "configs": [{"name": "delete"}]}]}, "'delete'"),
        ({"tools": [OWN, OWN]}, "lookup"),
        ({"tools": [{**OWN, "name": "bash"}]}, "builtin"),
        ({"mcp_servers": [{"type": "url", "name": "x", "url": "https://x.example.org"}]}, 'server "x"'),
        ({"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}, "skills"),
        ({"multiagent": {"type": "coordinator", "agents": [{"type": "self"}]}}, "multiagent"),
        ({"execution_identity": {"type": "aws_role", "role_arn": "arn"}}, "aws_role"),
        ({"extra_body": {"surprise": 1}}, "surprise"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client: anthropic.Anthropic, asked: dict[str, Any], words: str) -> None:
    refused(400, lambda: create(client, **asked), words)
