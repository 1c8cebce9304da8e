"""What a model or its provider can do wrong: retries that show, failures that end a turn but never a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.pace import Waits
from tests.support.scenario import Scene, Stage, bash, call, reply, said, tool_results

RETRIED: list[Any] = [
    pytest.param({"fail": {"status": 529, "retry_after": 0}}, "model_overloaded_error", id="529"),
    pytest.param({"fail": {"status": 529, "after": 4}}, "model_overloaded_error", id="an error inside the stream"),
    pytest.param({"cut": 5}, "model_request_failed_error", id="a cut stream"),
]


@pytest.mark.parametrize(("manner", "error_type"), RETRIED)
def test_a_passing_failure_shows_and_is_tried_again(local: Stage, manner: Mapping[str, Any], error_type: str) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn({**manner, "say": "It went well in the end."})
        assert (view.state.reply, view.state.turns) == ("It went well in the end.", 1)
        (error,) = await scene.events(view.id, "session.error")
        assert error["error"]["type"] == error_type
        assert error["error"]["retry_status"] == {"type": "retrying"}
        types = await scene.types(view.id)
        around = ["session.error", "session.thread_status_rescheduled", "session.status_rescheduled"]
        at = types.index("session.error")
        assert types[at : at + 4] == [*around, "session.status_running"]
        assert [event["is_error"] for event in await scene.events(view.id, "span.model_request_end")] == [True, False]
        assert types.count("agent.message") == 1 and len(scene.api.requests) == 2
        assert scene.api.bodies[0] == scene.api.bodies[1]

    local.play(story, pace=Waits().pace)


def test_a_turn_that_goes_round_and_round_is_ended_by_its_bound(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(*[call(bash("true"))] * 9)
        assert view.state.stop_reason == {"type": "retries_exhausted"}
        assert (view.state.requests, view.state.calls) == (3, ())
        assert (await scene.again(view.id, {"say": "Went on."})).state.reply == "Went on."

    local.play(story, requests_per_turn=3)


def test_a_refusal_ends_the_turn_and_its_calls_do_not_run(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn({"say": "I would rather", "stop": "refusal", "call": [bash("echo ran > ran")]})
        stop = (await scene.events(view.id, "session.status_idle"))[-1]
        assert stop["stop_reason"] == {"type": "refusal"}
        assert stop["stop_details"]["type"] == "refusal"
        assert view.state.tool_calls == 0
        view = await scene.again(view.id, call(bash("ls")), {"say": "<$RESULT>"})
        assert "ran" not in (await scene.results(view.id))[-1].split()

    local.play(story)


def test_a_call_cut_off_by_the_answers_length_is_not_run(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        cut = {**call({"tool": "bash", "garbled": '{"command": "echo ran > ra'}), "stop": "max_tokens"}
        view = await scene.turn(cut, call(bash("ls")), {"say": "Looked."})
        assert view.state.reply == "Looked."
        first, second = await scene.events(view.id, "agent.tool_result")
        assert first["is_error"] and "length limit" in said(first)
        assert "ran" not in said(second).split()

    local.play(story)


@pytest.mark.parametrize("garbled", ['{"command": ', "[1, 2]", '"text"', "nothing like it"])
def test_malformed_input_is_answered_with_an_error_that_the_model_can_act_on(local: Stage, garbled: str) -> None:
    async def story(scene: Scene) -> None:
        wrong = {"tool": "bash", "garbled": garbled}
        view = await scene.turn(call(wrong, bash("echo beside it")), {"say": "$RESULT"})
        first, second = tool_results(scene.api.bodies[-1])
        assert "not valid JSON" in first and second == "beside it\n"
        assert view.state.tool_calls == 2

    local.play(story)


def test_wrong_arguments_and_unknown_tools_are_answered_without_a_sandbox_call(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(
            call(
                {"tool": "bash", "input": {"cmd": "ls"}},
                {"tool": "read", "input": {}},
                {"tool": "launch", "input": {"where": "moon"}, "force": True},
                {"tool": "edit", "input": {"file_path": "a", "old_string": 7, "new_string": "x"}},
            ),
            {"say": "I see."},
        )
        assert view.state.reply == "I see."
        no_input, no_path, no_tool, no_text = tool_results(scene.api.bodies[-1])
        assert "`cmd`" in no_input and "`file_path`" in no_path and "'launch'" in no_tool and "`old_string`" in no_text
        uses = {event["name"]: event["evaluated_permission"] for event in await scene.events(view.id, "agent.tool_use")}
        assert uses == {"bash": "allow", "read": "allow", "launch": "deny", "edit": "allow"}
        assert all(event["is_error"] for event in await scene.events(view.id, "agent.tool_result"))

    local.play(story)


def test_a_tool_that_the_agent_does_not_have_is_refused(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        shell = {"tool": "bash", "input": {"command": "echo ran"}, "force": True}
        view = await scene.turn(call(shell), {"say": "Refused."}, agent={"tools": ["read"]})
        assert reply(view) == "Refused."
        assert "no tool 'bash'" in (await scene.results(view.id))[0]

    local.play(story)
