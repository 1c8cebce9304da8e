"""Environments over REST: made, read, changed in part, listed, archived, deleted; with both official clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types.beta import BetaEnvironment, BetaEnvironmentDeleteResponse

from tests.support.judged import judged, refused
from tests.support.scenario import MODEL
from tests.support.served import Site

NOTHING: Any = {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[anthropic.Anthropic]:
    with site.client() as opened:
        yield opened


def create(client: anthropic.Anthropic, **asked: Any) -> BetaEnvironment:
    return client.beta.environments.create(**{"name": "e", **asked})


def body(environment: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(environment.to_json())
    return loaded


def limited(**networking: Any) -> Any:
    return {"type": "cloud", "networking": {"type": "limited", **networking}}


def judge(raw: dict[str, Any]) -> BetaEnvironment:
    """By the SDK's type; Skiff's own key is the one thing that the SDK does not know."""
    read: BetaEnvironment = judged(BetaEnvironment, {key: value for key, value in raw.items() if key != "skiff"})
    return read


# --- made and read ---------------------------------------------------------------------------------------------------


def test_an_environment_reads_back_fully_resolved(site: Site) -> None:
    asked = {
        "name": "place",
        "description": "d",
        "metadata": {"team": "a"},
        "config": {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["API.example.org"]}},
    }
    with site.http() as http:
        made = http.post("/v1/environments", json=asked)
        assert made.status_code == 200, made.text
        environment = judge(made.json())
        assert http.get(f"/v1/environments/{environment.id}").json() == made.json()
    config: Any = environment.config
    assert config.networking.to_dict() == {
        "type": "limited",
        "allowed_hosts": ["API.example.org"],
        "allow_mcp_servers": False,
        "allow_package_managers": False,
    }
    assert config.packages.to_dict() == {"type": "packages", **NOTHING}
    assert (environment.description, environment.metadata, environment.scope) == ("d", {"team": "a"}, "organization")


def test_a_name_alone_is_an_open_environment(client: anthropic.Anthropic) -> None:
    assert body(create(client))["config"]["networking"] == {"type": "unrestricted"}


def test_packages_are_taken_as_names_with_versions(client: anthropic.Anthropic) -> None:
    packages: Any = {"type": "packages", "pip": ["numpy==2.4.6"], "apt": ["tree"], "cargo": []}
    made = create(client, config={"type": "cloud", "packages": packages})
    assert body(made)["config"]["packages"] == {
        "type": "packages",
        **NOTHING,
        "pip": ["numpy==2.4.6"],
        "apt": ["tree"],
    }


def test_skiffs_own_additions_are_taken_under_their_key_and_read_back_there(client: anthropic.Anthropic) -> None:
    own = {"image": "data", "cpu": 0.5, "memory_mb": 512}
    made = create(client, extra_body={"skiff": own})
    assert body(made)["skiff"] == own
    changed = client.beta.environments.update(made.id, extra_body={"skiff": {"cpu": 1}})
    assert body(changed)["skiff"] == {**own, "cpu": 1}


def test_the_asynchronous_client_makes_changes_lists_and_ends_an_environment(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_client() as client:
            environments = client.beta.environments
            made = await environments.create(name="e")
            assert (await environments.update(made.id, name="f")).name == "f"
            assert (await environments.retrieve(made.id)).name == "f"
            assert made.id in [each.id async for each in environments.list(limit=1)]
            assert (await environments.archive(made.id)).archived_at is not None
            assert (await environments.delete(made.id)).id == made.id

    asyncio.run(scenario())


# --- changed ---------------------------------------------------------------------------------------------------------


def test_an_update_keeps_what_it_does_not_name_at_every_depth(client: anthropic.Anthropic) -> None:
    made = create(
        client, description="d", metadata={"a": "1", "b": "2", "c": "3"}, config=limited(allowed_hosts=["a.org"])
    )
    changed = client.beta.environments.update(
        made.id, config=limited(allow_mcp_servers=True), metadata={"a": None, "b": ""}, description=None
    )
    config = body(changed)["config"]
    assert (config["networking"]["allowed_hosts"], config["networking"]["allow_mcp_servers"]) == (["a.org"], True)
    assert (changed.metadata, changed.description, changed.name) == ({"c": "3"}, None, "e")
    assert client.beta.environments.update(made.id, description="").description == ""
    opened = client.beta.environments.update(made.id, config={"type": "cloud", "networking": {"type": "unrestricted"}})
    assert body(opened)["config"]["networking"] == {"type": "unrestricted"}


def test_an_update_that_changes_nothing_leaves_the_time_of_the_last_change(client: anthropic.Anthropic) -> None:
    made = create(client)
    assert client.beta.environments.update(made.id, name="e").updated_at == made.updated_at


# --- listed ----------------------------------------------------------------------------------------------------------


def test_environments_are_listed_newest_first_beyond_the_first_page(site: Site, client: anthropic.Anthropic) -> None:
    made = [create(client, name=f"n{number}").id for number in range(5)]
    listed = [environment.id for environment in client.beta.environments.list(limit=2)]
    assert listed[:5] == made[::-1]
    assert len(listed) == len(set(listed))
    with site.http() as http:
        page = http.get("/v1/environments?limit=3").json()
    assert set(page) == {"data", "next_page"}
    for each in page["data"]:
        judge(each)
    refused(400, lambda: client.beta.environments.list(page="nothing"), "invalid page cursor")


def test_archived_environments_are_listed_only_when_asked_for(client: anthropic.Anthropic) -> None:
    gone = create(client)
    archived = client.beta.environments.archive(gone.id)
    assert client.beta.environments.archive(gone.id).archived_at == archived.archived_at
    assert gone.id not in [each.id for each in client.beta.environments.list()]
    assert gone.id in [each.id for each in client.beta.environments.list(include_archived=True)]


# --- ended -----------------------------------------------------------------------------------------------------------


def test_an_archived_environment_takes_no_update_and_no_session(client: anthropic.Anthropic) -> None:
    made = create(client)
    client.beta.environments.archive(made.id)
    error = refused(400, lambda: client.beta.environments.update(made.id, name="f"))
    assert error["details"]["error_code"] == "environment_archived"
    agent = client.beta.agents.create(name="a", model=MODEL)
    refused(
        400,
        lambda: client.beta.sessions.create(agent=agent.id, environment_id=made.id),
        f"Environment {made.id} is archived.",
    )


def test_a_deleted_environment_is_gone_and_its_sessions_are_not(site: Site, client: anthropic.Anthropic) -> None:
    made = create(client, config=limited())
    agent = client.beta.agents.create(name="a", model=MODEL)
    session = client.beta.sessions.create(agent=agent.id, environment_id=made.id)
    with site.http() as http:
        answer = http.delete(f"/v1/environments/{made.id}")
    assert judged(BetaEnvironmentDeleteResponse, answer.text).id == made.id
    error = refused(404, lambda: client.beta.environments.retrieve(made.id), made.id, kind="not_found_error")
    assert error["details"]["error_code"] == "environment_not_found"
    assert client.beta.sessions.retrieve(session.id).environment_id == made.id


# --- refused ---------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_not_found_with_the_wires_code(client: anthropic.Anthropic) -> None:
    environments = client.beta.environments
    for act in (
        lambda: environments.retrieve("env_none"),
        lambda: environments.update("env_none", name="f"),
        lambda: environments.archive("env_none"),
        lambda: environments.delete("env_none"),
    ):
        error = refused(404, act, "env_none", kind="not_found_error")
        assert error["details"]["error_code"] == "environment_not_found"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"config": {"type": "self_hosted"}}, "self_hosted"),
        ({"config": {"type": "cloud", "packages": {"type": "packages", "cargo": ["x"]}}}, "packages.cargo"),
        ({"config": {"type": "cloud", "packages": {"type": "packages", "pip": ["--pre"]}}}, "'--pre'"),
        ({"config": limited(allowed_hosts=["https://a.org"])}, "allowed_hosts"),
        ({"config": limited(allow_package_managers=True)}, "allow_package_managers"),
        ({"config": {**limited(), "packages": {"type": "packages", "pip": ["x"]}}}, "allow_package_managers"),
        ({"scope": "account"}, "scope"),
        ({"extra_body": {"skiff": {"idle_seconds": 5}}}, "skiff.idle_seconds"),
        ({"extra_body": {"skiff": {"image": "evil"}}}, "skiff.image"),
        ({"extra_body": {"surprise": 1}}, "surprise"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client: anthropic.Anthropic, asked: dict[str, Any], words: str) -> None:
    refused(400, lambda: create(client, **asked), words)


def test_bad_metadata_is_refused_with_the_wires_code(client: anthropic.Anthropic) -> None:
    error = refused(400, lambda: create(client, metadata={str(n): "v" for n in range(17)}), "16")
    assert error["details"]["error_code"] == "invalid_metadata"
