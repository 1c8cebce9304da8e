"""Turns that stand still, and everything that may happen to them meanwhile."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest

from server.app import App, running
from server.errors import NotFound, Refused
from server.sessions.service import NewSession, SessionView
from server.settings import Settings
from tests.scenarios.test_asking import ASKS, LOOKUP, allow, parked, result
from tests.support.program import Machine, play
from tests.support.sandboxes import require
from tests.support.scenario import MODEL, SECONDS, OpenAgain, Scene, Stage, bash, call, reply, script, tool_results

INTERRUPT = {"type": "user.interrupt"}
HELLO = {"type": "user.message", "content": [{"type": "text", "text": "Hello."}]}


async def attention(scene: Scene, session: str) -> bool:
    return (await scene.service.view(session)).row.attention


def test_a_turn_that_is_interrupted_just_when_its_last_answer_came_says_that_it_ended(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, (outside,) = await parked(scene, call(LOOKUP), {"say": "Never said."})
        await scene.service.send_events(session, [result(outside, "42"), INTERRUPT])
        view = await scene.finish(session)
        assert (view.state.stop_reason, len(scene.api.requests)) == ({"type": "end_turn"}, 1)
        idle = (await scene.events(session, "session.status_idle"))[-1]
        assert idle["stop_reason"] == {"type": "end_turn"}
        assert not await attention(scene, session)
        assert reply(await scene.again(session, {"say": "Here."})) == "Here."

    local.play(story)


def test_a_message_may_follow_an_interrupt_of_a_parked_turn_at_once(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        for _ in range(5):
            session, (outside,) = await parked(scene, call(LOOKUP), {"say": "After it."})
            await scene.service.send_events(session, [INTERRUPT])
            await scene.service.send_events(session, [HELLO])
            await scene.finish(session)
            with pytest.raises(Refused):
                await scene.service.send_events(session, [result(outside, "late")])

    local.play(story)


def test_parked_sessions_hold_no_place_and_none_looks_busy(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        waiting = [await parked(scene, call(LOOKUP), {"say": "$RESULT"}) for _ in range(3)]
        assert reply(await scene.turn({"say": "Through."})) == "Through."
        for session, _ in waiting:
            assert not await attention(scene, session)
        await asyncio.gather(
            *(scene.service.send_events(session, [result(outside, session)]) for session, (outside,) in waiting)
        )
        for session, _ in waiting:
            assert reply(await scene.finish(session)) == session
            assert not await attention(scene, session)

    local.play(story, max_sessions_at_work=1)


def test_of_two_answers_at_once_one_counts(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, (outside,) = await parked(scene, call(LOOKUP), {"say": "$RESULT"})
        came = await asyncio.gather(
            *(scene.service.send_events(session, [result(outside, name)]) for name in ("one", "two", "three")),
            return_exceptions=True,
        )
        assert [type(each) for each in came if isinstance(each, BaseException)] == [Refused, Refused]
        assert reply(await scene.finish(session)) in ("one", "two", "three")
        assert len(await scene.events(session, "user.custom_tool_result")) == 1

    local.play(story)


def test_answers_race_archives_and_deletions_and_leave_nothing_half_done(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        for number in range(6):
            session, (outside,) = await parked(scene, call(LOOKUP), {"say": "$RESULT"})
            end = scene.service.archive_session if number % 2 else scene.service.remove_session
            acts = [end(session), scene.service.send_events(session, [result(outside, "42")])]
            came = await asyncio.gather(*(acts if number < 3 else acts[::-1]), return_exceptions=True)
            with suppress(NotFound):
                view = await scene.finish(session)
                assert not await attention(scene, session), came
                assert view.state.status == "terminated" or reply(view) == "42", came

    local.play(story)


def test_tools_changed_while_a_turn_is_parked_are_there_when_it_goes_on(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, (asks,) = await parked(scene, call(bash("echo ran")), {"say": "$RESULT"})
        await scene.service.update_session(session, {"agent": {"tools": ASKS["tools"][:1]}})
        await scene.service.send_events(session, [allow(asks)])
        assert reply(await scene.finish(session)) == "ran"
        offered = [[tool["name"] for tool in body["tools"]] for body in scene.api.bodies]
        assert ["lookup" in names for names in offered] == [True, False]

    local.play(story)


def test_a_failure_that_says_nothing_does_not_spoil_the_conversation(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, (outside,) = await parked(scene, call(LOOKUP), {"say": "$RESULT"})
        silent = {"type": "user.custom_tool_result", "custom_tool_use_id": outside, "is_error": True}
        await scene.service.send_events(session, [silent])
        assert reply(await scene.finish(session)) == "The tool failed."

    local.play(story)


def test_parked_turns_live_through_restarts_and_say_the_same_bytes(stage: Stage) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            session, (asks, outside) = await parked(
                scene, call(bash("echo ran >> ran; cat ran"), LOOKUP), {"say": "Done."}
            )
            first = json.dumps(scene.api.bodies[0]["messages"][0]["content"][0]["text"])
        async with open_again(False) as scene:
            await scene.service.send_events(session, [allow(asks)])
            await scene.until(session, lambda e: (e.public or {}).get("stop_reason", {}).get("event_ids") == [outside])
        async with open_again(True) as scene:
            await scene.service.send_events(session, [result(outside, "ä 42")])
            view = await scene.finish(session)
            assert (view.state.turns, reply(view)) == (1, "Done.")
            ran, found = tool_results(scene.api.bodies[-1])
            assert (ran.splitlines()[-1], ran.count("ran"), found) == ("ran", 1, "ä 42")
            assert json.dumps(scene.api.bodies[-1]["messages"][0]["content"][0]["text"]) == first
            assert scene.api.bodies[-1]["tools"] == scene.api.bodies[0]["tools"]
            assert not await attention(scene, session)

    stage.play_lives(story)


# --- real processes --------------------------------------------------------------------------------------------------


async def _rests(door: App, session: str, *waits: str) -> SessionView:
    """The session at rest, with these calls waiting."""
    async with asyncio.timeout(SECONDS):
        while True:
            (view,) = await door.service.wait([session], "all", 1.0)
            if view.settled and view.state.awaited == waits:
                return view
            await asyncio.sleep(0.05)


def test_killed_while_parked_half_answered_and_answered_the_turn_goes_on_once() -> None:
    async def story(machine: Machine) -> None:
        given: dict[str, Any] = {"data_dir": machine.folder, "sandbox": "local", "model": MODEL}
        settings = Settings(**given)
        async with machine.host() as host, running(settings, lead=False) as door:
            asked: dict[str, Any] = {"agent": ASKS}
            task = script(call(bash("echo ran >> ran; cat ran"), LOOKUP), {"say": "Done."})
            session = (await door.service.create_session(NewSession(task=task, **asked))).id
            (view,) = await door.service.wait([session], "all", SECONDS)
            asks, outside = view.state.awaited
            host.kill()
        async with running(settings, lead=False) as door:
            await door.service.send_events(session, [allow(asks)])
        async with machine.host() as host, running(settings, lead=False) as door:
            await _rests(door, session, outside)
            await door.service.send_events(session, [result(outside, "42")])
            host.kill()
        async with machine.host() as host, running(settings, lead=False) as door:
            view = await _rests(door, session)
            assert (reply(view), view.state.turns) == ("Done.", 1)
            ran, found = tool_results(machine.api.bodies[-1])
            assert (ran.splitlines()[-1], ran.count("ran"), found) == ("ran", 1, "42")
            assert not (await door.service.view(session)).row.attention
            await host.call("delete_session", session_id=session)

    require("local")
    play("local", story)
