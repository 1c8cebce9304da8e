"""What a client may send into a session, and what is refused with which words."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from server.errors import InvalidRequest, NotSupported, Refused
from server.sessions.inputs import Uploaded, file_ids, read, read_initial
from server.sessions.state import OpenCall, QueuedInput, SessionState
from tests.support.factories import THREAD, check_event

ASKS = OpenCall("sevt_a", "bash", {}, True, awaits="confirmation")
OUTSIDE = OpenCall("sevt_o", "lookup", {}, True, awaits="result")
RUNNING = SessionState(status="running", calls=(OpenCall("sevt_r", "bash", {}, True),))
PARKED = SessionState(calls=(ASKS, OUTSIDE), stop_reason={"type": "requires_action", "event_ids": ["a", "o"]})
STOPPING = replace(PARKED, queue=(QueuedInput("sevt_i", "user.interrupt", 9),))
PIXEL = base64.b64encode(b"\x89PNG").decode()


def message(*content: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "user.message", "content": list(content) or [{"type": "text", "text": "hi"}]}


ALLOW = {"type": "user.tool_confirmation", "tool_use_id": "sevt_a", "result": "allow"}
DENY = {**ALLOW, "result": "deny", "deny_message": "No."}
GIVEN = {"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_o", "content": [{"type": "text", "text": "x"}]}
INTERRUPT = {"type": "user.interrupt"}
FOUND = {
    "type": "search_result",
    "source": "https://example.org",
    "title": "Example",
    "content": [{"type": "text", "text": "x"}],
    "citations": {"enabled": True},
}
GOOD: dict[str, tuple[SessionState, list[dict[str, Any]]]] = {
    "a message": (SessionState(), [message()]),
    "several": (SessionState(), [message(), message()]),
    "an image": (SessionState(), [message({"type": "image", "source": {
        "type": "base64", "media_type": "image/png", "data": PIXEL}})]),
    "a picture's address": (SessionState(), [message({"type": "image", "source": {
        "type": "url", "url": "https://example.org/a.png"}})]),
    "a document": (SessionState(), [message({"type": "document", "title": "t", "context": "c", "source": {
        "type": "text", "media_type": "text/plain", "data": "x"}})]),
    "a message while it works": (RUNNING, [message()]),
    "an interrupt": (RUNNING, [INTERRUPT]),
    "an interrupt that names the thread": (RUNNING, [{**INTERRUPT, "session_thread_id": THREAD}]),
    "an interrupt of a parked turn, and a message": (PARKED, [INTERRUPT, message()]),
    "a permission": (PARKED, [ALLOW]),
    "a permission with the thread echoed": (PARKED, [{**ALLOW, "session_thread_id": THREAD}]),
    "a denial": (PARKED, [DENY]),
    "a client's result": (PARKED, [GIVEN]),
    "a result without content": (PARKED, [{k: v for k, v in GIVEN.items() if k != "content"}]),
    "a search result": (PARKED, [{**GIVEN, "content": [FOUND]}]),
    "all answers and what follows them": (PARKED, [ALLOW, GIVEN, message()]),
    "a message after an interrupt that is still to be taken": (STOPPING, [message()]),
    "an answer before the turn is parked": (replace(PARKED, status="running"), [ALLOW]),
}  # fmt: skip


@pytest.mark.parametrize(("state", "asked"), GOOD.values(), ids=GOOD.keys())
def test_what_the_wire_allows_is_taken_and_echoed_as_the_sdk_expects(
    state: SessionState, asked: list[dict[str, Any]]
) -> None:
    taken = read(asked, state, THREAD)
    assert [event.type for event in taken] == [event["type"] for event in asked]
    for event in taken:
        assert event.public is not None
        check_event(event.public)


BAD: dict[str, tuple[SessionState, Any, type[Exception], str]] = {
    "no list": (SessionState(), {"type": "user.message"}, InvalidRequest, "events: must be a list"),
    "nothing": (SessionState(), [], InvalidRequest, "at least one"),
    "too many": (SessionState(), [message()] * 101, InvalidRequest, "at most 100"),
    "no object": (SessionState(), ["hi"], InvalidRequest, "events.0.type"),
    "an unknown type": (SessionState(), [message(), {"type": "user.shout"}], InvalidRequest, "events.1.type"),
    "a type that is no text": (SessionState(), [{"type": ["x"]}], InvalidRequest, "events.0.type"),
    "an agent's event": (SessionState(), [{"type": "agent.message"}], InvalidRequest, "events.0.type"),
    "an unknown field": (SessionState(), [{**message(), "mood": 1}], InvalidRequest, "events.0.mood"),
    "an outcome": (SessionState(), [{"type": "user.define_outcome"}], NotSupported, "outcomes"),
    "no content": (SessionState(), [{"type": "user.message"}], InvalidRequest, "content"),
    "empty content": (SessionState(), [{"type": "user.message", "content": []}], InvalidRequest, "at least one block"),
    "text as content": (SessionState(), [{"type": "user.message", "content": "hi"}], InvalidRequest, "list of content"),
    "a blank text": (SessionState(), [message({"type": "text", "text": " \n"})], InvalidRequest, "not blank"),
    "a redacted block": (SessionState(), [message({"type": "redacted"})], InvalidRequest, "content.0.type"),
    "a search result in a message": (SessionState(), [message(FOUND)], InvalidRequest, "content.0.type"),
    "an image of another kind": (SessionState(), [message({"type": "image", "source": {
        "type": "base64", "media_type": "image/tiff", "data": PIXEL}})], InvalidRequest, "media_type"),
    "base64 that is none": (SessionState(), [message({"type": "image", "source": {
        "type": "base64", "media_type": "image/png", "data": "§"}})], InvalidRequest, "base64"),
    "a large image": (SessionState(), [message({"type": "image", "source": {
        "type": "base64", "media_type": "image/png", "data": "A" * (7 << 20)}})], InvalidRequest, "at most 5 MiB"),
    "a file's address": (SessionState(), [message({"type": "image", "source": {
        "type": "url", "url": "file:///etc/passwd"}})], InvalidRequest, "http or https"),
    "a file that is not there": (SessionState(), [message({"type": "image", "source": {
        "type": "file", "file_id": "file_x"}})], InvalidRequest, "no file 'file_x'"),
    "another thread": (RUNNING, [{**INTERRUPT, "session_thread_id": "sthr_other"}], InvalidRequest, "no thread"),
    "a message while answers are due": (PARKED, [message()], Refused, r"sevt_a \(allow or deny\), sevt_o"),
    "too many that wait": (
        SessionState(queue=tuple(QueuedInput(f"m{n}", "user.message", n) for n in range(1_000))),
        [message()], Refused, "1000 messages wait",
    ),
    "too much that waits": (
        SessionState(queue=(QueuedInput("m", "user.message", 1, size=(64 << 20) - 3),)),
        [message(), message()], Refused, r"events\.1: .*more than 64 MiB",
    ),
    "a message when only some are given": (PARKED, [ALLOW, message()], Refused, "waits for answers"),
    "a permission nobody asked for": (RUNNING, [{**ALLOW, "tool_use_id": "sevt_r"}], Refused, "is not waiting"),
    "a permission for nothing": (PARKED, [{**ALLOW, "tool_use_id": "sevt_z"}], Refused, "not an open call"),
    "a permission for a client's tool": (PARKED, [{**ALLOW, "tool_use_id": "sevt_o"}], Refused, "is not waiting"),
    "a result for an own tool": (PARKED, [{**GIVEN, "custom_tool_use_id": "sevt_a"}], Refused, "is not waiting"),
    "an answer after an interrupt": (STOPPING, [ALLOW], Refused, "is not waiting"),
    "twice": (PARKED, [ALLOW, ALLOW], Refused, "events.1.tool_use_id"),
    "neither yes nor no": (PARKED, [{**ALLOW, "result": "maybe"}], InvalidRequest, "allow or deny"),
    "a reason to allow": (PARKED, [{**ALLOW, "deny_message": "x"}], InvalidRequest, "deny only"),
    "an error that is text": (PARKED, [{**GIVEN, "is_error": "no"}], InvalidRequest, "true or false"),
}  # fmt: skip


@pytest.mark.parametrize(("state", "asked", "error", "words"), BAD.values(), ids=BAD.keys())
def test_what_it_forbids_is_refused_by_the_place_where_it_stands(
    state: SessionState, asked: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as refused:
        read(asked, state, THREAD)
    assert type(refused.value) is error


def test_a_session_begins_with_messages_only() -> None:
    assert [event.type for event in read_initial([message(), message()], THREAD)] == ["user.message"] * 2
    assert read_initial([], THREAD) == []
    for asked, words in (([INTERRUPT], "initial_events.0.type"), ([message()] * 51, "at most 50"), ("x", "a list")):
        with pytest.raises(InvalidRequest, match=words):
            read_initial(asked, THREAD)


def test_the_model_gets_the_file_and_clients_its_id() -> None:
    image = {"type": "image", "source": {"type": "file", "file_id": "file_i"}}
    notes = {"type": "document", "source": {"type": "file", "file_id": "file_n"}}
    asked = [message(image, notes, {"type": "text", "text": "hi"}), message(image)]
    assert file_ids(asked) == ["file_i", "file_n"]
    uploads = {"file_i": Uploaded("image/png", b"\x89PNG"), "file_n": Uploaded("text/markdown; charset=utf-8", b"# n")}
    first, _ = read(asked, SessionState(), THREAD, uploads)
    assert first.public is not None and first.private is not None
    assert first.public["content"] == asked[0]["content"]
    check_event(first.public)
    assert [block.get("source", {}).get("data") for block in first.private["content"]] == [PIXEL, "# n", None]


def test_a_file_that_does_not_fit_its_block_is_refused_by_its_kind() -> None:
    image = {"type": "image", "source": {"type": "file", "file_id": "file_i"}}
    with pytest.raises(InvalidRequest, match="the file is text/csv"):
        read([message(image)], SessionState(), THREAD, {"file_i": Uploaded("text/csv", b"a,b")})


@pytest.mark.parametrize("asked", [[1, None, {"content": 5}, {"content": [3, {"source": 7}]}], [{}]])
def test_the_search_for_files_passes_over_what_is_malformed(asked: list[Any]) -> None:
    assert file_ids(asked) == []
