"""Turns, sandboxes and model requests are few: who waits is served in order, is seen to wait, and can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from server.app import running
from server.doors.mcp import answers
from server.sessions.sandboxing import berths
from tests.support.scenario import SECONDS, Scene, Stage, bash, call, eventually, reply

ROUNDS = 3


async def _waits(scene: Scene, session_id: str) -> str:
    (view,) = await scene.service.with_waiting([await scene.service.view(session_id)])
    return view.waiting


async def _in_line(scene: Scene, session_id: str, words: str) -> None:
    async def look() -> bool:
        return (await _waits(scene, session_id)).startswith(words)

    await eventually(look, f"{words!r}")


async def _begins(scene: Scene, session_id: str) -> None:
    await scene.until(session_id, lambda event: event.type == "session.status_running")


def test_who_waits_for_a_turn_is_seen_to_and_an_interrupt_and_a_delete_are_served_at_once(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        first = await scene.start({"say": "word " * 30, "stream": 60})
        await _begins(scene, first)
        second, third = await scene.start({"say": "Second."}), await scene.start({"say": "Third."})
        await _in_line(scene, third, "waiting for its turn, 1 before it (setting max_sessions_at_work)")
        async with running(scene.app.settings) as door:  # another process would be told the same
            assert await door.role.reached(SECONDS)
            shown = await answers.session(door.service, await door.service.view(second), 20_000)
        assert (shown.status, shown.activity[:40]) == ("running", "waiting for its turn, none before it (se")
        view = await scene.service.interrupt(second)
        types = await scene.types(second)
        assert "user.interrupt" in types and "session.status_running" not in types
        assert (view.state.turns, [item.type for item in view.state.queue]) == (0, ["user.message"]), "it waits on"
        await scene.service.delete_session(third, if_running="interrupt")
        assert (await scene.service.view(first)).at_work and len(scene.api.requests) <= 1
        await scene.service.interrupt(first)
        assert (await scene.finish(second)).state.reply == "Second."

    local.play(story, max_sessions_at_work=1)


def test_a_session_that_goes_round_and_round_gets_behind_the_one_that_waits(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        first = await scene.start({"say": "word " * 30, "stream": 60})
        await scene.asked(lambda api: len(api.requests) == 1)
        second = await scene.start({"say": "Second."})
        await _in_line(scene, second, "waiting for its turn")
        await scene.tell(first, {"say": "Again."})
        await scene.service.interrupt(first)
        await asyncio.gather(scene.finish(first), scene.finish(second))
        assert ["Second." in str(body["messages"]) for body in scene.api.bodies] == [False, True, False]
        assert "Again." in str(scene.api.bodies[-1]["messages"])

    local.play(story, max_sessions_at_work=1)


def test_model_requests_wait_in_line_and_an_interrupt_is_served_at_once(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        first = await scene.start({"say": "word " * 30, "stream": 60})
        await scene.asked(lambda api: len(api.requests) == 1)
        second, third = await scene.start({"say": "Second."}), await scene.start({"say": "Third."})
        await _in_line(scene, third, "waiting to ask the model, 1 before it (setting max_model_requests)")
        assert "span.model_request_start" not in await scene.types(second), "it has not begun"
        await scene.tell(third, say="And this.")
        stopped = await scene.service.interrupt(second)
        assert stopped.state.turns == 0 and len(scene.api.requests) == 1
        await scene.service.interrupt(first)
        assert (await scene.finish(third)).state.turns == 1
        sent = next(body for body in scene.api.bodies if "Third." in str(body["messages"][0]))
        assert "And this." in str(sent["messages"]), "what came meanwhile goes with the request"
        await scene.finish(second)

    local.play(story, max_model_requests=1)


def test_who_waits_for_a_sandbox_is_seen_to_and_an_interrupt_is_served_at_once(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        holds = await scene.start(call(bash("echo up > up; until [ -e on ]; do sleep 0.05; done")), {"say": "Done."})
        await scene.appears(holds, "up")
        waits, other = [await scene.start(call(bash("echo ran")), {"say": "$RESULT"}) for _ in range(2)]
        await _in_line(scene, waits, "waiting for a sandbox, ")
        await _in_line(scene, other, "waiting for a sandbox, ")
        view = await scene.service.interrupt(waits)
        assert (view.state.status, view.state.stop_reason) == ("idle", {"type": "end_turn"})
        assert (await _waits(scene, other)).startswith("waiting for a sandbox, none before it")
        await scene.service.write_workspace(holds, "on", b"")
        assert reply(await scene.finish(other)) == "ran"
        assert (await scene.finish(holds)).state.reply == "Done."

    local.play(story, max_sandboxes=1)


@pytest.mark.parametrize("most", [(1, 1, 1), (6, 1, 1)], ids=str)
def test_many_sessions_with_tiny_bounds_all_finish(local: Stage, most: Sequence[int]) -> None:
    async def story(scene: Scene) -> None:
        rounds = [call(bash("echo line >> file; wc -l < file"))] * ROUNDS
        sessions = [await scene.start(*rounds, {"say": f"{number}: $RESULT"}) for number in range(6)]
        views = [await scene.finish(session) for session in sessions]
        assert [reply(view) for view in views] == [f"{number}: {ROUNDS}" for number in range(6)]

    turns, sandboxes, requests = most
    local.play(story, max_sessions_at_work=turns, max_sandboxes=sandboxes, max_model_requests=requests)


def test_a_session_in_mid_turn_yields_its_sandbox_to_one_that_has_waited_and_goes_on_with_its_files(
    local: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(berths, "SLICE", 0.1)

    async def story(scene: Scene) -> None:
        thinks = await scene.start(
            call(bash("X=1; echo kept > file")),
            {"say": "word " * 20, "stream": 4, **call(bash("cat file; echo $X"))},
            {"say": "$RESULT"},
        )
        await scene.until(thinks, lambda event: event.type == "agent.tool_result")
        assert reply(await scene.turn(call(bash("echo ran")), {"say": "$RESULT"})) == "ran"
        assert (await scene.service.view(thinks)).state.status == "running"
        said = reply(await scene.finish(thinks))
        assert "stopped and started again" in said and said.endswith("kept")

    local.play(story, max_sandboxes=1)
