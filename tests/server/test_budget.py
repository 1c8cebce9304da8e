"""What a budget lets through: the rules one by one, and that no interleaving spends more than one answer beyond it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import events
from server.providers.pricing import list_prices
from server.sessions.conversation.context import Context, came
from server.sessions.decide import AskModel, Limits, Rest, Stop, next_need, next_work
from server.sessions.fold import fold
from server.sessions.money import budget
from server.sessions.money.budget import LEAST, Amount, Budget, Caps, Need, Spent, Tariff
from server.sessions.state import QueuedInput, SessionState, Usage, dump, load, spent
from tests.support.factories import THREAD, LogBuilder, call, say

RATES = list_prices().rates("claude-sonnet-5-5")
"""A thousand tokens of prompt cost 0.0025 at the worst, of an answer 0.01."""
NEED = Need(prompt=10_000, answer=32_000, rates=RATES)
TARIFF = Tariff(RATES, max_tokens=4_000, head=0)
LIMITS = Limits(tariff=TARIFF)
MESSAGE = QueuedInput("m", "user.message", 1)


@pytest.mark.parametrize(
    ("bounds", "used", "answer"),
    [
        (Budget(), Spent(), 32_000),
        (Budget(usd="1"), Spent(), 32_000),
        (Budget(usd="0.125"), Spent(), 10_000),
        (Budget(usd="1"), Spent(usd=Decimal("0.875")), 10_000),
        (Budget(usd="0.03524"), Spent(), LEAST),
        (Budget(usd="0.03523"), Spent(), 0),
        (Budget(usd="0.02"), Spent(), 0),
        (Budget(usd="1"), Spent(usd=None), 0),
        (Budget(tokens=30_000), Spent(tokens=5_000), 15_000),
        (Budget(tokens=11_000), Spent(), 0),
        (Budget(usd="0.125", tokens=12_000), Spent(), 2_000),
        (Budget(turns=2), Spent(turns=2), 32_000),
        (Budget(seconds=60), Spent(seconds=59.9), 32_000),
        (Budget(seconds=60), Spent(seconds=60.0), 0),
    ],
)
def test_an_answer_may_be_as_long_as_the_budget_still_buys(bounds: Budget, used: Spent, answer: int) -> None:
    assert budget.allowance(bounds, used, NEED, begins=False) == answer


def test_a_turn_too_many_is_not_begun() -> None:
    assert budget.allowance(Budget(turns=2), Spent(turns=1), NEED, begins=True)
    assert not budget.allowance(Budget(turns=2), Spent(turns=2), NEED, begins=True)


def test_an_agent_of_short_answers_is_asked_for_those() -> None:
    short = replace(NEED, answer=300)
    assert budget.allowance(Budget(usd="0.028"), Spent(), short, begins=False) == 300
    assert not budget.allowance(Budget(usd="0.0279"), Spent(), short, begins=False)


def test_a_long_prompt_is_reserved_at_the_rates_of_long_prompts() -> None:
    rates = list_prices().rates("claude-haiku-5-5")
    assert Need(100_000, 1, rates).worst(0).usd == Decimal("0.0125")
    assert Need(100_001, 1, rates).worst(0).usd == Decimal("0.062500625")


def test_the_next_prompt_is_the_last_one_measured_and_what_came_since() -> None:
    tariff, waits = replace(TARIFF, head=101), QueuedInput("m", "user.message", 1, tokens=7)
    fresh = SessionState(queue=(waits,), context=Context(tokens=50, since=50))
    assert next_need(fresh, tariff) == Need(158, 4_000, RATES), "the head is guessed as long as nothing was measured"
    broken_off = replace(fresh, usage=Usage(output_tokens=1))
    assert next_need(broken_off, tariff).prompt == 158, "an answer that was broken off measures nothing"
    assert next_need(replace(broken_off, context=Context(tokens=50)), tariff).prompt == 57


def test_the_wire_is_told_whole_cents_and_our_own_measures_apart() -> None:
    limit = {"type": "limit", "max_list_cost": {"amount": "251", "currency": "USD"}}
    assert budget.on_the_wire(Budget(usd="2.501", turns=3)) == limit
    assert budget.own(Budget(usd="2.501", turns=3)) == {"turns": 3}
    assert budget.on_the_wire(Budget(turns=3)) is budget.on_the_wire(None) is None


# --- decisions -------------------------------------------------------------------------------------------------------

BROKE = SessionState(budget=Budget(usd="0.01"), queue=(MESSAGE,))
HELD = replace(BROKE, held=True, stop_reason={"type": "budget_reached"})
ROWS: dict[str, tuple[SessionState, Any]] = {
    "a message that the budget has room for": (replace(BROKE, budget=Budget(usd="1")), AskModel(("m",), 0)),
    "a message that it has no room for": (BROKE, Stop("budget_reached")),
    "in the middle of a turn": (replace(BROKE, status="running", owed=True, queue=()), Stop("budget_reached")),
    "a paused answer too": (replace(BROKE, status="running", paused=True, queue=()), Stop("budget_reached")),
    "at it nothing moves": (HELD, Rest()),
    "once it was raised, what waits goes on": (
        replace(HELD, held=False, budget=Budget(usd="1")), AskModel(("m",), 0),
    ),
    "raised too little it says so again": (replace(HELD, held=False), Stop("budget_reached")),
    "the turn that is allowed is finished": (
        replace(BROKE, budget=Budget(turns=1), turns=1, status="running", owed=True), AskModel(("m",), 0),
    ),
    "the next one is not begun": (replace(BROKE, budget=Budget(turns=1), turns=1), Stop("budget_reached")),
    "a turn that was held up is no new one": (
        replace(HELD, held=False, owed=True, queue=(), budget=Budget(turns=1), turns=1), AskModel((), 0),
    ),
    "who only looks does not judge": (replace(BROKE, status="running"), AskModel(("m",), 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_next(name: str) -> None:
    state, work = ROWS[name]
    assert next_work(state, Limits() if name.startswith("who only looks") else LIMITS) == work


# --- the log ---------------------------------------------------------------------------------------------------------


def test_a_log_says_what_is_bounded_held_up_and_let_go() -> None:
    log = LogBuilder()
    log.add(events.budget_set(THREAD, {"usd": "1", "turns": 5}))
    start = log.ask(log.message("hello"), turn=True)
    log.answer(start, call("toolu_1"), stop="tool_use")
    (open_call,) = fold(SessionState(), log.events).calls
    log.result(open_call.id, "x" * 100)
    state = fold(SessionState(), log.events)
    assert (state.budget, state.held) == (Budget(usd="1", turns=5), False)
    assert 8 + 100 // 3 <= next_need(state, TARIFF).prompt <= 8 + 100

    log.add(events.turn_ended(THREAD, "agent", {"type": "budget_reached"}, {}))
    held = fold(SessionState(), log.events)
    assert held.held and held.goes_on and held.owed and not held.unfinished
    assert load(dump(held)) == held

    log.add(events.session_updated(THREAD, {}, None, {"turns": 5}))
    again = fold(SessionState(), log.events)
    assert not again.held and again.budget == Budget(turns=5)
    log.answer(log.ask(turn=True), say("done"))
    assert fold(SessionState(), log.events).turns == 1, "the turn that was held up goes on: it is no new one"


def test_a_budget_raised_in_one_measure_still_holds_in_another() -> None:
    log = LogBuilder()
    log.add(events.budget_set(THREAD, {"usd": "1", "turns": 1}))
    log.answer(log.ask(log.message("hello"), turn=True), say("hi"))
    log.add(events.turn_ended(THREAD, "agent", {"type": "end_turn"}, {}, reached=True))
    log.add(events.session_updated(THREAD, {}, None, {"usd": "2", "turns": 1}))
    assert fold(SessionState(), log.events).held


# --- never more than one answer beyond -------------------------------------------------------------------------------


@dataclass
class Asker:
    """A session that asks, is answered, and adds to its prompt, as chance has it."""

    state: SessionState
    asked: Need | None = None

    @property
    def used(self) -> Decimal:
        return Decimal(self.state.usage.cost_usd or 0)

    def wants(self) -> Need | None:
        """The request that its own budget has room for."""
        assert self.state.budget is not None
        need = next_need(self.state, TARIFF)
        room = budget.allowance(self.state.budget, spent(self.state), need, begins=False)
        assert (room > 0) == isinstance(next_work(self.state, LIMITS), AskModel), "decided as it is asked for"
        return replace(need, answer=room) if room else None

    def comes(self, tokens: int) -> None:
        """So much is added to the prompt."""
        self.state = replace(self.state, context=came(self.state.context, tokens))

    def answered(self, written: float, wrong: float) -> tuple[Amount, Amount]:
        """What was reserved for the request under way, and what it cost: so much of the answer was written, and the
        prompt was this much of what it was guessed to be."""
        assert self.asked is not None
        need, self.asked = self.asked, None
        prompt, answer = int(need.prompt * wrong), int(need.answer * written)
        cost = replace(need, prompt=prompt).worst(answer)
        before = self.state.usage
        usage = Usage(before.input_tokens + prompt, before.output_tokens + answer, cost_usd=str(self.used + cost.usd))
        self.state = replace(self.state, usage=usage, context=Context(tokens=prompt + answer))
        return need.worst(need.answer), cost


STEP = st.tuples(st.integers(0, 4), st.floats(0, 1), st.integers(0, 30_000))
"""Which session moves; how much of the answer is written; how many tokens are added before the next request."""


@given(
    steps=st.lists(STEP, min_size=1, max_size=80),
    usd=st.one_of(st.none(), st.decimals("0.001", "3", places=4)),
    tokens=st.one_of(st.none(), st.integers(1_000, 400_000)),
    own=st.one_of(st.none(), st.decimals("0.01", "1", places=3)),
)
def test_sessions_side_by_side_stay_within_their_own_bounds_and_within_the_days(
    steps: list[tuple[int, float, int]], usd: Decimal | None, tokens: int | None, own: Decimal | None
) -> None:
    """Each step ends what its session has under way, or else asks where there is room: none of them ever crosses."""
    caps, day, reserved = Caps(usd, tokens), Amount(), Amount()
    bounds = Budget(usd=None if own is None else str(own))
    sessions = [Asker(SessionState(status="running", owed=True, budget=bounds)) for _ in range(5)]
    for index, written, added in steps:
        session = sessions[index]
        if session.asked is not None:
            held, cost = session.answered(written, wrong=1)
            reserved, day = reserved - held, day + cost
            session.comes(added)
        elif need := session.wants():
            answer = budget.admitted(caps, day, reserved, need)
            if answer:
                assert answer >= need.least
                session.asked = replace(need, answer=answer)
                reserved += session.asked.worst(answer)
            assert answer is not None or reserved != Amount(), "it waits for somebody"
        assert caps.hold(day + reserved)
        assert own is None or session.used <= own


@given(
    steps=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30_000), st.floats(0, 20)), min_size=1, max_size=40),
    own=st.decimals("0.01", "1", places=3),
)
def test_a_prompt_that_was_guessed_too_short_costs_one_answer_beyond_the_bound_and_no_more(
    steps: list[tuple[float, int, float]], own: Decimal
) -> None:
    session = Asker(SessionState(status="running", owed=True, budget=Budget(usd=str(own))))
    for written, added, wrong in steps:
        session.comes(added)
        session.asked = session.wants()
        if session.asked is None:
            continue
        before = session.used
        _, cost = session.answered(written, wrong)
        assert before < own, "beyond the bound nothing is asked"
        assert session.used <= own + cost.usd
