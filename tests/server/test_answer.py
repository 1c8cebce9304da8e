"""What a model's answer means for the log."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from server.providers import ModelResponse
from server.sessions.answer import CUT_OFF, INVALID, Answer, read_answer
from tests.support.factories import THREAD, call, check_event, response, say


def read(found: ModelResponse, cost: Decimal | None = None) -> Answer:
    return read_answer(
        THREAD,
        "sevt_start",
        found,
        permission=lambda name: "allow" if name == "bash" else "deny",
        event_id=lambda n: f"sevt_{n}",
        cost=cost,
    )


def shapes(answer: Answer) -> list[str]:
    for event in answer.events:
        check_event(event.public or {})
    return [event.type for event in answer.events]


def raw(answer: Answer) -> dict[str, Any]:
    return dict(answer.events[-1].private or {})


def test_blocks_become_events_in_their_order_under_the_ids_of_their_deltas_and_the_end_comes_last() -> None:
    thought = {"type": "thinking", "thinking": "x", "signature": "y"}
    found = read(response(thought, say("I look."), call("toolu_1"), stop="tool_use"))
    assert shapes(found) == ["agent.thinking", "agent.message", "agent.tool_use", "span.model_request_end"]
    assert [event.id for event in found.events[:2]] == ["sevt_0", "sevt_1"]
    assert raw(found)["calls"] == {found.calls[0].id: "toolu_1"}
    assert "toolu_1" not in str([event.public for event in found.events])


def test_blank_texts_are_dropped_because_the_api_refuses_to_see_them_again() -> None:
    found = read(response(say(""), say(" \n"), say("x")))
    assert shapes(found) == ["agent.message", "span.model_request_end"]
    assert found.events[0].id == "sevt_2"
    assert raw(found)["content"] == [say("x")]


def test_the_calls_of_a_refused_answer_are_dropped() -> None:
    found = read(response(say("no"), call("toolu_1"), stop="refusal", stop_details={"category": "cyber"}))
    assert shapes(found) == ["agent.message", "span.model_request_end"]
    assert (found.calls, raw(found)["stop_details"]) == ([], {"category": "cyber"})


def test_only_the_last_call_of_an_answer_that_was_cut_off_is_not_run() -> None:
    found = read(response(call("toolu_1"), call("toolu_2"), stop="max_tokens"))
    assert [known.private for known in found.calls] == [None, {"note": CUT_OFF}]


def test_a_call_with_garbled_input_is_not_run() -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {}}
    found = read(response(say(""), block, stop="tool_use", invalid_tool_inputs={1: "{nope"}))
    assert [known.private for known in found.calls] == [{"note": INVALID}]


def test_a_call_of_a_tool_that_the_session_lacks_is_denied() -> None:
    (known,) = read(response(call("toolu_1", "rm"), stop="tool_use")).calls
    assert (known.public or {})["evaluated_permission"] == "deny"


def test_the_providers_own_tools_are_logged_with_their_results_and_are_nobodys_calls() -> None:
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    good = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"title": "T", "url": "u"}]}
    bad = {**good, "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}}
    for result, is_error, words in ((good, False, '"T"'), (bad, True, "max_uses_exceeded")):
        found = read(response(use, result, say("so")))
        assert shapes(found) == ["agent.tool_use", "agent.tool_result", "agent.message", "span.model_request_end"]
        body = found.events[1].public or {}
        assert (body["tool_use_id"], body["is_error"]) == (found.events[0].id, is_error)
        assert words in str(body["content"])
        assert found.calls == []
        assert raw(found)["content"] == [use, result, say("so")]


def test_blocks_without_an_event_stay_in_the_raw_content() -> None:
    block = {"type": "compaction", "content": "x"}
    found = read(response(block))
    assert shapes(found) == ["span.model_request_end"]
    assert raw(found)["content"] == [block]


def test_cost_is_kept_exactly_or_as_unknown() -> None:
    assert raw(read(response(say("x")), Decimal("0.000001")))["cost_usd"] == "0.000001"
    assert raw(read(response(say("x"))))["cost_usd"] is None
