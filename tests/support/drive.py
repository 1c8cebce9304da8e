"""A session driven without clock, network or sandbox: `decide` says what to do, chance says how it ends.

It appends what the loop appends, through the same constructors, and checks at every step what is always true of a log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from server import events
from server.events import COMPACTION, NewEvent, StoredEvent
from server.ids import now
from server.providers import Block, ModelUsage
from server.providers.scripted.thoughts import sign
from server.providers.scripted.validation import refusal
from server.sessions import inputs
from server.sessions.answer import wire_usage
from server.sessions.conversation.compacting import CLEARED
from server.sessions.conversation.compaction import cut, recent_rounds, without_thoughts
from server.sessions.conversation.context import KEEP, Window, estimate_all
from server.sessions.conversation.transcript import Transcript
from server.sessions.decide import (
    AskModel,
    CloseRequest,
    Interrupt,
    Limits,
    MakeRoom,
    Park,
    Rest,
    Resume,
    RunTools,
    Stop,
    Work,
    next_work,
)
from server.sessions.ending import turn_end
from server.sessions.fold import fold
from server.sessions.money.budget import Tariff
from server.sessions.state import SessionState, dump, load
from server.tools.recall import RECALL
from tests.support.factories import THREAD, LogBuilder, call, say

SMALL_WINDOW = 1_500
"""Tokens: a dozen messages, or three results that are large here."""
LIMITS = Limits(retries=2, requests_per_turn=5, tariff=Tariff(None, max_tokens=10, head=0))
ASKS, CUSTOM = "risky", "lookup"
"""The names of a tool that asks before it runs, and of one that the client runs."""


class Driven:
    """A session, its log, and the state and transcript that grow with it."""

    def __init__(self, window: int = 0) -> None:
        self.limits = replace(LIMITS, window=Window(window))
        self.log = LogBuilder()
        self.state = SessionState()
        self.transcript = Transcript()
        self.sent: list[list[tuple[str, str]]] = []
        self._asked = 0
        self._body: dict[str, Any] = {}

    @property
    def work(self) -> Work:
        return next_work(self.state, self.limits)

    def append(self, *new: NewEvent | Sequence[NewEvent]) -> list[StoredEvent]:
        stored = self.log.add(*new)
        self._take(stored)
        return stored

    def _take(self, stored: Sequence[StoredEvent]) -> None:
        self.state = fold(self.state, stored)
        for event in stored:
            self.transcript.apply(event)

    def crash(self) -> None:
        """Forget everything but the log; what comes back must be the same."""
        before, said = self.state, self.transcript.messages()
        self.state = fold(SessionState(), self.log.events)
        self.transcript = Transcript(self.log.events)
        assert self.state == before
        assert json.dumps(self.transcript.messages()) == json.dumps(said)
        assert load(json.loads(json.dumps(dump(before)))) == before

    # --- what clients do ---------------------------------------------------------------------------------------------

    def send(self, *asked: Mapping[str, Any]) -> None:
        """What a client sends, taken or refused as the doors do."""
        self.append(inputs.read(asked, self.state, THREAD))

    def bound(self, **bounds: Any) -> None:
        """The whole budget as it is from now on."""
        self.append(events.session_updated(THREAD, {}, None, bounds))

    def reply_to(self, call_id: str, *, well: bool = True) -> dict[str, Any]:
        """The answer that this call waits for: an allowance and a result, or a denial and a failure."""
        waits = {known.id: known.awaits for known in self.state.calls}[call_id]
        if waits == "confirmation":
            return {"type": "user.tool_confirmation", "tool_use_id": call_id, "result": "allow" if well else "deny"}
        assert waits == "result"
        said = [events.text("42")] if well else []
        return {
            "type": "user.custom_tool_result",
            "custom_tool_use_id": call_id,
            "content": said,
            "is_error": not well,
        }

    # --- what the loop does ------------------------------------------------------------------------------------------

    def close_request(self) -> None:
        assert isinstance(self.work, CloseRequest)
        self.append(self._failed(self.work.start_id))

    def interrupt(self) -> None:
        work = self.work
        assert isinstance(work, Interrupt)
        closed = [
            events.tool_result(THREAD, open_call.id, [events.text("interrupted")], is_error=True)
            for open_call in self.state.calls
        ]
        end = self._end({"type": "end_turn"}) if self.state.unfinished else []
        self.append(closed, events.delivered(THREAD, work.input_ids), end)

    def stop(self) -> None:
        work = self.work
        assert isinstance(work, Stop)
        self._stop(work)

    def _stop(self, work: Stop) -> None:
        begun = events.turn_started(THREAD, "agent") if work.full and self.state.status == "idle" else []
        given = [events.delivered(THREAD, work.deliver)] if work.deliver else []
        self.append(begun, given, self._end({"type": work.reason}))

    def park(self) -> None:
        work = self.work
        assert isinstance(work, Park)
        self.append(self._end({"type": "requires_action", "event_ids": list(work.awaited)}))

    def resume(self) -> None:
        assert isinstance(self.work, Resume)
        turns = self.state.turns
        self.append(events.turn_started(THREAD, "agent"))
        assert self.state.turns == turns, "a turn that goes on is the same one"

    def begin_request(self) -> str:
        work = self.work
        assert isinstance(work, AskModel)
        if self.state.status == "idle":
            assert work.attempt == 0, "a new turn does not wait for the failures of another"
        start = events.model_request_start(THREAD)
        self.append(
            events.turn_started(THREAD, "agent") if self.state.status != "running" else [],
            [events.delivered(THREAD, work.deliver)] if work.deliver else [],
            start,
        )
        assert work.deliver or self.state.turn_requests <= LIMITS.requests_per_turn, "past the bound of a turn"
        self._check_request()
        return start.id

    def answer(self, start_id: str, *content: Block, stop: str) -> None:
        """The model thinks, and says this. What it thinks is bound to what it was asked."""
        builder = LogBuilder()
        thought = {"type": "thinking", "thinking": "Hm.", "signature": sign("Hm.", self._body)}
        usage = ModelUsage(estimate_all(self._body["messages"]), 5)
        said = [thought, *content]
        self.append(builder.answer(start_id, *said, stop=stop, asks=[ASKS], custom=[CUSTOM], usage=usage).events)

    def too_long(self, start_id: str) -> None:
        """The provider refuses the request as more than it can take in."""
        raw = {"too_long": True}
        self.append(events.model_request_end(THREAD, start_id, wire_usage(ModelUsage()), is_error=True, raw=raw))

    def make_room(self) -> None:
        """What the loop does where there is too little."""
        work = self.work
        assert isinstance(work, MakeRoom)
        if work.way != "compact":
            self.clear(KEEP if work.way == "clear" else 0)
        elif not self.compact(self.limits.window.tokens // 10, follows=bool(work.deliver)):
            self._stop(Stop("retries_exhausted", work.deliver, full=True))

    def clear(self, keep: int) -> None:
        """Clear the results of all but so many rounds."""
        self.sent.clear()
        freed = self.state.context.old
        self.append(events.results_cleared(THREAD, keep=keep, says=CLEARED, freed=freed, tool=RECALL.definition()))

    def compact(self, most: int, *, follows: bool) -> bool:
        """Let a summary stand for all but the newest messages; False when there is nothing that it could stand for."""
        said = self.transcript.said
        at = cut(said, most, 3 * most, follows=follows)
        if not at:
            return False
        self.sent.clear()
        head = {"role": "user", "content": [events.text("In short.")]}
        kept = without_thoughts(said[at:])
        compacted = {
            "head": head,
            "kept": len(said) - at,
            "then": "Go on." if self.state.owed else None,
            "after": estimate_all([head, *kept]),
            "rounds": recent_rounds(kept),
            "betas": [],
            "tool": RECALL.definition(),
        }
        raw = {"purpose": COMPACTION, "usage": {}, "cost_usd": "0", "model": "m"}
        start = events.model_request_start(THREAD, COMPACTION)
        end = events.model_request_end(THREAD, start.id, wire_usage(ModelUsage()), is_error=False, raw=raw)
        begun = events.turn_started(THREAD, "agent") if self.state.status != "running" else []
        self.append(begun, start, end, events.context_compacted(THREAD, compacted))
        return True

    def fail(self, start_id: str, *, retryable: bool) -> None:
        again = retryable and self.state.failures + 1 <= LIMITS.retries
        error = events.session_error(THREAD, "model_overloaded_error", "x", "retrying" if again else "exhausted")
        self.append(self._failed(start_id), error, events.turn_rescheduled(THREAD, "agent") if again else [])

    def calls_of(self, count: int) -> list[dict[str, Any]]:
        """So many calls of a tool that may run at once."""
        return self.calls_to(["bash"] * count)

    def calls_to(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Calls of these tools, with model ids that were never used before."""
        self._asked += len(names)
        return [call(f"toolu_{self._asked - n}", name) for n, name in enumerate(names)]

    def result(self, at: int, characters: int = 0) -> None:
        work = self.work
        assert isinstance(work, RunTools)
        answered = work.calls[at % len(work.calls)]
        assert not answered.awaits, "nothing runs before it is allowed"
        text = f"of {answered.id}" + "x" * characters
        self.append(events.tool_result(THREAD, answered.id, [events.text(text)], is_error=False))

    def settle(self) -> None:
        """Go on, with a model that says only `ok` and a client that answers what it is asked, until there is nothing
        to do. It must come to that."""
        for _ in range(40):
            match self.work:
                case Rest() if self.state.awaited:
                    self.send(self.reply_to(self.state.awaited[-1]))
                case Rest() if self.state.held:
                    self.bound()
                case Rest():
                    assert not self.state.queue
                    return
                case Park():
                    self.park()
                case Resume():
                    self.resume()
                case CloseRequest():
                    self.close_request()
                case Interrupt():
                    self.interrupt()
                case RunTools():
                    self.result(0)
                case Stop():
                    self.stop()
                case MakeRoom():
                    self.make_room()
                case AskModel():
                    self.answer(self.begin_request(), say("ok"), stop="end_turn")
            self.check()
        raise AssertionError(f"no end: {self.work}")

    def _failed(self, start_id: str) -> NewEvent:
        return events.model_request_end(THREAD, start_id, wire_usage(ModelUsage()), is_error=True)

    def _end(self, reason: Mapping[str, Any]) -> list[NewEvent]:
        return turn_end(self.state, THREAD, "agent", reason, now())

    # --- what is always true -----------------------------------------------------------------------------------------

    def check(self) -> None:
        open_request: str | None = None
        open_calls: dict[str, bool] = {}
        """Call to whether somebody outside has to answer it."""
        working, asked_for, held = False, list[str](), False
        for event in self.log.events:
            body = event.public or {}
            match event.type:
                case "span.model_request_start":
                    assert open_request is None, "two open requests"
                    assert not open_calls, "asked the model with a call unanswered"
                    assert working
                    open_request = event.id
                case "span.model_request_end":
                    assert body["model_request_start_id"] == open_request
                    open_request = None
                case "agent.tool_use":
                    open_calls[event.id] = body["evaluated_permission"] == "ask"
                case "agent.custom_tool_use":
                    open_calls[event.id] = not event.private
                case "agent.tool_result":
                    del open_calls[body["tool_use_id"]]  # raises for a second result
                case "user.custom_tool_result":
                    assert open_calls.pop(body["custom_tool_use_id"])
                case "user.tool_confirmation":
                    assert open_calls[body["tool_use_id"]], "a second word on a call"
                    open_calls[body["tool_use_id"]] = False
                case "session.status_running":
                    working, asked_for, held = True, [], False
                case "session.status_idle":
                    held = body["stop_reason"]["type"] == "budget_reached"
                    assert working or asked_for or held, "idle twice"
                    assert open_request is None, "idle with an open request"
                    working, asked_for = False, list(body["stop_reason"].get("event_ids", ()))
                    waiting = [call_id for call_id, outside in open_calls.items() if outside]
                    assert asked_for == waiting, "what a client is asked for is what is waited for"
                    assert asked_for or not open_calls, "idle with an open call"
                case "session.updated":
                    held = held and self.state.held
        assert self.state.held == held
        assert working == (self.state.status != "idle")
        assert self.state.open_request == open_request
        assert [known.id for known in self.state.calls] == list(open_calls)
        if isinstance(self.work, Rest):
            waiting = [call_id for call_id, outside in open_calls.items() if outside]
            assert not working
            assert asked_for == waiting, "at rest, and clients were told last of all for whom"
            assert bool(waiting) == bool(open_calls)
            assert waiting or held or not self.state.queue, "at rest, and something waits that nobody will come for"

    def _check_request(self) -> None:
        messages = self.transcript.messages()
        tools = [_BASH, *self.transcript.tools]
        body = {"model": "m", "max_tokens": 10, "messages": messages, "tools": tools, "system": [_SYSTEM]}
        self._body = body
        assert refusal(body) is None, refusal(body)
        assert json.dumps(body).count('"cache_control"') <= 4
        blocks = plain_blocks(messages)
        if self.sent:
            assert blocks[: len(self.sent[-1])] == self.sent[-1], "what was said before must be sent the same"
        self.sent.append(blocks)
        self._check_result_order(messages)

    def _check_result_order(self, messages: list[dict[str, Any]]) -> None:
        asked: list[str] = []
        for message in messages:
            kinds = [block["type"] for block in message["content"]]
            if message["role"] == "assistant":
                asked = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
                continue
            given = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
            assert given == asked
            assert kinds[: len(given)] == ["tool_result"] * len(given), "results come first, then what steers"
            asked = []


_MARK = {"cache_control": {"type": "ephemeral"}}
_SYSTEM = {"type": "text", "text": "s", **_MARK}
_BASH = {"name": "bash", "description": "d", "input_schema": {"type": "object"}, **_MARK}


def plain_blocks(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Every block as its role and its bytes, without cache marks: what a provider's prompt cache compares."""
    return [
        (message["role"], json.dumps({key: value for key, value in block.items() if key != "cache_control"}))
        for message in messages
        for block in message["content"]
    ]
