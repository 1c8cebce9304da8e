"""Calls that somebody outside answers: policies that ask, and tools that the client runs itself."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import Conflict, Refused
from tests.support.scenario import Scene, Stage, bash, call, reply, tool_results

ASKS = {
    "tools": [
        {
            "type": "agent_toolset_20260401",
            "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}],
        },
        {
            "type": "custom",
            "name": "lookup",
            "description": "Looks something up.",
            "input_schema": {"type": "object", "properties": {"key": {"type": "string"}}},
        },
    ]
}
LOOKUP = {"tool": "lookup", "input": {"key": "x"}}
READ = {"tool": "read", "input": {"file_path": "given.txt"}}


async def parked(scene: Scene, *steps: Any, **asked: Any) -> tuple[str, tuple[str, ...]]:
    """A session whose turn stands still: its id, and the calls that wait."""
    view = await scene.turn(*steps, agent=ASKS, **asked)
    assert (view.state.stop_reason or {}).get("type") == "requires_action"
    return view.id, view.state.awaited


def allow(call_id: str) -> dict[str, Any]:
    return {"type": "user.tool_confirmation", "tool_use_id": call_id, "result": "allow"}


def deny(call_id: str, why: str) -> dict[str, Any]:
    return {**allow(call_id), "result": "deny", "deny_message": why}


def result(call_id: str, text: str) -> dict[str, Any]:
    return {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": call_id,
        "content": [{"type": "text", "text": text}],
    }


def test_a_call_that_asks_runs_once_it_is_allowed_in_the_same_turn(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, (asks,) = await parked(scene, call(bash("echo ran | tee -a ran")), {"say": "$RESULT"})
        assert [event["evaluated_permission"] for event in await scene.events(session, "agent.tool_use")] == ["ask"]
        assert scene.app.role.engine is not None
        assert scene.app.role.engine.supervisor.at_work == []
        (echo,) = await scene.service.send_events(session, [allow(asks)])
        assert echo["processed_at"] is not None
        view = await scene.finish(session)
        assert (reply(view), view.state.turns) == ("ran", 1)
        assert [kind for kind in await scene.types(session) if kind.startswith("session.status")] == [
            "session.status_running",
            "session.status_idle",
            "session.status_running",
            "session.status_idle",
        ]

    stage.play(story)


def test_a_denied_call_is_not_run_and_the_model_hears_why(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, (asks,) = await parked(scene, call(bash("echo ran > ran")), {"say": "$RESULT"})
        await scene.service.send_events(session, [deny(asks, "Not on a Monday.")])
        view = await scene.finish(session)
        assert reply(view) == "Permission to use bash has been denied. Not on a Monday."
        assert "ran" not in await scene.names(session)

    local.play(story)


def test_what_may_run_runs_and_the_rest_waits_until_the_last_answer_has_come(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        steps = call(READ, bash("cat given.txt"), LOOKUP), {"say": "Done."}
        session, (asks, outside) = await parked(scene, *steps, files={"given.txt": b"given"})
        assert await scene.results(session) == ["given"]
        await scene.service.send_events(session, [result(outside, "42")])
        await scene.until(session, lambda event: (event.public or {}).get("stop_reason", {}).get("event_ids") == [asks])
        assert len(scene.api.requests) == 1
        await scene.service.send_events(session, [allow(asks)])
        assert reply(await scene.finish(session)) == "Done."
        assert tool_results(scene.api.bodies[-1]) == ["given", "given", "42"]

    local.play(story)


def test_the_clients_tool_is_offered_to_the_model_as_it_was_described(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, (outside,) = await parked(scene, call(LOOKUP), {"say": "$RESULT"})
        offered = {tool["name"]: tool for tool in scene.api.bodies[0]["tools"]}
        assert offered["lookup"]["description"] == "Looks something up."
        assert offered["lookup"]["input_schema"]["properties"] == {"key": {"type": "string"}}
        (used,) = await scene.events(session, "agent.custom_tool_use")
        assert (used["id"], used["name"], used["input"]) == (outside, "lookup", {"key": "x"})
        await scene.service.send_events(session, [result(outside, "forty-two")])
        assert reply(await scene.finish(session)) == "forty-two"

    local.play(story)


def test_a_message_is_refused_while_answers_are_due_and_may_come_with_the_last_one(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, (outside,) = await parked(scene, call(LOOKUP), {"say": "Done."})
        with pytest.raises(Refused, match="answers"):
            await scene.service.send_message(session, "Hello?")
        message = {"type": "user.message", "content": [{"type": "text", "text": "And be quick."}]}
        await scene.service.send_events(session, [result(outside, "42"), message])
        assert reply(await scene.finish(session)) == "Done."
        assert scene.api.bodies[-1]["messages"][-1]["content"][-1]["text"] == "And be quick."

    local.play(story)


def test_a_message_sent_before_the_turn_was_parked_is_heard_when_it_goes_on(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start({"say": "word " * 20, "call": [LOOKUP], "stream": 30}, {"say": "Done."}, agent=ASKS)
        await scene.until(session, lambda event: event.type == "span.model_request_start")
        await scene.tell(session, say="Heard?")
        view = await scene.finish(session)
        assert view.state.parked
        await scene.service.send_events(session, [result(view.state.awaited[0], "42")])
        await scene.finish(session)
        assert any(block.get("text") == "Heard?" for block in scene.api.bodies[-1]["messages"][-1]["content"])

    local.play(story)


def test_an_interrupt_of_a_parked_turn_closes_its_calls_and_takes_the_next_message(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session, _ = await parked(scene, call(LOOKUP, bash("echo ran > ran")), {"say": "Never said."})
        view = await scene.service.interrupt(session)
        assert (view.state.calls, view.state.stop_reason) == ((), {"type": "end_turn"})
        assert len(scene.api.requests) == 1
        assert reply(await scene.again(session, {"say": "Here again."})) == "Here again."
        said = scene.api.bodies[-1]["messages"][-1]["content"]
        assert [block.get("is_error") for block in said] == [True, True, None]
        with pytest.raises((Refused, Conflict)):
            await scene.service.send_events(session, [allow("sevt_x")])

    local.play(story)
