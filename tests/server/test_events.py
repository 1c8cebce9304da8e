"""Every event that can be made, and the logs of whole sessions, before the official SDK's types."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from server import events
from server.errors import ModelError, ModelOverloaded, ModelRateLimited, ModelRefusedRequest, ModelUnavailable
from server.events import NewEvent
from server.providers import ModelUsage
from server.sessions.answer import wire_usage
from server.sessions.money.usage import session_usage
from server.sessions.state import SessionState, Usage
from tests.support.factories import THREAD, check_event, do_task, running_app, script

USAGE = session_usage(SessionState(usage=Usage(1, 2, 3, 4, 5, 6, 7, "0.125")))
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}
REFUSAL = {"type": "refusal", "category": "cyber", "explanation": "No."}

MADE: dict[str, Sequence[NewEvent]] = {
    "message": [events.user_message(THREAD, [events.text("hi")])],
    "interrupt": [events.user_interrupt(THREAD)],
    "started": events.turn_started(THREAD, "agent"),
    "rescheduled": events.turn_rescheduled(THREAD, "agent"),
    "ended": events.turn_ended(THREAD, "agent", {"type": "end_turn"}, USAGE),
    "given up": events.turn_ended(THREAD, "agent", {"type": "retries_exhausted"}, USAGE),
    "refused": events.turn_ended(THREAD, "agent", {"type": "refusal"}, USAGE, REFUSAL),
    "refused without words": events.turn_ended(
        THREAD, "agent", {"type": "refusal"}, USAGE, {"type": "refusal", "category": None, "explanation": None}
    ),
    "no price": events.turn_ended(
        THREAD, "agent", {"type": "end_turn"}, session_usage(SessionState(usage=Usage(cost_usd=None)))
    ),
    "terminated": events.terminated(THREAD, "agent"),
    "request": [events.model_request_start(THREAD)],
    "answered": [
        events.model_request_end(THREAD, "sevt_1", wire_usage(ModelUsage()), is_error=False, raw={"content": []})
    ],
    "failed": [events.model_request_end(THREAD, "sevt_1", wire_usage(ModelUsage(1, 2, 3, 4, 5)), is_error=True)],
    "summary asked for": [events.model_request_start(THREAD, events.COMPACTION)],
    "compacted": [events.context_compacted(THREAD, {"head": {}, "kept": 1})],
    "said": [events.agent_message(THREAD, "hello"), events.agent_message(THREAD, "hello", "sevt_given")],
    "thought": [events.agent_thinking(THREAD), events.agent_thinking(THREAD, "sevt_given")],
    "called": [events.tool_use(THREAD, "bash", {"command": "ls"}, permission="allow", private={"note": "x"})],
    "asked about": [events.tool_use(THREAD, "bash", {"command": "ls"}, permission="ask")],
    "a client's tool": [events.custom_tool_use(THREAD, "lookup", {"key": "x"}, private={"note": "x"})],
    "allowed": [events.tool_confirmation(THREAD, "sevt_1", allow=True)],
    "denied": [events.tool_confirmation(THREAD, "sevt_1", allow=False, deny_message="Not today.")],
    "a client's result": [
        events.custom_tool_result(THREAD, "sevt_1", [events.text("x")], is_error=False, given=[events.text("y")])
    ],
    "parked": events.turn_ended(THREAD, "agent", {"type": "requires_action", "event_ids": ["sevt_1"]}, USAGE),
    "not offered": [events.tool_use(THREAD, "nothing", {}, permission="deny")],
    "result": [events.tool_result(THREAD, "sevt_1", [events.text("x")], is_error=False)],
    "error result": [events.tool_result(THREAD, "sevt_1", [events.text("x")], is_error=True)],
    "picture": [events.tool_result(THREAD, "sevt_1", [IMAGE, PDF], is_error=False)],
    **{
        f"{retry} {kind}": [events.session_error(THREAD, kind, "it failed", retry)]
        for retry in ("retrying", "exhausted", "terminal")
        for kind in (
            ModelError.error_type,
            ModelOverloaded.error_type,
            ModelUnavailable.error_type,
            ModelRateLimited.error_type,
            ModelRefusedRequest.error_type,
            "billing_error",
            "compaction_limit_reached_error",
        )
    },
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE.keys())
def test_every_event_is_what_the_sdk_expects(made: Sequence[NewEvent]) -> None:
    for event in made:
        assert event.public is not None
        assert (event.public["id"], event.public["type"]) == (event.id, event.type)
        check_event(event.public)


def test_the_judge_refuses_unknown_fields_wrong_types_and_missing_fields() -> None:
    good = dict(MADE["said"][0].public or {})
    for bad in ({**good, "extra": 1}, {**good, "content": [{"type": "text", "text": "x", "more": 1}]}):
        with pytest.raises(AssertionError):
            check_event(bad)
    for bad in ({**good, "content": "x"}, {k: v for k, v in good.items() if k != "processed_at"}):
        with pytest.raises(ValidationError):
            check_event(bad)


CLEARED = events.results_cleared(THREAD, keep=3, says="[{size}]", freed=1, tool=None)


@pytest.mark.parametrize("event", [events.delivered(THREAD, ["a"]), events.dispatched(THREAD, "a", "life"), CLEARED])
def test_private_facts_have_no_public_part(event: NewEvent) -> None:
    assert event.public is None
    assert event.private


def test_what_only_the_engine_reads_is_in_no_public_part() -> None:
    made = events.tool_use(THREAD, "bash", {}, permission="allow", private={"note": "secret"})
    assert "secret" not in str(made.public)


def test_inputs_wait_with_processed_at_null() -> None:
    for made in (MADE["message"][0], MADE["interrupt"][0]):
        assert made.public is not None
        assert made.public["processed_at"] is None


# --- whole sessions --------------------------------------------------------------------------------------------------

OVERLOADED = {"status": 529, "type": "overloaded_error", "retry_after": 0}
SCENARIOS: dict[str, tuple[dict[str, Any], ...]] = {
    "a plain answer": ({"think": "Hm.", "say": "Hello."},),
    "a tool that is not there": (
        {"say": "I try.", "call": [{"tool": "bash", "input": {}, "force": True}]},
        {"say": "Ok"},
    ),
    "garbled input": ({"garbled": "{nope"}, {"say": "Ok."}),
    "an overloaded model": ({"fail": OVERLOADED}, {"say": "At last."}),
    "a request that is refused": ({"fail": {"status": 400, "type": "invalid_request_error"}},),
    "no credit": ({"fail": {"status": 402, "type": "billing_error"}},),
    "a refusal": ({"say": "I will not.", "stop": "refusal"},),
    "an answer cut off": ({"say": "On and on", "stop": "max_tokens"},),
}


@pytest.mark.parametrize("steps", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_a_sessions_whole_log_is_what_the_sdk_expects_in_the_order_of_the_wire(
    steps: tuple[dict[str, Any], ...], tmp_path: Path
) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with running_app(tmp_path) as app:
            view = await do_task(app, script(*steps))
            await app.service.send_message(view.id, script({"say": "Again."}))
            (view,) = await app.service.wait([view.id], "all", 20)
            assert view.settled
            return [dict(body) for _, body in await app.service.transcript(view.id)]

    listed = asyncio.run(scenario())
    for body in listed:
        check_event(body)
    times = [body["processed_at"] for body in listed]
    assert None not in times
    assert times == sorted(times)
    _check_order([body["type"] for body in listed])
    _check_pairs(listed)


def _check_order(types: list[str]) -> None:
    kinds = Counter(types)
    assert kinds["session.status_idle"] == 2
    assert kinds["session.thread_status_idle"] == kinds["session.usage"] == 2
    for at in [n for n, kind in enumerate(types) if kind == "session.status_idle"]:
        assert types[at - 2 : at + 1] == ["session.thread_status_idle", "session.usage", "session.status_idle"]
    for first, second in itertools.pairwise(n for n, kind in enumerate(types) if kind == "session.status_running"):
        between = types[first:second]
        assert "session.status_idle" in between or "session.status_rescheduled" in between
    assert types[0] == "session.status_running"
    assert types[1] == "session.thread_status_running"
    assert types[-1] == "session.status_idle"


def _check_pairs(listed: list[dict[str, Any]]) -> None:
    starts = [body["id"] for body in listed if body["type"] == "span.model_request_start"]
    ends = [body["model_request_start_id"] for body in listed if body["type"] == "span.model_request_end"]
    assert starts == ends
    calls = [body["id"] for body in listed if body["type"] == "agent.tool_use"]
    results = [body["tool_use_id"] for body in listed if body["type"] == "agent.tool_result"]
    assert calls == results


def test_an_interrupted_session_logs_the_interrupt_before_its_idle_events(tmp_path: Path) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with running_app(tmp_path) as app:
            from server.sessions.service import NewSession

            made = await app.service.create_session(NewSession(task=script({"hang": True}), agent={"tools": []}))
            async for event in app.service.follow(made.id):
                if getattr(event, "type", "") == "span.model_request_start":
                    break
            view = await app.service.interrupt(made.id)
            assert view.settled
            return [dict(body) for _, body in await app.service.transcript(view.id)]

    listed = asyncio.run(scenario())
    for body in listed:
        check_event(body)
    assert [body["type"] for body in listed][-5:] == [
        "span.model_request_end",
        "user.interrupt",
        "session.thread_status_idle",
        "session.usage",
        "session.status_idle",
    ]
    assert listed[-1]["stop_reason"] == {"type": "end_turn"}
    _check_pairs(listed)
