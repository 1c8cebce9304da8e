"""The machine's clock is set ahead or back by hours while sessions work: no time is charged that was not spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from server import ids
from tests.support.clocks import HOUR, Machine
from tests.support.pace import Waits
from tests.support.scenario import Scene, Stage, bash, call, reply, said

NO_TOOLS: Mapping[str, Any] = {"tools": []}


@pytest.mark.parametrize("hours", [5, -5], ids=["ahead", "back"])
def test_a_turn_in_which_the_clock_is_set_costs_its_own_time(
    local: Stage, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    machine = Machine(stands=False)
    monkeypatch.setattr(ids, "CLOCK", machine.clock())

    async def story(scene: Scene) -> None:
        session = await scene.start(
            call(bash("echo up > up; until test -e go; do sleep 0.05; done; echo on")), {"say": "$RESULT"}
        )
        await scene.appears(session, "up")
        machine.set(hours * HOUR)
        machine.passes(90)
        await scene.service.write_workspace(session, "go", b"now")
        view = await scene.finish(session)
        assert reply(view) == "on"
        assert 90 <= view.state.active_seconds < HOUR
        (usage,) = await scene.events(session, "session.usage")
        assert 90 <= usage["usage"]["active_seconds"] < HOUR
        times = [event["processed_at"] for event in await scene.events(session)]
        assert times == sorted(times)
        again = await scene.again(session, {"say": "And on."})
        assert again.state.active_seconds < HOUR and again.state.turns == 2

    local.play(story)


@pytest.mark.parametrize("hours", [5, -5], ids=["ahead", "back"])
def test_a_wait_for_the_model_is_not_changed_by_the_clock(
    local: Stage, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    machine, waits = Machine(stands=False), Waits(hold=True)
    monkeypatch.setattr(ids, "CLOCK", machine.clock())

    async def story(scene: Scene) -> None:
        fails = {"fail": {"status": 429, "times": 2, "retry_after": 40}, "say": "There."}
        session = await scene.start(fails, agent=NO_TOOLS)
        await waits.began()
        machine.set(hours * HOUR)
        waits.release()
        view = await scene.finish(session)
        assert (view.state.reply, waits.seconds) == ("There.", [40, 40])

    local.play(story, pace=waits.pace)


def test_a_clock_set_ahead_by_months_deletes_no_session(local: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(stands=False)
    monkeypatch.setattr(ids, "CLOCK", machine.clock())
    monkeypatch.setattr("server.engine.upkeep.EVERY_SECONDS", 0.05)

    async def story(scene: Scene) -> None:
        session = (await scene.turn({"say": "Kept."}, agent=NO_TOOLS)).id
        machine.set(90 * 24 * HOUR)
        for _ in range(5):
            await scene.turn({"say": "Meanwhile."}, agent=NO_TOOLS)
        assert [said(event) for event in await scene.events(session, "agent.message")] == ["Kept."]

    local.play(story, retention_days=30)
