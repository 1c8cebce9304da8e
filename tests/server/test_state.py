"""The fold of a session's log: every step of the table, and random lives of a session."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server import events
from server.errors import Refused
from server.sessions.decide import AskModel, CloseRequest, Interrupt, MakeRoom, Park, Resume, RunTools, Stop
from server.sessions.fold import TRANSITIONS, IllegalTransition, fold
from server.sessions.state import SessionState, dump, load, seconds_between, spent
from tests.support.drive import ASKS, CUSTOM, SMALL_WINDOW, Driven
from tests.support.factories import THREAD, LogBuilder, call, say

STATUS = {
    "running": events.turn_started(THREAD, "a")[:1],
    "rescheduling": events.turn_rescheduled(THREAD, "a")[1:],
    "idle": events.turn_ended(THREAD, "a", {"type": "end_turn"}, {})[2:],
    "terminated": events.terminated(THREAD, "a")[1:],
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(TRANSITIONS, TRANSITIONS)))
def test_a_status_follows_another_as_the_table_says_and_not_otherwise(before: str, after: str) -> None:
    log = LogBuilder()
    log.add(STATUS[after])
    state = SessionState(status=before)
    if after == before or after in TRANSITIONS[before]:
        assert fold(state, log.events).status == after
    else:
        with pytest.raises(IllegalTransition, match=f"status_.*number 1.*while {before}"):
            fold(state, log.events)


def test_events_that_were_folded_already_change_nothing() -> None:
    log = LogBuilder()
    log.ask(log.message("hi"), turn=True)
    state = fold(SessionState(), log.events)
    assert fold(state, log.events) == state


def test_folding_leaves_the_given_state_as_it_is() -> None:
    log = LogBuilder()
    start = log.ask(log.message("hi"), turn=True)
    before = fold(SessionState(), log.events)
    kept = json.dumps(dump(before))
    log.answer(start, say("a"), call("toolu_1"), stop="tool_use")
    fold(before, log.events)
    assert json.dumps(dump(before)) == kept


def test_a_turn_counts_what_it_did() -> None:
    log = LogBuilder()
    start = log.ask(log.message("hi"), turn=True)
    found = log.answer(start, say("I look."), call("toolu_1"), call("toolu_2", "nothing"), stop="tool_use")
    for known in found.calls:
        log.result(known.id)
    log.answer(log.ask(), say("Done."))
    state = fold(SessionState(), log.events)
    assert (state.turns, state.requests, state.tool_calls, state.reply) == (1, 2, 2, "Done.")
    assert (state.usage.input_tokens, state.usage.output_tokens) == (6, 10)
    assert state.usage.cost_usd is None, "an unknown price makes the whole cost unknown"
    assert not state.owed


def test_the_reply_is_the_last_answers_whole_text_even_in_many_blocks() -> None:
    log = LogBuilder()
    start = log.ask(log.message("hi"), turn=True)
    log.answer(start, say("First."), call("toolu_1"), stop="tool_use")
    log.result(fold(SessionState(), log.events).calls[0].id)
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    log.answer(log.ask(), say("I search."), search, say("It is "), say("so."))
    assert fold(SessionState(), log.events).reply == "It is so."


def test_an_interrupt_that_is_delivered_with_a_message_leaves_no_debt() -> None:
    log = LogBuilder()
    message, stop = log.message("hi"), log.add(events.user_interrupt(THREAD))[0].id
    log.add(events.delivered(THREAD, [message, stop]))
    state = fold(SessionState(), log.events)
    assert not state.owed
    assert not state.queue


def test_the_activity_says_in_a_few_words_what_happens() -> None:
    log = LogBuilder()
    start = log.ask(log.message("hi"), turn=True)
    assert fold(SessionState(), log.events).activity == "thinking"
    log.answer(start, call("toolu_1", command="  make test\nsecond line"), stop="tool_use")
    assert fold(SessionState(), log.events).activity == "bash: make test"


def test_time_at_work_counts_from_running_to_idle_and_never_backwards() -> None:
    early, late = "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:02.500000Z"
    assert seconds_between(early, late) == 2.5
    assert seconds_between(late, early) == 0.0
    assert seconds_between(None, late) == 0.0


@pytest.mark.parametrize("wrong", [{"surprise": 1}, {"calls": [{"surprise": 1}]}, {"version": 1}])
def test_a_cached_state_of_another_version_is_a_type_error(wrong: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        load({**dump(SessionState()), **wrong})


# --- random lives ----------------------------------------------------------------------------------------------------

OUTCOMES = ["say", "nothing", "refuse", "cut off", "full", "too long", "fail", "fail for good", "lost", *["call"] * 5]
texts = st.sampled_from(["hi", "go on", "ä\u2028😀"])


class Life(RuleBasedStateMachine):
    """Inputs at any time, a model that answers or fails, tools that answer in any order, clients that are asked and
    answer some of it, crashes anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Driven(SMALL_WINDOW)

    @rule(text=texts)
    def send(self, text: str) -> None:
        try:
            self.session.send({"type": "user.message", "content": [events.text(text)]})
        except Refused:
            state = self.session.state
            assert state.held or (state.parked and state.awaited), "refused, and no answer would have been taken either"
            assert state.held or not state.interrupted, "refused, though an interrupt goes before it"

    @rule()
    def send_interrupt(self) -> None:
        self.session.send({"type": "user.interrupt"})

    @precondition(lambda self: self.session.state.awaited)
    @rule(at=st.integers(0, 2), count=st.integers(1, 3), well=st.booleans(), then=st.sampled_from(["", "again", "say"]))
    def answer(self, at: int, count: int, well: bool, then: str) -> None:
        """Answer one call or more, maybe once more, maybe with a message."""
        session, awaited = self.session, self.session.state.awaited
        chosen = [*awaited[at % len(awaited) :], *awaited[: at % len(awaited)]][:count]
        said = [session.reply_to(call_id, well=well) for call_id in chosen]
        if session.state.interrupted:
            with pytest.raises(Refused):
                session.send(*said)
            return
        if then == "say" and (len(chosen) == len(awaited) or not session.state.parked):
            said.append({"type": "user.message", "content": [events.text("and this")]})
        session.send(*said)
        if then == "again":
            with pytest.raises(Refused):
                session.send(said[0])

    @rule(turns=st.integers(1, 3), tokens=st.one_of(st.none(), st.integers(1, 60)))
    def bound(self, turns: int, tokens: int | None) -> None:
        """Give, raise or lower a budget, to more than was used."""
        used = spent(self.session.state)
        more = {} if tokens is None else {"tokens": used.tokens + tokens}
        self.session.bound(turns=used.turns + turns, **more)

    @rule()
    def crash(self) -> None:
        self.session.crash()

    @precondition(lambda self: isinstance(self.session.work, Park))
    @rule()
    def park(self) -> None:
        self.session.park()

    @precondition(lambda self: isinstance(self.session.work, Resume))
    @rule()
    def resume(self) -> None:
        self.session.resume()

    @precondition(lambda self: isinstance(self.session.work, CloseRequest))
    @rule()
    def close_request(self) -> None:
        self.session.close_request()

    @precondition(lambda self: isinstance(self.session.work, Interrupt))
    @rule()
    def interrupt(self) -> None:
        self.session.interrupt()
        assert self.session.state.status == "idle"
        assert not self.session.state.owed

    @precondition(lambda self: isinstance(self.session.work, Stop))
    @rule()
    def stop(self) -> None:
        self.session.stop()

    @precondition(lambda self: isinstance(self.session.work, AskModel))
    @rule(
        outcome=st.sampled_from(OUTCOMES),
        calls=st.lists(st.sampled_from(["bash", ASKS, CUSTOM]), min_size=1, max_size=3),
        meanwhile=st.lists(st.sampled_from(["message", "interrupt"]), max_size=2),
        first=st.sampled_from([None, None, "clear", "compact"]),
        much=st.integers(0, 4),
    )
    def ask(self, outcome: str, calls: list[str], meanwhile: list[str], first: str | None, much: int) -> None:
        """Ask, maybe after making room, whether there is too little or not."""
        session, work = self.session, self.session.work
        assert isinstance(work, AskModel)
        if first == "clear":
            session.clear(much)
        elif first == "compact":
            session.compact(much * 80, follows=bool(work.deliver))
        if not isinstance(session.work, AskModel):
            return
        start = session.begin_request()
        for what in meanwhile:
            self.send("meanwhile") if what == "message" else self.send_interrupt()
        asked = session.calls_to(calls)
        match outcome:
            case "say":
                session.answer(start, say("ok"), stop="end_turn")
            case "nothing":
                session.answer(start, say(" \n"), stop="end_turn")
            case "refuse":
                session.answer(start, say("no"), asked[0], stop="refusal")
            case "cut off":
                session.answer(start, say("and"), *asked, stop="max_tokens")
            case "full":
                session.answer(start, say("and"), stop="model_context_window_exceeded")
            case "too long":
                session.too_long(start)
            case "fail":
                session.fail(start, retryable=True)
            case "fail for good":
                session.fail(start, retryable=False)
            case "call":
                session.answer(start, say("I do"), *asked, stop="tool_use")
            case "lost":
                session.crash()
                assert isinstance(session.work, CloseRequest)

    @precondition(lambda self: isinstance(self.session.work, RunTools))
    @rule(at=st.integers(0, 2), life=st.sampled_from(["one", "two"]))
    def dispatch(self, at: int, life: str) -> None:
        work = self.session.work
        assert isinstance(work, RunTools)
        calls = work.calls
        chosen = calls[at % len(calls)].id
        self.session.append(events.dispatched(THREAD, chosen, life))
        assert {known.id: known.incarnation for known in self.session.state.calls}[chosen] == life

    @precondition(lambda self: isinstance(self.session.work, RunTools))
    @rule(at=st.integers(0, 2), characters=st.sampled_from([0, 500, 1_500]))
    def result(self, at: int, characters: int) -> None:
        self.session.result(at, characters)

    @precondition(lambda self: isinstance(self.session.work, MakeRoom))
    @rule()
    def make_room(self) -> None:
        self.session.make_room()

    @invariant()
    def what_is_always_true(self) -> None:
        self.session.check()

    def teardown(self) -> None:
        self.session.settle()
        self.session.crash()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- calls that somebody outside answers ------------------------------------------------------------------------------


