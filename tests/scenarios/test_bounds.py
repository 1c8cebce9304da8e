"""What is bounded in number and in time: sessions at work, live sandboxes, idleness."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from server.app import App, running
from server.errors import InvalidRequest
from server.sessions.service import NewSession
from server.settings import load
from tests.support.sandboxes import data_folder, require
from tests.support.scenario import eventually


def script(*steps: object) -> str:
    return f"```script\n{json.dumps(list(steps))}\n```"


def bash(command: str) -> dict[str, object]:
    return {"call": [{"tool": "bash", "input": {"command": command}}]}


def play(story: Callable[[App], Coroutine[Any, Any, None]], sandbox: str, **settings: object) -> None:
    """Tell a story of a Skiff with these settings, on a kind of sandbox that the machine must have."""
    require(sandbox)

    async def told(folder: Path) -> None:
        async with running(load(data_dir=folder, sandbox=sandbox, model="scripted", **settings)) as app:
            await story(app)

    with data_folder() as folder:
        asyncio.run(told(folder))


async def reply(app: App, session_id: str) -> str:
    (view,) = await app.service.wait([session_id], "all", 60)
    assert view.state.status == "idle", view.state
    return view.state.reply or ""


def test_more_sessions_than_may_work_at_once_wait_their_turn_and_all_end(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(data_dir=tmp_path, sandbox="local", model="scripted", max_sessions_at_work=1)
        async with running(settings) as app:
            asked = [NewSession(task=script({"say": f"number {n}"}), agent={"tools": []}) for n in range(4)]
            made = [await app.service.create_session(one) for one in asked]
            assert [await reply(app, view.id) for view in made] == [f"number {n}" for n in range(4)]

    asyncio.run(story())


def test_a_sandbox_too_many_stops_the_longest_idle_one_whose_files_stay() -> None:
    async def story(app: App) -> None:
        first = await app.service.create_session(NewSession(task=script(bash("echo kept > file"), {"say": "a"})))
        assert await reply(app, first.id) == "a"
        second = await app.service.create_session(NewSession(task=script(bash("echo here"), {"say": "$RESULT"})))
        assert "here" in await reply(app, second.id)
        await app.service.send_message(first.id, script(bash("cat file"), {"say": "$RESULT"}))
        said = await reply(app, first.id)
        assert "kept" in said and "stopped and started again" in said
        for session in (first, second):
            await app.service.delete_session(session.id, if_running="interrupt")

    play(story, "local", max_sandboxes=1)


def test_an_idle_sandbox_is_stopped_and_the_next_message_starts_it_with_its_files() -> None:
    async def story(app: App) -> None:
        task = script(bash("echo kept > file; X=1"), {"say": "a"})
        session = await app.service.create_session(NewSession(task=task))
        assert await reply(app, session.id) == "a"
        engine = app.role.engine
        assert engine is not None

        async def stopped() -> bool:
            return not engine.workspaces.attached(session.id)

        await eventually(stopped, "the stop")
        await app.service.send_message(session.id, script(bash('cat file; echo "X=$X"'), {"say": "$RESULT"}))
        said = await reply(app, session.id)
        assert "stopped and started again" in said and "kept" in said and said.rstrip().endswith("X=")
        await app.service.delete_session(session.id, if_running="interrupt")

    play(story, "local", stop_after=1)


def test_a_sandbox_that_cannot_be_started_again_keeps_its_files() -> None:
    async def story(app: App) -> None:
        task = script(bash("echo precious > keep.txt"), {"say": "a"})
        session = await app.service.create_session(NewSession(task=task))
        assert await reply(app, session.id) == "a"
        container = await container_of(app.settings.data_dir, session.id)
        docker("stop", "-t", "0", container)
        docker("update", "--memory", "6m", "--memory-swap", "6m", container)
        await app.service.send_message(session.id, script(bash("cat keep.txt"), {"say": "$RESULT"}))
        assert "files are kept" in await reply(app, session.id)
        docker("update", "--memory", "512m", "--memory-swap", "512m", container)
        await app.service.send_message(session.id, script(bash("cat keep.txt"), {"say": "$RESULT"}))
        assert "precious" in await reply(app, session.id)
        await app.service.delete_session(session.id, if_running="interrupt")

    play(story, "docker", pool=0)


def docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True, timeout=60)


async def container_of(folder: Path, session_id: str) -> str:
    with contextlib.closing(sqlite3.connect(folder / "skiff.db")) as database:
        row = database.execute("SELECT container FROM sandboxes WHERE session_id = ?", (session_id,)).fetchone()
    return str(row[0])


@pytest.mark.parametrize(
    "files",
    [{"a": b"", "a/b": b""}, {"x" * 300: b""}, {".": b""}, {f"f{n}": b"" for n in range(501)}, {"a": b"", "./a": b""}],
)
def test_files_that_could_not_be_placed_are_refused_at_once(files: dict[str, bytes], tmp_path: Path) -> None:
    async def story() -> None:
        async with running(load(data_dir=tmp_path, sandbox="local", model="scripted")) as app:
            with pytest.raises(InvalidRequest):
                await app.service.create_session(NewSession(files=files))

    asyncio.run(story())


def test_five_sessions_that_want_a_sandbox_at_once_get_no_more_than_are_allowed() -> None:
    async def story(app: App) -> None:
        asked = [NewSession(task=script(bash("sleep 0.3; echo x > f"), {"say": f"{n}"})) for n in range(5)]
        made = [await app.service.create_session(one) for one in asked]
        engine = app.role.engine
        assert engine is not None
        most = 0

        async def all_done() -> bool:
            nonlocal most
            most = max(most, sum(engine.workspaces.attached(view.id) for view in made))
            return all([(await app.service.view(view.id)).settled for view in made])

        await eventually(all_done, "the end of all five")
        assert [await reply(app, view.id) for view in made] == ["0", "1", "2", "3", "4"]
        assert 0 < most <= 2
        for view in made:
            await app.service.delete_session(view.id, if_running="interrupt")

    play(story, "local", max_sandboxes=2)
