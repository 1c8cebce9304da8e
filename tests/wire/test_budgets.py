"""Budgets through the official SDK: what a session may cost, what happens at the bound, and how it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types.beta import BetaManagedAgentsSession

from tests.support.cast import TOOLSET, Cast, message, text_of, told
from tests.support.judged import judged, refused
from tests.support.scenario import bash, call
from tests.support.served import Site

LONG = "x" * 12_000
"""3,000 tokens of an answer: three cents, and as many of the prompt that asks for it."""
ACCEPTED = ("user.tool_confirmation", "user.tool_result", "user.custom_tool_result", "user.interrupt")
OVER = "session.status_idle"


@pytest.fixture(scope="module")
def cast(site: Site) -> Cast:
    return Cast(site.client())


def cents(amount: int) -> Any:
    return {"type": "limit", "max_list_cost": {"amount": str(amount), "currency": "USD"}}


def shown(session: BetaManagedAgentsSession) -> str | None:
    return session.budget.max_list_cost.amount if session.budget else None


def _until_idle(stream: Any) -> Iterator[Any]:
    for event in stream:
        yield event
        if event.type == OVER:
            return


def at_its_budget(cast: Cast, **asked: Any) -> BetaManagedAgentsSession:
    """A session that has used nearly four of its five cents, and whose next message is too much for the rest."""
    made = cast.rested({"say": LONG}, budget=cents(5), **asked)
    cast.turn(made.id, told({"say": "later"}))
    return cast.client.beta.sessions.retrieve(made.id)


def test_a_session_has_the_budget_that_it_was_given(cast: Cast) -> None:
    made = cast.session(budget=cents(250))
    assert (shown(made), shown(cast.session())) == ("250", None)
    assert shown(cast.client.beta.sessions.retrieve(made.id)) == "250"
    judged(BetaManagedAgentsSession, made.to_json())


def test_at_its_bound_a_session_stands_still_and_says_so(cast: Cast) -> None:
    made = cast.rested({"say": LONG}, budget=cents(5))
    events = cast.turn(made.id, told({"say": "later"}))
    assert [event.type for event in events][-3:] == ["session.thread_status_idle", "session.usage", OVER]
    thread, usage, idle = events[-3:]
    assert thread.stop_reason.type == idle.stop_reason.type == "budget_reached"
    assert (usage.budget.max_list_cost.amount, usage.usage.list_cost.amount) == ("5", "4")
    assert "span.model_request_start" not in [event.type for event in events], "the model was not asked"
    assert cast.client.beta.sessions.retrieve(made.id).status == "idle"


def test_a_turn_that_ends_with_the_last_of_its_budget_ended_well(cast: Cast) -> None:
    made = cast.session(extra_body={"skiff": {"budget": {"turns": 1}}})
    *_, thread, _, idle = cast.turn(made.id, told({"say": "done"}))
    assert (thread.stop_reason.type, idle.stop_reason.type) == ("end_turn", "budget_reached")
    refused(400, lambda: cast.events.send(made.id, events=[message("more")]), *ACCEPTED)


def test_a_call_that_waits_goes_before_the_budget_and_its_result_is_kept_for_later(cast: Cast) -> None:
    lookup: Any = {"type": "custom", "name": "lookup", "description": "d", "input_schema": {"type": "object"}}
    own = Cast(cast.client, [lookup])
    asks = {"say": LONG, "call": [{"tool": "lookup", "input": {}}]}
    made = own.session(asks, {"say": "$RESULT"}, budget=cents(5))
    *_, idle = own.until(made.id, OVER)
    assert idle.stop_reason.type == "requires_action"
    (call_id,) = idle.stop_reason.event_ids
    result = {"type": "user.custom_tool_result", "custom_tool_use_id": call_id, "content": message("kept")["content"]}
    events = own.turn(made.id, result)
    assert events[-1].stop_reason.type == "budget_reached"
    assert "span.model_request_start" not in [event.type for event in events]
    with own.events.stream(made.id, timeout=60) as stream:
        cast.client.beta.sessions.update(made.id, budget=None)
        said = [text_of(event) for event in _until_idle(stream) if event.type == "agent.message"]
    assert said == ["kept"]


def test_at_its_bound_nothing_is_taken_that_starts_work(cast: Cast) -> None:
    held = at_its_budget(cast)
    refused(400, lambda: cast.events.send(held.id, events=[message("more")]), *ACCEPTED)
    before = [event.id for event in cast.events.list(held.id)]
    assert cast.events.send(held.id, events=[{"type": "user.interrupt"}]).data[0].type == "user.interrupt"
    assert [event.id for event in cast.events.list(held.id)] == before, "ignored, and listed nowhere"


@pytest.mark.parametrize("budget", [cents(400), None])
def test_a_budget_that_is_raised_or_removed_lets_the_work_go_on(cast: Cast, budget: Any) -> None:
    held = at_its_budget(cast)
    with cast.events.stream(held.id, timeout=60) as stream:
        changed = cast.client.beta.sessions.update(held.id, budget=budget)
        events = list(_until_idle(stream))
    assert shown(changed) == (budget and "400")
    assert [event.type for event in events if event.type != "user.message"][:2] == [
        "session.updated",
        "session.status_running",
    ]
    assert (events[0].budget and events[0].budget.max_list_cost.amount) == (budget and "400")
    assert [text_of(event) for event in events if event.type == "agent.message"] == ["later"]
    assert events[-1].stop_reason.type == "end_turn"


def test_a_budget_can_be_lowered_to_just_above_what_was_used(cast: Cast) -> None:
    made = cast.rested({"say": LONG}, budget=cents(400))
    sessions = cast.client.beta.sessions
    words = "budget.max_list_cost must be greater than the session's consumed list cost"
    problem = refused(400, lambda: sessions.update(made.id, budget=cents(3)), words)
    assert problem["details"]["error_code"] == "budget_not_raised"
    assert shown(sessions.update(made.id, budget=cents(4))) == "4"
    before = [event.id for event in cast.events.list(made.id)]
    sessions.update(made.id, budget=cents(4))
    assert [event.id for event in cast.events.list(made.id)] == before, "what changes nothing tells of nothing"


def test_a_budget_is_given_at_the_beginning_or_never(cast: Cast) -> None:
    sessions = cast.client.beta.sessions
    without, removed = cast.session(), cast.session(budget=cents(100))
    assert shown(sessions.update(removed.id, budget=None)) is None
    for made in (without, removed):
        problem = refused(400, lambda made=made: sessions.update(made.id, budget=cents(100)), "budget")
        assert problem["details"]["error_code"] == "budget_create_only"
    assert shown(sessions.update(without.id, budget=None)) is None


def test_a_model_without_a_price_takes_no_budget_in_dollars(cast: Cast) -> None:
    agent = cast.client.beta.agents.create(name="unpriced", model="claude-mythos-5-2")
    problem = refused(400, lambda: cast.session(agent=agent.id, budget=cents(100)), "claude-mythos-5-2", "price")
    assert problem["details"]["error_code"] == "model_not_budgetable"
    own: Any = {"skiff": {"budget": {"tokens": 1_000_000}}}
    assert shown(cast.session(agent=agent.id, extra_body=own)) is None


def test_our_own_measures_are_given_changed_and_taken_away_at_any_time(cast: Cast) -> None:
    sessions = cast.client.beta.sessions
    made = cast.rested({"say": "ok"})

    def own(budget: Any) -> Any:
        return (sessions.update(made.id, extra_body={"skiff": {"budget": budget}}).model_extra or {}).get("skiff")

    assert own({"tokens": 500_000, "seconds": 3_600}) == {"budget": {"tokens": 500_000, "seconds": 3_600}}
    assert own({"seconds": None}) == {"budget": {"tokens": 500_000}}
    problem = refused(400, lambda: own({"turns": 1}), "budget.turns must be greater than", "(1)")
    assert problem["details"]["error_code"] == "budget_not_raised"
    assert own({"tokens": None}) is None


def test_what_the_bound_leaves_is_what_the_answer_may_have(site: Site, cast: Cast) -> None:
    made = cast.session({"say": "y" * 40_000}, extra_body={"skiff": {"budget": {"tokens": 18_000}}})
    *_, idle = cast.until(made.id, OVER)
    assert 1024 <= site.api.bodies[-1]["max_tokens"] < 6_000
    used = cast.client.beta.sessions.retrieve(made.id).usage
    assert used is not None and (used.input_tokens or 0) + (used.output_tokens or 0) <= 18_000
    assert idle.stop_reason.type == "end_turn"


def test_a_shorter_answer_leaves_the_cached_part_of_the_request_as_it_was(site: Site) -> None:
    cast = Cast(site.client(), [TOOLSET])
    before = len(site.api.bodies)
    made = cast.session(call(bash("true")), call(bash("true")), {"say": "done"}, budget=cents(16))
    *_, idle = cast.until(made.id, OVER)
    first, *later = site.api.bodies[before:]
    assert len(later) == 2 and later[-1]["max_tokens"] < first["max_tokens"]
    assert all((body["system"], body["tools"]) == (first["system"], first["tools"]) for body in later)
    assert idle.stop_reason.type == "end_turn"
    cast.client.beta.sessions.delete(made.id)
