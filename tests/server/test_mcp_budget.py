"""Budgets over MCP, through the official client: given, told of, reached, raised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from server.app import App
from tests.server.test_mcp_door import call, refusal, tell
from tests.support.mcp_door import NO_TOOLS, script

RATES = {"input": "2", "output": "10", "cache_write_5m": "2.50", "cache_write_1h": "4", "cache_read": "0.10"}
LONG = script({"say": "x" * 12_000})
"""A task of 3,000 tokens that is answered with as many: three and a half cents."""


@pytest.fixture(autouse=True)
def _priced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted model costs what a real one does."""
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"as_of": "today", "web_search_per_use": "0.01", "models": {"scripted": RATES}}))
    monkeypatch.setenv("SKIFF_PRICES", str(path))


async def made(client: Client, task: str, **more: Any) -> dict[str, Any]:
    return dict(await call(client, "create_session", task=task, agent=NO_TOOLS, **more))


def test_a_result_says_what_it_cost_and_what_is_left(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        first = await made(client, script({"say": "one"}), budget={"usd": 2, "turns": 5})
        assert 0 < first["cost_usd"] == first["turn_cost_usd"] < 0.01
        usd, turns = first["budget"]["usd"], first["budget"]["turns"]
        assert usd == {"limit": 2.0, "used": first["cost_usd"], "left": 2 - first["cost_usd"]}
        assert turns == {"limit": 5.0, "used": 1.0, "left": 4.0} and first["budget"]["tokens"] is None
        second = await call(client, "send_message", session_id=first["session_id"], message=script({"say": "two"}))
        assert second["cost_usd"] == pytest.approx(first["cost_usd"] + second["turn_cost_usd"])
        listed = await call(client, "read_transcript", session_id=first["session_id"], everything=True)
        ends = [event for event in listed["events"] if event["type"] == "span.model_request_end"]
        assert [end["model"] for end in ends] == ["scripted", "scripted"]
        assert sum(float(end["cost_usd"]) for end in ends) == pytest.approx(second["cost_usd"])

    tell(tmp_path, "auto", story)


def test_at_its_budget_the_work_stands_still_until_a_message_raises_it(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        begun = await made(client, LONG, budget=0.06)
        session = begun["session_id"]
        held = await call(client, "send_message", session_id=session, message=script({"say": "later"}))
        assert (held["status"], held["stop_reason"]) == ("idle", "budget_reached")
        assert "0.06 usd" in held["next"] and "send_message" in held["next"] and "budget=" in held["next"]
        said = await refusal(client, "send_message", session_id=session, message="more")
        assert "Not sent" in said and "budget=" in said and "user.interrupt" not in said
        said = await refusal(client, "send_message", session_id=session, message="more", budget=0.01)
        assert "greater than" in said
        on = await call(client, "send_message", session_id=session, message="Go on.", budget=1)
        assert (on["stop_reason"], on["budget"]["usd"]["limit"]) == ("end_turn", 1.0)
        again = await call(client, "send_message", session_id=session, message="Go on.", budget={"usd": None})
        assert again["budget"] is None
        said = await refusal(client, "send_message", session_id=session, message="Go on.", budget=5)
        assert "when a session is created" in said

    tell(tmp_path, "auto", story)


def test_a_bound_on_turns_ends_a_turn_well_and_the_next_is_not_begun(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        done = await made(client, script({"say": "done"}), budget={"turns": 1})
        assert (done["stop_reason"], done["reply"]) == ("budget_reached", "done")
        assert "The turn is over" in done["next"] and "1 of 1 turns" in done["next"]
        key = {"session_id": done["session_id"], "request_key": "once", "budget": {"turns": 2}}
        more = await call(client, "send_message", message=script({"say": "more"}), **key)
        assert (more["reply"], more["turns"]) == ("more", 2)
        assert (await call(client, "send_message", message=script({"say": "more"}), **key))["turns"] == 2

    tell(tmp_path, "auto", story)


def test_what_is_wrong_with_a_budget_is_said_in_words(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        for budget, words in (
            (0, "budget.usd must be a number of US dollars above 0"),
            ({"dollars": 1}, "budget.dollars is unknown. Known: usd, tokens, turns, seconds"),
            ({"tokens": "many"}, "budget.tokens must be a whole number"),
        ):
            assert words in await refusal(client, "create_session", task="hello", budget=budget)
        model = {"tools": [], "model": "claude-mythos-5-2"}
        said = await refusal(client, "create_session", task="hello", agent=model, budget=1)
        assert "claude-mythos-5-2 has no known list price" in said and "tokens" in said

    tell(tmp_path, "auto", story)


def test_at_the_cap_for_the_day_a_result_says_when_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIFF_MAX_USD_PER_DAY", "0.01")

    async def story(client: Client, app: App) -> None:
        capped = await made(client, script({"say": "hello"}))
        assert (capped["status"], capped["stop_reason"]) == ("idle", "day_cap_reached")
        assert "SKIFF_MAX_USD_PER_DAY" in capped["error"]
        assert "midnight UTC" in capped["next"] and "send_message" in capped["next"]

    tell(tmp_path, "auto", story)