def parked() -> tuple[LogBuilder, str, str]:
    """A turn that stands still: one call asks, one is the client's own. Their ids."""
    log = LogBuilder()
    start = log.ask(log.message("hi"), turn=True)
    found = log.answer(
        start, call("toolu_1", "bash"), call("toolu_2", "lookup"), stop="tool_use", asks=["bash"], custom=["lookup"]
    )
    asks, outside = (known.id for known in found.calls)
    reason = {"type": "requires_action", "event_ids": [asks, outside]}
    log.add(events.turn_ended(THREAD, "agent", reason, {}))
    return log, asks, outside


def test_a_parked_turn_is_idle_with_open_calls_and_goes_on_as_the_same_turn() -> None:
    log, asks, outside = parked()
    state = fold(SessionState(), log.events)
    assert (state.status, state.parked, state.awaited) == ("idle", True, (asks, outside))
    log.add(events.tool_confirmation(THREAD, asks, allow=True))
    log.add(events.custom_tool_result(THREAD, outside, [events.text("42")], is_error=False))
    state = fold(SessionState(), log.events)
    assert (state.awaited, state.owed, [known.note for known in state.calls]) == ((), True, [None])
    log.add(events.turn_started(THREAD, "agent"))
    state = fold(SessionState(), log.events)
    assert (state.status, state.turns, state.turn_requests, state.stop_reason) == ("running", 1, 1, None)
    log.result(asks)
    assert fold(SessionState(), log.events).calls == ()


