"""Whole turns: calls side by side, messages steered in, files, prompt cache, many sessions at once."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from server.errors import Conflict, NotFound
from server.sessions.service import NewSession
from tests.support.scenario import Scene, Stage, bash, call, reply, said, script, tool_results


def test_a_task_is_worked_on_in_the_sandbox_and_its_reply_and_files_come_back(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(
            call({"tool": "write", "input": {"file_path": "hello.py", "content": "print(6 * 7)\n"}}),
            call(bash("python3 hello.py")),
            {"say": "It printed $RESULT"},
            files={"given.txt": b"from outside"},
        )
        assert (view.state.status, reply(view)) == ("idle", "It printed 42")
        assert view.state.stop_reason == {"type": "end_turn"}
        assert (view.state.turns, view.state.tool_calls, view.state.requests) == (1, 2, 3)
        assert {"given.txt", "hello.py"} <= set(await scene.names(view.id))
        assert await scene.file(view.id, "given.txt") == "from outside"
        assert (await scene.types(view.id))[-1] == "session.status_idle"

    stage.play(story)


def test_calls_of_one_answer_run_side_by_side_and_are_answered_in_their_order(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(
            call(
                bash("until [ -e go ]; do sleep 0.02; done; cat go", timeout_ms=20_000),
                {"tool": "write", "input": {"file_path": "go", "content": "was not waited for"}},
                {"tool": "glob", "input": {"pattern": "nothing*"}},
            ),
            {"say": "Done."},
        )
        assert view.state.reply == "Done."
        first, second, third = tool_results(scene.api.bodies[-1])
        assert first == "was not waited for"
        assert "/workspace/go" in second and "No files" in third

    stage.play(story)


def test_a_message_sent_while_tools_run_is_steered_in_after_their_results(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(
            call(bash("until [ -e on ]; do sleep 0.02; done; echo finished")),
            {"say": "I heard $LAST_USER"},
        )
        await scene.until(session, lambda event: event.type == "agent.tool_use")
        first = await scene.tell(session, say="Use metric units.")
        await scene.tell(session, say="And be brief.")
        assert [item.type for item in first.state.queue] == ["user.message"]
        queued = await scene.events(session, "user.message")
        assert [event["processed_at"] is None for event in queued] == [False, True, True]

        await scene.service.write_workspace(session, "on", b"")
        view = await scene.finish(session)
        result, *steered = scene.api.bodies[-1]["messages"][-1]["content"]
        assert result["type"] == "tool_result"
        assert [block["text"] for block in steered] == ["Use metric units.", "And be brief."]
        assert len(scene.api.requests) == 2 and view.state.turns == 1
        assert view.state.reply is not None and "And be brief." in view.state.reply
        around = ["user.message", "agent.tool_use", "agent.tool_result", "user.message", "user.message"]
        assert await _places(scene, session) == around

    stage.play(story)


async def _places(scene: Scene, session: str) -> list[str]:
    wanted = ("user.message", "agent.tool_use", "agent.tool_result")
    return [event["type"] for event in await scene.events(session, *wanted)]


def test_a_message_sent_while_the_model_writes_is_answered_in_the_same_turn(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start({"say": "one two three four five six seven eight nine ten", "stream": 0.5})
        await scene.asked(lambda api: len(api.requests) == 1)
        await scene.tell(session, {"say": "Second answer."})
        view = await scene.finish(session)
        assert (view.state.turns, view.state.requests, view.state.reply) == (1, 2, "Second answer.")
        assert [message["role"] for message in scene.api.bodies[-1]["messages"]] == ["user", "assistant", "user"]

    local.play(story)


def test_prompts_grow_by_appending_and_cache_reads_grow_with_them(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        agent = {"system": "You are careful. " * 500}
        view = await scene.turn(call(bash("seq 2000")), {"say": "Counted."}, agent=agent)
        reads = [view.state.usage.cache_read_input_tokens]
        for _ in range(3):
            view = await scene.again(view.id, call(bash("seq 1000")), {"say": "Counted again."})
            reads.append(view.state.usage.cache_read_input_tokens)
        assert reads[0] > 0 and _grows([b - a for a, b in pairwise(reads)])

        bodies = [_unmarked(body) for body in scene.api.bodies]
        for before, after in pairwise(bodies):
            assert (after["system"], after["tools"]) == (before["system"], before["tools"])
            assert after["messages"][: len(before["messages"])] == before["messages"]
        spans = await scene.events(view.id, "span.model_request_end")
        assert all(span["model_usage"]["cache_read_input_tokens"] > 0 for span in spans[1:])
        assert all(span["model_usage"]["input_tokens"] < 50 for span in spans)

    local.play(story)


def _grows(numbers: list[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


def _unmarked(value: Any) -> Any:
    """The request without its moving cache marks."""
    if isinstance(value, dict):
        return {key: _unmarked(item) for key, item in value.items() if key != "cache_control"}
    return [_unmarked(item) for item in value] if isinstance(value, list) else value


def test_a_request_key_asked_twice_makes_one_session_and_sends_one_message(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        asked = NewSession(task=script({"say": "Once."}), request_key="make-1")
        first, second = await scene.service.create_session(asked), await scene.service.create_session(asked)
        assert first.id == second.id
        await scene.finish(first.id)
        for _ in range(2):
            await scene.service.send_message(first.id, script({"say": "Twice."}), "send-1")
        view = await scene.finish(first.id)
        await scene.service.send_message(first.id, script({"say": "Twice."}), "send-1")
        assert (await scene.finish(first.id)).state.requests == view.state.requests == 2
        with pytest.raises(Conflict, match="request_key"):
            await scene.service.send_message(first.id, "Something else.", "send-1")
        assert len(await scene.service.list_sessions()) == 1

    local.play(story)


def test_a_session_deleted_while_it_works_takes_its_sandbox_along(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash("echo yes > started; sleep 1000")), {"say": "Never."})
        await scene.appears(session, "started")
        waiting = asyncio.create_task(scene.service.wait([session], "all", 50))
        with pytest.raises(Conflict, match="running"):
            await scene.service.delete_session(session, if_running="refuse")
        await scene.service.delete_session(session, if_running="interrupt")
        with pytest.raises(NotFound):
            await scene.service.view(session)
        with pytest.raises(NotFound):
            await asyncio.wait_for(waiting, 10)
        assert len(scene.api.requests) == 1
        assert (await scene.turn({"say": "Others work."})).state.reply == "Others work."

    stage.play(story)


def test_a_session_deleted_while_its_sandbox_is_made_leaves_nothing(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash("true")), {"say": "Never."})
        await scene.until(session, lambda event: event.type == "span.model_request_start")
        await scene.service.delete_session(session, if_running="interrupt")

    stage.play(story, pool=1)


def test_twenty_sessions_at_once_keep_their_work_apart(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        numbers = range(20)
        look = call(bash("echo $X; cat mine"))
        sessions = await asyncio.gather(
            *(scene.start(call(bash(f"X={n}; echo $X > mine")), look, {"say": "$RESULT"}) for n in numbers)
        )
        views = await scene.service.wait(sessions, "all", 60)
        assert [reply(view) for view in views] == [f"{n}\n{n}" for n in numbers]
        assert len({view.id for view in views}) == 20

    stage.play(story, sandbox_cpus=0.5)


def test_the_last_message_is_readable_before_the_session_is_idle(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start({"say": "Read me."})
        await scene.until(session, lambda event: event.type == "session.status_idle")
        (message,) = await scene.events(session, "agent.message")
        assert said(message) == "Read me."

    local.play(story)
