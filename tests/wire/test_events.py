"""Events over REST: sent and listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types.beta.sessions import BetaManagedAgentsSendSessionEvents, BetaManagedAgentsSessionEvent

from server.ids import new_id
from tests.support.cast import TOOLSET, Cast, message, text_of, told
from tests.support.judged import judged, refused
from tests.support.scenario import bash, call
from tests.support.served import Site, served


@pytest.fixture(scope="module")
def cast(site: Site) -> Iterator[Cast]:
    with site.client() as client:
        yield Cast(client, tools=[TOOLSET])


# --- sent ------------------------------------------------------------------------------------------------------------


def test_a_sent_event_comes_back_with_an_id_and_is_not_processed_yet(site: Site, cast: Cast) -> None:
    made = cast.session()
    with site.http() as http:
        answer = http.post(f"/v1/sessions/{made.id}/events", json={"events": [message("a"), message("b")]})
    sent = judged(BetaManagedAgentsSendSessionEvents, answer.text)
    assert [text_of(event) for event in sent.data] == ["a", "b"]
    assert [event.processed_at for event in sent.data] == [None, None]
    cast.until(made.id, "session.status_idle")
    listed = {event.id: event for event in cast.events.list(made.id)}
    assert all(listed[event.id].processed_at is not None for event in sent.data)


def test_one_bad_event_refuses_the_whole_request(cast: Cast) -> None:
    made = cast.session()
    bad: Any = {"type": "user.message", "content": [{"type": "redacted"}]}
    refused(400, lambda: cast.events.send(made.id, events=[message("a"), bad]), "events.1")
    assert list(cast.events.list(made.id)) == []


@pytest.mark.parametrize(
    ("event", "word"),
    [
        ({"type": "user.message", "content": []}, "content"),
        ({"type": "user.message", "content": [{"type": "text", "text": " "}]}, "text"),
        ({"type": "user.sing"}, "type"),
        ({"type": "user.tool_confirmation", "tool_use_id": "sevt_none", "result": "allow"}, "tool_use_id"),
        ({"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_none"}, "custom_tool_use_id"),
        ({"type": "user.interrupt", "session_thread_id": "sthr_none"}, "session_thread_id"),
        ({"type": "user.tool_result", "tool_use_id": "sevt_none"}, "self-hosted"),
        ({"type": "system.message", "content": [{"type": "text", "text": "x"}]}, "system messages"),
        ({"type": "user.define_outcome", "description": "d"}, "outcomes"),
    ],
)
def test_what_is_wrong_with_an_event_is_said(cast: Cast, event: Any, word: str) -> None:
    made = cast.session()
    refused(400, lambda: cast.events.send(made.id, events=[event]), "events.0", word)


def test_a_request_without_events_or_with_more_than_events_is_refused(site: Site, cast: Cast) -> None:
    made = cast.session()
    wrongs: list[Any] = [[], 5, "now", {}, None]
    with site.http() as http:
        for wrong in wrongs:
            answer = http.post(f"/v1/sessions/{made.id}/events", json={"events": wrong})
            assert (answer.status_code, answer.json()["error"]["message"][:6]) == (400, "events")
    refused(400, lambda: cast.events.send(made.id, events=[message("a")], extra_body={"wait": True}), "wait")
    refused(404, lambda: cast.events.send("sesn_none", events=[message("a")]), kind="not_found_error")


def test_sent_twice_under_one_key_an_event_is_there_once(cast: Cast) -> None:
    made = cast.session()
    key = {"Idempotency-Key": new_id("key")}
    first = cast.events.send(made.id, events=[message("once")], extra_headers=key)
    cast.until(made.id, "session.status_idle")
    again = cast.events.send(made.id, events=[message("once")], extra_headers=key)
    assert [event.id for event in again.data] == [event.id for event in first.data]
    assert len(list(cast.events.list(made.id, types=["user.message"]))) == 1
    refused(409, lambda: cast.events.send(made.id, events=[message("other")], extra_headers=key), "key", retry="false")


def test_an_interrupt_ends_what_runs_and_the_session_goes_on_afterwards(cast: Cast) -> None:
    made = cast.session({"hang": True, "say": "never"})
    cast.until(made.id, "span.model_request_start")
    shown = cast.turn(made.id, {"type": "user.interrupt"})
    assert shown[-1].stop_reason.type == "end_turn"
    assert "user.interrupt" in [event.type for event in shown]
    assert cast.turn(made.id, told({"say": "again"}))[-1].stop_reason.type == "end_turn"


# --- listed ----------------------------------------------------------------------------------------------------------


def test_every_listed_event_is_as_the_sdk_has_it(site: Site, cast: Cast) -> None:
    made = cast.rested({"think": "hm", "say": "I look.", **call(bash("echo there"))}, {"say": "$RESULT"})
    with site.http() as http:
        body = http.get(f"/v1/sessions/{made.id}/events").json()
    assert set(body) == {"data", "next_page"}
    events = [judged(BetaManagedAgentsSessionEvent, item) for item in body["data"]]
    types = [event.type for event in events]
    assert types[0] == "session.status_running"
    assert types[-3:] == ["session.thread_status_idle", "session.usage", "session.status_idle"]
    assert {"agent.thinking", "agent.message", "agent.tool_use", "agent.tool_result"} <= set(types)
    (result,) = [event for event in events if event.type == "agent.tool_result"]
    (use,) = [event for event in events if event.type == "agent.tool_use"]
    assert (result.tool_use_id, text_of(result).strip()) == (use.id, "there")


def test_events_are_listed_from_page_to_page_in_either_order(cast: Cast) -> None:
    made = cast.rested()
    whole = [event.id for event in cast.events.list(made.id).data]
    assert len(whole) > 6
    assert [event.id for event in cast.events.list(made.id, limit=2)] == whole, "the SDK pages on by itself"
    assert [event.id for event in cast.events.list(made.id, limit=3, order="desc")] == whole[::-1]


def test_events_are_chosen_by_type_and_by_the_time_of_their_processing(cast: Cast) -> None:
    made = cast.rested()
    whole = cast.events.list(made.id).data
    kinds = ["agent.message", "user.message"]
    assert {event.type for event in cast.events.list(made.id, types=kinds)} == set(kinds)
    assert list(cast.events.list(made.id, types=["workflow_run.error"])) == []
    middle = whole[len(whole) // 2].processed_at
    early = [event.id for event in cast.events.list(made.id, created_at_lt=middle)]
    late = [event.id for event in cast.events.list(made.id, created_at_gte=middle, limit=2)]
    assert early + late == [event.id for event in whole]


def test_what_still_waits_is_listed_last_and_within_no_time(cast: Cast) -> None:
    made = cast.session({"hang": True, "say": "never"})
    cast.until(made.id, "span.model_request_start")
    cast.events.send(made.id, events=[message("later")])
    last = cast.events.list(made.id).data[-1]
    assert (last.type, last.processed_at) == ("user.message", None)
    dated = cast.events.list(made.id, created_at_gt="2020-01-01T00:00:00Z", types=["user.message"])
    assert last.id not in [event.id for event in dated]
    cast.turn(made.id, {"type": "user.interrupt"})


def test_a_wrong_filter_is_refused_by_name(cast: Cast) -> None:
    made = cast.rested()
    listing: Any = cast.events.list
    refused(400, lambda: listing(made.id, types=["session.deleted"]), "types[]")
    refused(400, lambda: listing(made.id, order="up"), "order")
    refused(400, lambda: listing(made.id, limit=1001), "limit")
    refused(400, lambda: listing(made.id, page="nonsense"), "invalid page cursor")
    page = listing(made.id, limit=1).next_page
    refused(400, lambda: listing(made.id, page=page, order="desc"), "page token order does not match request")
    other = cast.rested()
    refused(400, lambda: listing(other.id, page=page), "invalid page cursor")
    refused(404, lambda: listing("sesn_none"), kind="not_found_error")


# --- calls that somebody outside answers -----------------------------------------------------------------------------

WEATHER: Any = {
    "type": "custom",
    "name": "weather",
    "description": "The weather of a place.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}
ASKING: Any = {
    "type": "agent_toolset_20260401",
    "default_config": {"enabled": False},
    "configs": [{"name": "bash", "enabled": True, "permission_policy": {"type": "always_ask"}}],
}


def test_a_custom_tool_is_answered_by_the_client_and_the_turn_goes_on(cast: Cast) -> None:
    own = Cast(cast.client, tools=[WEATHER])
    made = own.session({"call": [{"tool": "weather", "input": {"place": "Kiel"}}]}, {"say": "It is $RESULT."})
    idle = own.until(made.id, "session.status_idle")[-1]
    (use,) = own.events.list(made.id, types=["agent.custom_tool_use"])
    assert (use.name, use.input) == ("weather", {"place": "Kiel"})
    assert idle.stop_reason.model_dump() == {"type": "requires_action", "event_ids": [use.id]}
    assert own.client.beta.sessions.retrieve(made.id).status == "idle"
    refused(400, lambda: own.events.send(made.id, events=[message("never mind")]), "waits")
    answer: Any = {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": use.id,
        "content": [{"type": "text", "text": "windy"}],
    }
    shown = own.turn(made.id, answer)
    assert [text_of(event) for event in shown if event.type == "agent.message"] == ["It is windy."]
    assert shown[-1].stop_reason.type == "end_turn"
    (given,) = own.events.list(made.id, types=["user.custom_tool_result"])
    assert given.processed_at is not None
    refused(400, lambda: own.events.send(made.id, events=[answer]), "custom_tool_use_id")


def test_an_answer_that_is_sent_again_under_its_key_is_taken_once(cast: Cast) -> None:
    own = Cast(cast.client, tools=[WEATHER])
    made = own.session({"call": [{"tool": "weather", "input": {}}]}, {"say": "It is $RESULT."})
    idle = own.until(made.id, "session.status_idle")[-1]
    answer: Any = {"type": "user.custom_tool_result", "custom_tool_use_id": idle.stop_reason.event_ids[0]}
    key = {"Idempotency-Key": new_id("key")}
    first = own.events.send(made.id, events=[answer], extra_headers=key)
    assert first.data[0].processed_at is not None
    assert own.events.send(made.id, events=[answer], extra_headers=key).data[0].id == first.data[0].id
    assert len(list(own.events.list(made.id, types=["user.custom_tool_result"]))) == 1


@pytest.mark.parametrize(("word", "heard"), [("allow", "done"), ("deny", "denied")])
def test_a_call_that_asks_first_runs_or_not_as_somebody_says(cast: Cast, word: str, heard: str) -> None:
    own = Cast(cast.client, tools=[ASKING])
    made = own.session(call(bash("echo done")), {"say": "$RESULT"})
    idle = own.until(made.id, "session.status_idle")[-1]
    (use,) = own.events.list(made.id, types=["agent.tool_use"])
    assert (use.evaluated_permission, idle.stop_reason.event_ids) == ("ask", [use.id])
    shown = own.turn(made.id, {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": word})
    (reply,) = [text_of(event) for event in shown if event.type == "agent.message"]
    assert heard in reply
    for event in own.events.list(made.id):
        judged(BetaManagedAgentsSessionEvent, event.to_json())


def test_what_waits_for_an_answer_survives_a_restart() -> None:
    with served() as site:
        with site.client() as client:
            own = Cast(client, tools=[WEATHER])
            made = own.session({"call": [{"tool": "weather", "input": {}}]}, {"say": "It is $RESULT."})
            idle = own.until(made.id, "session.status_idle")[-1]
        site.kill()
        site.restart()
        with site.client() as own.client:
            answer: Any = {
                "type": "user.custom_tool_result",
                "custom_tool_use_id": idle.stop_reason.event_ids[0],
                "content": [{"type": "text", "text": "calm"}],
            }
            shown = own.turn(made.id, answer)
            assert [text_of(event) for event in shown if event.type == "agent.message"] == ["It is calm."]
            own.client.beta.sessions.delete(made.id)
