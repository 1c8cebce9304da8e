"""A container engine that is restarted, killed, or away for a while, under sessions that use it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from sandbox import wire
from tests.support.private_engine import PrivateEngine, private_engine, require_private_engine
from tests.support.scenario import Scene, Stage, bash, call, eventually, reply, stage_for

pytestmark = pytest.mark.docker
TALKING = "echo once >> log; until test -e go; do echo .; sleep 0.1; done; echo done"
WAITING = "X=kept; echo once >> log; until test -e go; do sleep 0.1; done; echo done"


@pytest.fixture(scope="module")
def ours() -> Iterator[PrivateEngine]:
    """One engine for all of these tests: it costs a few seconds to bring the image into it."""
    require_private_engine()
    with private_engine() as engine:
        engine.start(live_restore=True)
        engine.copy_image()
        yield engine


@pytest.fixture
def stage(ours: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = stage_for("docker", monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", ours.host)
    return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_with_live_restore_a_command_outlives_its_engine_and_its_result_comes(
    stage: Stage, ours: PrivateEngine, how: signal.Signals
) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash(WAITING)), call(bash("echo $X; wc -l < log")), {"say": "$RESULT"})
        await scene.appears(session, "log")
        await asyncio.to_thread(ours.stop, how)
        await asyncio.to_thread(ours.start, live_restore=True)
        await scene.service.write_workspace(session, "go", b"now")
        view = await scene.finish(session)
        first, second = await scene.results(session)
        assert (first, second) == ("done\n", "kept\n1\n"), "the command ran once, and its shell lives on"
        assert view.state.stop_reason == {"type": "end_turn"}

    stage.play(story)


def test_without_live_restore_a_call_is_told_as_lost_and_the_files_are_kept(stage: Stage, ours: PrivateEngine) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash(WAITING)), call(bash("echo X=$X; cat log")), {"say": "$RESULT"})
        await scene.appears(session, "log")
        await asyncio.to_thread(ours.stop)
        await asyncio.to_thread(ours.start)
        view = await scene.finish(session)
        first, second = await scene.results(session)
        assert "may or may not" in first and "files are kept" in first
        assert (second, view.state.stop_reason) == ("X=\nonce\n", {"type": "end_turn"})

    ours.lives_alone()
    stage.play(story)


def test_while_the_engine_is_away_calls_are_answered_in_words_and_afterwards_all_goes_on(
    stage: Stage, ours: PrivateEngine
) -> None:
    async def story(scene: Scene) -> None:
        session = (await scene.turn(call(bash("echo here > file")), {"say": "Made."})).id
        await asyncio.to_thread(ours.stop)
        try:
            view = await scene.again(session, call(bash("cat file")), {"say": "$RESULT"})
            assert "No sandbox could be used: no container engine answers" in reply(view)
            fresh = await scene.turn(call(bash("true")), {"say": "$RESULT"})
            assert "no container engine answers" in reply(fresh)
        finally:
            await asyncio.to_thread(ours.start)
        view = await scene.again(session, call(bash("cat file")), {"say": "$RESULT"})
        assert "files are kept" in reply(view) and reply(view).splitlines()[-1] == "here"
        assert reply(await scene.again(fresh.id, call(bash("echo up")), {"say": "$RESULT"})) == "up"

    ours.lives_alone()
    stage.play(story)


def test_an_engine_that_hangs_is_noticed_and_its_command_goes_on_when_it_does(
    stage: Stage, ours: PrivateEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 1.5)

    async def noticed() -> bool:
        return any("was silent for" in line for line in caplog.messages)

    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash(TALKING)), call(bash("wc -l < log")), {"say": "$RESULT"})
        await scene.appears(session, "log")
        caplog.clear()
        with ours.hanging():
            await eventually(noticed)
        await scene.service.write_workspace(session, "go", b"now")
        assert reply(await scene.finish(session)) == "1"
        assert (await scene.results(session))[0].splitlines()[-1] == "done"

    stage.play(story)
