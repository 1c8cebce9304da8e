"""What happens while a session waits to try the model again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.pace import Waits
from tests.support.scenario import OpenAgain, Scene, Stage, said

NO_TOOLS: Mapping[str, Any] = {"tools": []}
FAILING = {"fail": {"status": 429, "times": 99, "retry_after": 300}}


def test_an_interrupt_is_served_at_once_and_the_next_message_does_not_wait(local: Stage) -> None:
    waits = Waits(hold=True)

    async def story(scene: Scene) -> None:
        session = await scene.start(FAILING, agent=NO_TOOLS)
        await waits.began()
        view = await scene.service.interrupt(session)
        assert (view.state.status, view.state.ending) == ("idle", "interrupted")
        assert (await scene.again(session, {"say": "Here."})).state.reply == "Here."
        assert (waits.seconds, len(scene.api.requests)) == ([300], 2)

    local.play(story, pace=waits.pace)


def test_a_message_goes_with_the_next_try_and_does_not_hasten_it(local: Stage) -> None:
    waits = Waits(hold=True)

    async def story(scene: Scene) -> None:
        session = await scene.start({"fail": {"status": 529}, "say": "Both heard."}, agent=NO_TOOLS)
        await waits.began()
        view = await scene.tell(session, say="And this.")
        assert view.state.status == "rescheduling" and len(scene.api.requests) == 1
        waits.release()
        view = await scene.finish(session)
        assert (view.state.turns, view.state.reply) == (1, "Both heard.")
        assert [block["text"] for block in scene.api.bodies[1]["messages"][-1]["content"]][-1] == "And this."

    local.play(story, pace=waits.pace)


def test_a_restart_neither_loses_nor_doubles_the_wait_nor_the_count(local: Stage) -> None:
    waits = Waits(hold=True)

    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            session = await scene.start(FAILING, agent=NO_TOOLS)
            await waits.began()
        waits.release()
        async with open_again(True) as scene:
            view = await scene.finish(session)
            assert view.state.stop_reason == {"type": "retries_exhausted"}
            assert len(scene.api.requests) == 3, "two tries were allowed, and no more were made"
            first, left, second = waits.seconds
            assert first == second == 300 and 0 < left <= 300
            (message,) = await scene.events(session, "user.message")
            assert "script" in said(message)

    local.play_lives(story, pace=waits.pace, retries=2)


def test_who_waits_lends_its_place_to_others_and_an_interrupt_needs_none(local: Stage) -> None:
    waits = Waits(hold=True)

    async def story(scene: Scene) -> None:
        first = await scene.start(FAILING, agent=NO_TOOLS)
        await waits.began()
        assert (await scene.turn({"say": "Meanwhile."}, agent=NO_TOOLS)).state.reply == "Meanwhile."
        second = await scene.start({"say": "slowly now", "stream": 60}, agent=NO_TOOLS)
        await scene.asked(lambda api: len(api.requests) == 3)
        view = await scene.service.interrupt(first)
        assert (view.state.status, view.state.ending) == ("idle", "interrupted")
        await scene.tell(first, {"say": "In line."})
        await scene.service.interrupt(second)
        assert (await scene.finish(first)).state.reply == "In line."
        third = await scene.start({"say": "There is one place still."}, agent=NO_TOOLS)
        assert (await scene.finish(third)).state.reply == "There is one place still."

    local.play(story, pace=waits.pace, max_sessions_at_work=1)
