"""What others do to our containers and volumes, on the real engine: a clear result, and a session that goes on.

That a container is killed in mid-call, or removed between turns, is told in `test_interrupts.py`; what an engine's own
restart does, in `test_engine_faults.py`.
"""

from __future__ import annotations

import pytest

from sandbox import wire
from sandbox.wire import SESSION
from tests.support.scenario import Scene, Stage, bash, call, containers, docker, reply, said

TALKING = "echo once >> log; until test -e go; do echo .; sleep 0.1; done; echo done"
"""A command that is heard all the time, until the file `go` is there."""


def test_a_container_that_somebody_pauses_in_mid_call_is_resumed_and_its_result_comes(
    engine: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 1.5)

    async def story(scene: Scene) -> None:
        session = await scene.start(call(bash(TALKING)), call(bash("wc -l < log")), {"say": "$RESULT"})
        await scene.appears(session, "log")
        docker("pause", *containers(scene.app.settings.data_dir))
        await scene.service.write_workspace(session, "go", b"now")
        view = await scene.finish(session)
        first, count = await scene.events(session, "agent.tool_result")
        assert said(first).splitlines()[-1] == "done" and not first.get("is_error")
        assert (said(count).strip(), reply(view)) == ("1", "1")

    engine.play(story)


def test_a_container_that_somebody_paused_while_it_was_idle_is_resumed_by_the_next_call(
    engine: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 1.5)

    async def story(scene: Scene) -> None:
        session = (await scene.turn(call(bash("X=kept")), {"say": "Made."})).id
        docker("pause", *containers(scene.app.settings.data_dir))
        view = await scene.again(session, call(bash("echo $X")), {"say": "$RESULT"})
        assert reply(view) == "kept"

    engine.play(story)


def test_a_container_removed_in_mid_call_is_made_anew_around_its_files(engine: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start(
            call(bash("echo once >> log; sleep 1000")), call(bash("cat log")), {"say": "$RESULT"}
        )
        await scene.appears(session, "log")
        docker("rm", "-f", *containers(scene.app.settings.data_dir))
        view = await scene.finish(session)
        first, second = await scene.results(session)
        assert "may or may not" in first and "files are kept" in first
        assert (second, view.state.stop_reason) == ("once\n", {"type": "end_turn"})

    engine.play(story)


def test_a_container_removed_with_its_volumes_is_made_anew_and_the_loss_is_said(engine: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = (await scene.turn(call(bash("echo here > old")), {"say": "Made."})).id
        (container,) = containers(scene.app.settings.data_dir)
        volumes = docker("inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}", container).split()
        docker("rm", "-f", container)
        docker("volume", "rm", *volumes)
        view = await scene.again(session, call(bash("ls; echo new > file")), {"say": "$RESULT"})
        assert "lost with all its files" in reply(view) and "old" not in reply(view).split()
        assert "file" in await scene.names(session)

    engine.play(story)


def test_what_a_session_was_given_comes_back_when_somebody_took_it_away_beside_its_files(engine: Stage) -> None:
    async def story(scene: Scene) -> None:
        folder, files = scene.app.settings.data_dir, scene.app.uses.files
        session = (await scene.turn(call(bash("echo mine > file")), {"say": "Made."})).id
        async with files.receiving() as incoming:
            await incoming.write(b"given\n")
            kept = await files.keep(incoming, "note.txt", "text/plain", None)
        given = await files.add_resource(session, {"type": "file", "file_id": kept["id"]})
        (container,) = containers(folder)
        mounts = docker("inspect", "-f", "{{range .Mounts}}{{.Destination}} {{.Name}}\n{{end}}", container)
        volumes = dict(line.split() for line in mounts.splitlines() if line)
        docker("rm", "-f", container)
        docker("volume", "rm", volumes[SESSION])
        view = await scene.again(session, call(bash(f"cat file {given['mount_path']}")), {"say": "$RESULT"})
        assert "/mnt/session/outputs) is lost" in reply(view) and "files are kept" in reply(view)
        assert reply(view).splitlines()[-2:] == ["mine", "given"]

    engine.play(story)
