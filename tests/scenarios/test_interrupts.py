"""Interrupts, timeouts and dead sandboxes: the turn ends or goes on in words, the session lives on."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

from tests.support.scenario import (
    Scene,
    Stage,
    bash,
    call,
    commands,
    containers,
    docker,
    eventually,
    reply,
    said,
    script,
    tool_results,
)

TREE = "sleep 7531 & setsid sleep 7531 & (setsid sh -c 'sleep 7531; true' &); echo up > up; sleep 7531"
"""Children in the background, in sessions of their own, and orphaned; and one in front."""


async def _alive(scene: Scene, session: str) -> int:
    """The processes of TREE that are left, as the session's own shell sees them, in one more turn."""
    view = await scene.again(
        session,
        call(bash("grep -lasE '^sleep.7531' /proc/[0-9]*/cmdline | wc -l; echo $X; cat kept.txt")),
        {"say": "$RESULT"},
    )
    count, variable, kept = reply(view).splitlines()
    assert (variable, kept) == ("kept", "kept too")
    return int(count)


def test_an_interrupt_while_bash_runs_ends_its_whole_tree_and_leaves_shell_and_files(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(
            call(bash("X=kept; echo kept too > kept.txt")), call(bash(TREE)), {"say": "Never said."}
        )
        await scene.appears(session, "up")
        view = await scene.service.interrupt(session)
        assert (view.state.status, view.state.stop_reason, view.state.reply) == ("idle", {"type": "end_turn"}, None)
        assert len(scene.api.requests) == 2
        types = await scene.types(session)
        assert types.index("user.interrupt") > max(n for n, kind in enumerate(types) if kind == "agent.tool_result")
        assert await _alive(scene, session) == 0

    stage.play(story)


def test_an_interrupt_while_the_model_writes_aborts_the_request(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start({"say": "word " * 200, "stream": 60})
        deltas = scene.service.follow(session, deltas=True)
        async for news in deltas:
            if getattr(news, "text", ""):
                break
        view = await scene.service.interrupt(session)
        await scene.asked(lambda api: api.requests[0].aborted)
        assert (view.state.status, view.state.stop_reason, view.state.reply) == ("idle", {"type": "end_turn"}, None)
        assert "agent.message" not in await scene.types(session)
        (span,) = await scene.events(session, "span.model_request_end")
        assert span["is_error"]
        view = await scene.again(session, {"say": "Here again."})
        assert (view.state.reply, view.state.turns) == ("Here again.", 2)

    local.play(story)


def test_an_interrupt_before_the_sandbox_is_ready_ends_the_turn(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash("echo ran > ran")), {"say": "Never said."})
        await scene.until(session, lambda event: event.type == "agent.tool_use")
        view = await scene.service.interrupt(session)
        assert (view.state.status, view.state.calls) == ("idle", ())
        assert reply(await scene.again(session, call(bash("echo usable")), {"say": "$RESULT"})) == "usable"

    stage.play(story)


def test_an_interrupt_while_it_waits_to_ask_again_ends_the_turn(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start({"fail": {"status": 529, "retry_after": 500, "times": 9}}, {"say": "Never said."})
        await scene.until(session, lambda event: event.type == "session.status_rescheduled")
        assert (await scene.service.view(session)).state.status == "rescheduling"
        view = await scene.service.interrupt(session)
        assert (view.state.status, view.state.stop_reason) == ("idle", {"type": "end_turn"})
        assert (await scene.again(session, {"say": "At once."})).state.reply == "At once."

    local.play(story)


def test_a_message_queued_behind_an_interrupt_starts_the_next_turn(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash("echo up > up; sleep 1000")), {"say": "Never said."})
        await scene.appears(session, "up")
        await scene.tell(session, {"say": "I do this instead."})
        await scene.service.interrupt(session)
        view = await scene.finish(session)
        assert (view.state.reply, view.state.turns) == ("I do this instead.", 2)
        kinds = [kind for kind in await scene.types(session) if kind in ("user.message", "user.interrupt")]
        assert kinds == ["user.message", "user.interrupt", "user.message"]
        result = scene.api.bodies[-1]["messages"][-1]["content"][0]
        assert result["type"] == "tool_result" and result["is_error"]

    stage.play(story)


def test_an_interrupt_of_an_idle_session_changes_nothing(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn({"say": "Done already."})
        assert (await scene.service.interrupt(view.id)).state.seq == view.state.seq

    local.play(story)


def test_a_command_over_its_timeout_is_stopped_with_its_tree_and_the_turn_goes_on(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(
            call(bash("X=kept; echo kept too > kept.txt")),
            call(bash(f"echo before; {TREE}", timeout_ms=700)),
            {"say": "Timed out, as I saw."},
        )
        assert view.state.reply == "Timed out, as I saw."
        (result,) = tool_results(scene.api.bodies[-1])
        assert "before" in result and "700" in result.replace("0.7", "700")
        assert await _alive(scene, view.id) == 0

    stage.play(story)


def test_a_container_killed_in_mid_call_is_told_to_the_model_and_the_session_goes_on(engine: Stage) -> None:
    async def story(scene: Scene) -> None:
        folder = scene.app.settings.data_dir
        session = await scene.start(
            call(bash("X=1; echo once >> log; sleep 1000")),
            call(bash("echo after; cat log; echo X=$X")),
            {"say": "$RESULT"},
        )
        await scene.appears(session, "log")
        docker("kill", *containers(folder))
        view = await scene.finish(session)
        first, second = await scene.events(session, "agent.tool_result")
        assert first["is_error"] and "may or may not" in said(first) and "files are kept" in said(first)
        assert said(second).splitlines() == ["after", "once", "X="]
        assert view.state.stop_reason == {"type": "end_turn"}

    engine.play(story)


def test_a_container_removed_between_turns_is_made_again_around_its_files(engine: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(call(bash("echo here > file")), {"say": "Made."})
        docker("rm", "-f", *containers(scene.app.settings.data_dir))
        view = await scene.again(view.id, call(bash("cat file")), {"say": "$RESULT"})
        told, *_, kept = reply(view).splitlines()
        assert "files are kept" in told and kept == "here"

    engine.play(story)


def test_a_sandbox_process_killed_in_mid_call_is_told_to_the_model_and_the_session_goes_on(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(
            call(bash("echo once >> log; sleep 8642")), call(bash("echo after; cat log")), {"say": "$RESULT"}
        )
        await scene.appears(session, "log")
        for pid in await eventually(_bubblewrap_of("8642")):
            os.kill(pid, signal.SIGKILL)
        view = await scene.finish(session)
        first, second = await scene.results(session)
        assert "may or may not" in first
        assert second.splitlines()[-2:] == ["after", "once"]
        assert view.state.stop_reason == {"type": "end_turn"}

    local.play(story)


def _bubblewrap_of(mark: str) -> Callable[[], Awaitable[list[int]]]:
    """Looks for the outermost process of the sandbox in which a command with this mark runs."""

    async def look() -> list[int]:
        return [outer for pid in commands("sleep", mark) if (outer := _outermost(pid))]

    return look


def _outermost(pid: int) -> int:
    """The ancestor of a process that is a direct child of this one; 0 where there is none."""
    while pid > 1:
        with open(f"/proc/{pid}/stat") as stat:
            parent = int(stat.read().rpartition(")")[2].split()[1])
        if parent == os.getpid():
            return pid
        pid = parent
    return 0


def test_an_interrupt_with_a_message_waiting_stops_this_turn_and_says_that_the_next_one_runs(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash("echo up > up; sleep 1000")), {"say": "Never said."})
        await scene.appears(session, "up")
        await scene.service.send_message(session, script({"say": "slow " * 100, "stream": 30}))
        view = await scene.service.interrupt(session)
        assert view.state.turns >= 1 and not view.settled and not view.state.interrupted
        view = await scene.service.interrupt(session)
        assert view.settled and view.state.ending == "interrupted"

    local.play(story)


def test_an_answer_that_was_cut_off_is_not_taken_for_a_whole_one(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start({"say": "part", "stop": "max_tokens"})
        view = await scene.finish(session)
        assert (view.state.reply, view.state.ending) == ("part", "max_tokens")
        view = await scene.again(session, {"say": "whole"})
        assert (view.state.reply, view.state.ending) == ("whole", None)

    local.play(story)
