"""Sessions over REST: made, read, listed, changed, ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types.beta import BetaManagedAgentsDeletedSession, BetaManagedAgentsSession

from server.ids import new_id
from tests.support.cast import ENDS, TOOLSET, Cast, message, told
from tests.support.judged import judged, refused
from tests.support.served import Site

HANGS = {"hang": True, "say": "…"}


@pytest.fixture(scope="module")
def cast(site: Site) -> Iterator[Cast]:
    with site.client() as client:
        yield Cast(client)


def stop(cast: Cast, session_id: str) -> None:
    """Interrupt a session and wait for its rest."""
    cast.events.send(session_id, events=[{"type": "user.interrupt"}])
    cast.until(session_id, "session.status_idle")


# --- made and read ---------------------------------------------------------------------------------------------------


def test_a_new_session_is_idle_whole_and_made_of_its_agent(site: Site, cast: Cast) -> None:
    asked = {"agent": cast.agent.id, "environment_id": cast.environment.id, "title": "t", "metadata": {"a": "b"}}
    with site.http() as http:
        made = http.post("/v1/sessions", json=asked)
        assert made.status_code == 200, made.text
        session = judged(BetaManagedAgentsSession, made.text)
        assert judged(BetaManagedAgentsSession, http.get(f"/v1/sessions/{session.id}").text).id == session.id
    assert (session.status, session.title, session.metadata) == ("idle", "t", {"a": "b"})
    assert (session.vault_ids, session.resources, session.outcome_evaluations) == ([], [], [])
    assert (session.agent.id, session.agent.version, session.agent.name) == (cast.agent.id, 1, "helper")
    assert session.environment_id == cast.environment.id
    assert (session.budget, session.deployment_id, session.archived_at) == (None, None, None)


def test_the_usage_of_a_new_session_is_zero_and_not_null(cast: Cast) -> None:
    usage = cast.session().usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (0, 0, 0)
    assert usage.list_cost is not None
    assert (usage.list_cost.amount, usage.list_cost.currency) == ("0", "USD")
    assert usage.active_seconds == 0
    assert usage.server_tool_use is not None
    assert usage.server_tool_use.web_search_requests == 0


def test_a_session_with_initial_events_is_created_running_and_does_them(cast: Cast) -> None:
    made = cast.session({"say": "I did."})
    assert made.status == "running"
    shown = cast.until(made.id, *ENDS)
    assert [event.type for event in shown if event.type == "agent.message"] == ["agent.message"]
    session = cast.client.beta.sessions.retrieve(made.id)
    assert session.status == "idle"
    ends = [event for event in shown if event.type == "span.model_request_end"]
    assert session.usage.output_tokens == sum(event.model_usage.output_tokens for event in ends) > 0
    assert session.stats.active_seconds is not None
    assert session.stats.duration_seconds is not None
    assert 0 < session.stats.active_seconds <= session.stats.duration_seconds


def test_one_bad_initial_event_makes_no_session(cast: Cast) -> None:
    title = new_id("t")
    bad = {"type": "user.interrupt"}
    refused(400, lambda: cast.session(title=title, initial_events=[message("a"), bad]), "initial_events.1")
    assert title not in [session.title for session in cast.client.beta.sessions.list(limit=100)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vault_ids", ["vlt_1"]),
        ("resources", [{"type": "memory_store", "memory_store_id": "memstore_1"}]),
        (
            "initial_events",
            [{"type": "user.define_outcome", "description": "d", "rubric": {"type": "text", "content": "r"}}],
        ),
    ],
)
def test_what_the_engine_cannot_do_is_refused_by_name(cast: Cast, field: str, value: Any) -> None:
    refused(400, lambda: cast.session(**{field: value}), field, "supported")


def test_an_unknown_agent_environment_or_session_is_not_found(cast: Cast) -> None:
    sessions = cast.client.beta.sessions
    refused(404, lambda: cast.session(agent="agent_none"), kind="not_found_error")
    refused(404, lambda: cast.session(environment_id="env_none"), kind="not_found_error")
    refused(404, lambda: sessions.retrieve("sesn_none"), "sesn_none", kind="not_found_error")
    refused(404, lambda: sessions.update("sesn_none", title="t"), kind="not_found_error")
    refused(404, lambda: sessions.archive("sesn_none"), kind="not_found_error")
    refused(404, lambda: sessions.delete("sesn_none"), kind="not_found_error")


def test_asked_twice_under_one_key_one_session_is_made(cast: Cast) -> None:
    key = {"Idempotency-Key": new_id("key")}
    first = cast.session(extra_headers=key)
    assert cast.session(extra_headers=key).id == first.id
    refused(409, lambda: cast.session(title="another", extra_headers=key), retry="false")


# --- listed ----------------------------------------------------------------------------------------------------------


def test_sessions_are_listed_newest_first_and_the_pages_lead_on_and_back(cast: Cast) -> None:
    own = Cast(cast.client)
    made = [own.session().id for _ in range(5)]
    listed = own.client.beta.sessions.list(agent_id=own.agent.id, limit=2)
    assert [session.id for session in listed] == made[::-1], "the SDK pages on by itself"
    first = own.client.beta.sessions.list(agent_id=own.agent.id, limit=2)
    assert first.prev_page is None
    second = own.client.beta.sessions.list(agent_id=own.agent.id, limit=2, page=first.next_page or "")
    third = own.client.beta.sessions.list(agent_id=own.agent.id, limit=2, page=second.next_page or "")
    assert ([s.id for s in third.data], third.next_page) == ([made[0]], None)
    back = own.client.beta.sessions.list(agent_id=own.agent.id, limit=2, page=third.prev_page or "")
    assert [s.id for s in back.data] == [s.id for s in second.data]
    assert [s.id for s in own.client.beta.sessions.list(agent_id=own.agent.id, order="asc")] == made


def test_a_page_of_sessions_is_as_the_sdk_has_it(site: Site, cast: Cast) -> None:
    cast.rested()
    with site.http() as http:
        body = http.get("/v1/sessions", params={"agent_id": cast.agent.id}).json()
    assert set(body) == {"data", "next_page", "prev_page"}
    for item in body["data"]:
        judged(BetaManagedAgentsSession, item)


def test_filters_choose_by_agent_status_time_and_archive(cast: Cast) -> None:
    own = Cast(cast.client)
    sessions = own.client.beta.sessions
    rests, works, gone = own.rested(), own.session(HANGS), own.rested()
    sessions.archive(gone.id)

    def chosen(**asked: Any) -> set[str]:
        return {session.id for session in sessions.list(agent_id=own.agent.id, **asked)}

    assert chosen() == {rests.id, works.id}
    assert chosen(include_archived=True) == {rests.id, works.id, gone.id}
    assert chosen(statuses=["running"]) == {works.id}
    assert chosen(statuses=["idle", "running"]) == {rests.id, works.id}
    assert chosen(statuses=["terminated"], include_archived=True) == {gone.id}
    assert chosen(agent_version=1) == {rests.id, works.id}
    assert chosen(agent_version=2) == set()
    assert chosen(created_at_gt=rests.created_at) == {works.id}
    assert chosen(created_at_lte=rests.created_at) == {rests.id}
    assert chosen(deployment_id="depl_1") == set()
    assert chosen(memory_store_id="memstore_1") == set()
    stop(own, works.id)


def test_a_wrong_filter_or_page_is_refused_by_name(cast: Cast) -> None:
    sessions = cast.client.beta.sessions
    listing: Any = sessions.list
    refused(400, lambda: listing(statuses=["asleep"]), "statuses[]")
    refused(400, lambda: listing(agent_version=1), "agent_version", "agent_id")
    refused(400, lambda: listing(limit=0), "limit")
    refused(400, lambda: listing(order="up"), "order")
    refused(400, lambda: listing(page="nonsense"), "invalid page cursor")
    refused(400, lambda: listing(created_at_gt="yesterday"), "created_at[gt]")
    cast.session(), cast.session()
    page = sessions.list(limit=1).next_page
    refused(400, lambda: listing(page=page, order="asc"), "page token order does not match request")
    refused(400, lambda: listing(page=page, created_at_lt="2020-01-01T00:00:00Z"), "created_at")


# --- changed ---------------------------------------------------------------------------------------------------------


def test_an_update_changes_what_it_names_and_tells_of_that_alone(cast: Cast) -> None:
    made = cast.session(title="before", metadata={"kept": "1", "gone": "2"})
    changed = cast.client.beta.sessions.update(made.id, title="after", metadata={"gone": None, "new": "3"})
    assert (changed.title, changed.metadata) == ("after", {"kept": "1", "new": "3"})
    (event,) = cast.events.list(made.id, types=["session.updated"])
    assert event.model_dump(exclude_unset=True, exclude={"id", "processed_at"}) == {
        "type": "session.updated",
        "title": "after",
        "metadata": {"kept": "1", "new": "3"},
    }
    assert changed.updated_at > made.updated_at


def test_an_update_that_changes_nothing_tells_nothing(cast: Cast) -> None:
    made = cast.session(title="t", metadata={"a": "1"})
    sessions = cast.client.beta.sessions
    sessions.update(made.id)
    sessions.update(made.id, title="t", metadata={"a": "1", "b": None})
    sessions.update(made.id, agent={"tools": [], "mcp_servers": []})
    assert list(cast.events.list(made.id)) == []


def test_metadata_that_was_emptied_is_told_of_without_a_bag(cast: Cast) -> None:
    made = cast.session(metadata={"a": "1"})
    assert cast.client.beta.sessions.update(made.id, metadata={"a": None}).metadata == {}
    (event,) = cast.events.list(made.id)
    assert event.to_dict().keys() == {"id", "type", "processed_at"}


def test_new_tools_are_the_agents_from_the_next_turn_on(site: Site, cast: Cast) -> None:
    made = cast.rested()
    tool: Any = {"type": "custom", "name": "weather", "description": "d", "input_schema": {"type": "object"}}
    changed = cast.client.beta.sessions.update(made.id, agent={"tools": [tool]})
    assert [each.type for each in changed.agent.tools] == ["custom"]
    assert (changed.agent.id, changed.agent.version) == (made.agent.id, made.agent.version)
    (event,) = cast.events.list(made.id, types=["session.updated"])
    assert event.agent is not None
    assert event.agent.tools[0].name == "weather"
    said = new_id("t")
    cast.turn(made.id, message(said))
    (body,) = [body for body in site.api.bodies if said in json.dumps(body)]
    assert [each["name"] for each in body["tools"]] == ["weather"]


def test_tools_cannot_change_while_the_session_runs_but_its_title_can(cast: Cast) -> None:
    made = cast.session(HANGS)
    sessions = cast.client.beta.sessions
    refused(400, lambda: sessions.update(made.id, agent={"tools": []}), "running")
    assert sessions.update(made.id, title="new").title == "new"
    stop(cast, made.id)
    tools: Any = [TOOLSET]
    assert sessions.update(made.id, agent={"tools": tools}).agent.tools[0].type == TOOLSET["type"]


def test_vaults_cannot_be_given_later(cast: Cast) -> None:
    made = cast.session()
    refused(400, lambda: cast.client.beta.sessions.update(made.id, vault_ids=["vlt_1"]), "vault_ids")


# --- ended -----------------------------------------------------------------------------------------------------------


def test_an_archived_session_can_be_read_and_takes_nothing_new(cast: Cast) -> None:
    made = cast.rested()
    sessions = cast.client.beta.sessions
    ended = sessions.archive(made.id)
    assert ended.status == "terminated"
    assert ended.archived_at is not None
    types = [event.type for event in cast.events.list(made.id)]
    assert types[-2:] == ["session.thread_status_terminated", "session.status_terminated"]
    assert sessions.archive(made.id).archived_at == ended.archived_at
    refused(409, lambda: cast.events.send(made.id, events=[message("more")]), "archived", retry="false")
    refused(400, lambda: sessions.update(made.id, title="t"), "archived")
    assert sessions.retrieve(made.id).stats.duration_seconds == ended.stats.duration_seconds


def test_a_running_session_is_neither_archived_nor_deleted(cast: Cast) -> None:
    made = cast.session(HANGS)
    sessions = cast.client.beta.sessions
    refused(400, lambda: sessions.archive(made.id), "Cannot archive session while it is running.")
    refused(
        400,
        lambda: sessions.delete(made.id),
        "Cannot delete session while it is running. Send an interrupt event or wait for the session to complete.",
    )
    stop(cast, made.id)
    assert sessions.delete(made.id).type == "session_deleted"


def test_a_deleted_session_is_gone(site: Site, cast: Cast) -> None:
    made = cast.rested()
    with site.http() as http:
        body = http.delete(f"/v1/sessions/{made.id}").text
        assert judged(BetaManagedAgentsDeletedSession, body).id == made.id
    refused(404, lambda: cast.client.beta.sessions.retrieve(made.id), kind="not_found_error")
    assert made.id not in [session.id for session in cast.client.beta.sessions.list(include_archived=True)]


def test_a_message_to_an_idle_session_is_a_running_turn_at_once(cast: Cast) -> None:
    made = cast.rested()
    cast.events.send(made.id, events=[told(HANGS)])
    assert cast.client.beta.sessions.retrieve(made.id).status == "running"
    stop(cast, made.id)
