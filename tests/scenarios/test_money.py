"""What sessions cost together, day by day, and what a restart must not forget of it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from server import ids
from server.errors import AtBudget
from server.sessions.log import Delta
from server.sessions.service import SessionView
from tests.support.clocks import Machine
from tests.support.scenario import OpenAgain, Scene, Stage, reply

NO_TOOLS: dict[str, Any] = {"tools": []}
SHORT = {"say": "x" * 1_000}
LONG = {"say": "x" * 12_000}
"""3,000 tokens of an answer, and as many of the script that asks for it."""


def later(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Let the clock be ahead from now on."""
    machine = Machine(stands=False)
    monkeypatch.setattr(ids, "CLOCK", machine.clock())
    machine.set(by.total_seconds())


def spent(scene: Scene) -> tuple[Decimal, int]:
    """The whole account as it is stored: dollars and tokens."""
    connection = sqlite3.connect(scene.app.settings.data_dir / "skiff.db")
    try:
        nano, tokens = connection.execute("SELECT sum(nano_usd), sum(tokens) FROM spending").fetchone()
    finally:
        connection.close()
    return Decimal(nano) / 10**9, tokens


def capped(view: SessionView) -> bool:
    """Whether the day's cap ended its turn, in our word for it and in the wire's."""
    ended = view.state.ending == "day_cap_reached"
    assert view.state.stop_reason == {"type": "retries_exhausted" if ended else "end_turn"}
    return ended


def test_a_cap_on_the_day_holds_through_restarts_and_deletions_until_the_day_is_over(
    local: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            first = await scene.turn(SHORT, agent=NO_TOOLS)
            assert not capped(first) and spent(scene)[0] == Decimal(first.state.usage.cost_usd or 0)
            while not capped(second := await scene.turn(SHORT, agent=NO_TOOLS)):
                assert spent(scene)[1] <= 3_000
            asked = len(scene.api.requests)
            (error,) = await scene.events(second.id, "session.error")
            assert (error["error"]["type"], error["error"]["retry_status"]) == ("billing_error", {"type": "exhausted"})
            assert "SKIFF_MAX_TOKENS_PER_DAY" in error["error"]["message"]
            await scene.service.delete_session(first.id, if_running="refuse")
        async with open_again(True) as scene:
            assert capped(await scene.again(second.id, SHORT))
            assert len(scene.api.requests) == asked, "the model was not asked again"
            later(monkeypatch, timedelta(days=1))
            after = await scene.again(second.id, {"say": "the day after"})
            assert reply(after) == "the day after" and not capped(after)

    local.play_lives(story, max_tokens_per_day=3_000)


def test_sessions_at_once_stay_within_the_cap_together_and_wait_for_each_other(local: Stage) -> None:
    cap = Decimal("0.06")

    async def story(scene: Scene) -> None:
        made = [await scene.start({"wait": 0.05, "say": "y" * 2_000}, agent=NO_TOOLS) for _ in range(12)]
        views = [await scene.finish(session_id) for session_id in made]
        ended = [capped(view) for view in views]
        total = sum(Decimal(view.state.usage.cost_usd or 0) for view in views)
        assert spent(scene)[0] == total <= cap
        assert any(ended) and ended.count(False) >= 6, "what was reserved and not used was there for the others"

    local.play(story, max_usd_per_day=float(cap), max_tokens=2_000)


def test_a_cap_in_dollars_asks_no_model_without_a_price(local: Stage, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"as_of": "today", "web_search_per_use": "0", "models": {}}))

    async def story(scene: Scene) -> None:
        view = await scene.turn({"say": "hello"}, agent=NO_TOOLS)
        assert capped(view) and "SKIFF_PRICES" in (view.state.last_error or "")
        assert not scene.api.requests

    local.play(story, max_usd_per_day=1, prices=prices)


def test_what_was_spent_outlives_the_process_and_so_does_the_work_that_waits_for_more(local: Stage) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            view = await scene.turn(LONG, agent=NO_TOOLS, budget={"usd": 0.06})
            held = await scene.again(view.id, {"say": "later"})
            assert held.state.held and held.state.queue and reply(held) == LONG["say"]
        async with open_again(True) as scene:
            again = await scene.service.view(view.id)
            assert (again.state.usage, again.budget_left) == (held.state.usage, held.budget_left)
            with pytest.raises(AtBudget):
                await scene.tell(view.id, {"say": "more"})
            await scene.service.update_session(view.id, {"budget": None})
            assert reply(await scene.finish(view.id)) == "later"

    local.play_lives(story)


def test_the_tokens_of_an_answer_that_was_interrupted_are_spent(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session_id = await scene.start({"say": "word " * 200, "stream": 60}, agent=NO_TOOLS)
        async with aclosing(scene.service.follow(session_id, deltas=True)) as news:
            async for item in news:
                if isinstance(item, Delta):
                    break
        view = await scene.service.interrupt(session_id)
        assert spent(scene) == (Decimal(view.state.usage.cost_usd or 0), view.state.usage.input_tokens + 1)
        assert view.state.turn_cost_usd == view.state.usage.cost_usd != "0"

    local.play(story)