def test_a_denied_call_is_answered_in_words_without_being_run() -> None:
    log, asks, _ = parked()
    log.add(events.tool_confirmation(THREAD, asks, allow=False, deny_message="Ask me tomorrow."))
    denied = fold(SessionState(), log.events).calls[0]
    assert denied.awaits is None
    assert denied.note == "Permission to use bash has been denied. Ask me tomorrow."


def test_a_second_answer_and_one_that_nobody_waits_for_change_nothing() -> None:
    log, asks, outside = parked()
    log.add(events.tool_confirmation(THREAD, asks, allow=False))
    once = fold(SessionState(), log.events)
    log.add(events.tool_confirmation(THREAD, asks, allow=True))
    log.add(events.tool_confirmation(THREAD, outside, allow=True))
    log.add(events.custom_tool_result(THREAD, asks, [], is_error=False))
    assert fold(once, log.events).calls == once.calls


def test_a_parked_turn_survives_the_cache() -> None:
    log, *_ = parked()
    state = fold(SessionState(), log.events)
    assert load(json.loads(json.dumps(dump(state)))) == state


def test_a_turn_whose_answers_have_come_is_ended_by_an_interrupt_in_so_many_words() -> None:
    session = Driven()
    session.send({"type": "user.message", "content": [events.text("hi")]})
    session.answer(session.begin_request(), *session.calls_to([CUSTOM]), stop="tool_use")
    session.park()
    session.send(session.reply_to(session.state.awaited[0]), {"type": "user.interrupt"})
    session.interrupt()
    assert (session.state.stop_reason, session.state.owed) == ({"type": "end_turn"}, False)
    session.check()


def test_a_turn_of_nothing_but_the_clients_own_tools_ends_at_its_bound() -> None:
    session = Driven()
    session.send({"type": "user.message", "content": [events.text("hi")]})
    for _ in range(5):
        session.answer(session.begin_request(), *session.calls_to([CUSTOM]), stop="tool_use")
        session.park()
        session.send(session.reply_to(session.state.awaited[0]))
    session.resume()
    assert isinstance(session.work, Stop) and session.work.reason == "retries_exhausted"
    session.stop()
    session.check()
    session.send({"type": "user.message", "content": [events.text("go on")]})
    assert isinstance(session.work, AskModel)
    session.begin_request()
    assert session.state.turns == 2
