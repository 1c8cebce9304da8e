"""The conversation as the model sees it: bytes that stay, results in order, steering after them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server import events
from server.providers.scripted.validation import refusal
from server.sessions.conversation.transcript import Transcript
from tests.support.drive import Driven, plain_blocks
from tests.support.factories import THREAD, LogBuilder, call, say


def sent(log: LogBuilder) -> list[dict[str, Any]]:
    messages = Transcript(log.events).messages()
    tools = [{"name": "bash", "description": "d", "input_schema": {"type": "object"}}]
    assert refusal({"model": "m", "max_tokens": 10, "messages": messages, "tools": tools}) is None
    return messages


def kinds(message: dict[str, Any]) -> list[str]:
    return [block["type"] for block in message["content"]]


def test_a_queued_message_is_not_seen_before_it_is_delivered() -> None:
    log = LogBuilder()
    first, second = log.message("first"), log.message("second")
    log.ask(first, turn=True)
    assert "second" not in json.dumps(sent(log))
    log.add(events.delivered(THREAD, [second]))
    assert [block["text"] for block in sent(log)[0]["content"]] == ["first", "second"]


def test_results_stand_in_the_order_of_the_calls_and_what_steers_after_them() -> None:
    log = LogBuilder()
    start = log.ask(log.message("hi"), turn=True)
    found = log.answer(start, call("toolu_1"), call("toolu_2"), call("toolu_3"), stop="tool_use")
    steering = log.message("faster")
    for known in reversed(found.calls):
        log.result(known.id, f"of {known.id}")
    log.ask(steering)
    last = sent(log)[-1]
    assert kinds(last) == ["tool_result", "tool_result", "tool_result", "text"]
    assert [block.get("tool_use_id") for block in last["content"][:3]] == ["toolu_1", "toolu_2", "toolu_3"]
    assert [block["content"][0]["text"] for block in last["content"][:3]] == [f"of {known.id}" for known in found.calls]


def test_a_failed_call_says_so_and_event_ids_stay_out_of_the_conversation() -> None:
    log = LogBuilder()
    found = log.answer(log.ask(log.message("hi"), turn=True), call("toolu_1"), stop="tool_use")
    log.result(found.calls[0].id, "no", is_error=True)
    messages = sent(log)
    assert messages[-1]["content"][0]["is_error"] is True
    assert "sevt_" not in json.dumps(messages)


def test_what_the_provider_said_comes_back_verbatim() -> None:
    log = LogBuilder()
    thought = {"type": "thinking", "thinking": "", "signature": "x"}
    said = {"type": "text", "text": "Hello ", "citations": None}
    log.answer(log.ask(log.message("hi"), turn=True), thought, said)
    assert Transcript(log.events).messages()[-1] == {"role": "assistant", "content": [thought, said]}


def test_a_request_that_failed_leaves_no_trace() -> None:
    session = Driven()
    session.append(events.user_message(THREAD, [events.text("hi")]))
    session.fail(session.begin_request(), retryable=True)
    before = session.sent[-1]
    session.begin_request()
    assert session.sent[-1] == before


def test_each_request_begins_with_the_bytes_of_the_one_before_over_many_rounds_and_crashes() -> None:
    session = Driven()
    for turn in range(3):
        session.append(events.user_message(THREAD, [events.text(f"turn {turn} ä😀")]))
        for step in range(3):
            session.answer(session.begin_request(), say(f"step {step}"), *session.calls_of(2), stop="tool_use")
            session.result(1)
            session.crash()
            session.result(0)
        session.settle()
    assert len(session.sent) == 12


def test_the_moving_end_and_the_end_before_it_carry_the_cache_marks_and_nothing_else_does() -> None:
    log = LogBuilder()
    for n in range(3):
        log.answer(log.ask(log.message(f"m{n}"), turn=n == 0), say("ok"))
    messages = sent(log)
    marked = [n for n, message in enumerate(messages) if "cache_control" in json.dumps(message)]
    assert marked == [2, 4]
    assert all("cache_control" in messages[n]["content"][-1] for n in marked)
    assert "cache_control" not in json.dumps(Transcript(log.events)._messages), "marks are only lent"


def test_marks_move_without_changing_what_was_said() -> None:
    log = LogBuilder()
    log.answer(log.ask(log.message("a"), turn=True), say("ok"))
    before = plain_blocks(sent(log))
    log.ask(log.message("b"))
    assert plain_blocks(sent(log))[: len(before)] == before


def test_a_paused_server_tool_is_gone_on_with_before_anything_else_is_delivered() -> None:
    session = Driven()
    session.append(events.user_message(THREAD, [events.text("hi")]))
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    session.answer(session.begin_request(), say("I search."), search, stop="pause_turn")
    session.append(events.user_message(THREAD, [events.text("meanwhile")]))
    session.begin_request()
    assert session.transcript.messages()[-1]["role"] == "assistant"


def test_the_model_hears_of_a_clients_tool_and_of_a_denial_in_the_order_of_its_calls() -> None:
    log = LogBuilder()
    start = log.ask(log.message("hi"), turn=True)
    found = log.answer(
        start, call("toolu_1", "bash"), call("toolu_2", "lookup"), stop="tool_use", asks=["bash"], custom=["lookup"]
    )
    asks, outside = (known.id for known in found.calls)
    shown, given = [{"type": "image", "source": {"type": "file", "file_id": "file_1"}}], [events.text("the file")]
    log.add(events.custom_tool_result(THREAD, outside, shown, is_error=False, given=given))
    log.add(events.custom_tool_result(THREAD, outside, [events.text("again")], is_error=False))
    log.result(asks, "Permission to use bash has been denied.", is_error=True)
    first, second = Transcript(log.events).messages()[-1]["content"]
    assert (first["tool_use_id"], first["is_error"]) == ("toolu_1", True)
    assert (second["tool_use_id"], second["content"], second.get("is_error")) == ("toolu_2", given, None)


def test_a_message_that_names_a_file_reaches_the_model_with_the_file() -> None:
    log = LogBuilder()
    message = events.user_message(THREAD, [{"type": "image"}], [events.text("what the file holds")])
    log.add(message)
    log.ask(message.id, turn=True)
    (only,) = Transcript(log.events).messages()
    assert only["content"][0]["text"] == "what the file holds"


@pytest.mark.parametrize("content", [[], [{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]])
def test_a_failure_without_text_or_with_more_than_text_is_said_in_words(content: list[Any]) -> None:
    """The API refuses `is_error` then, and would refuse the conversation for ever."""
    log = LogBuilder()
    start = log.ask(log.message("hi"), turn=True)
    found = log.answer(start, call("toolu_1", "lookup"), stop="tool_use", custom=["lookup"])
    log.add(events.custom_tool_result(THREAD, found.calls[0].id, content, is_error=True))
    result = sent(log)[-1]["content"][0]
    assert result["content"] == [events.text("The tool failed."), *content]
    assert ("is_error" in result) == (not content)
