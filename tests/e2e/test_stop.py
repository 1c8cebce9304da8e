"""`skiff stop`, as a process of its own beside the one that drives the sessions, and where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.app import App
from server.commands import stop as commands
from server.errors import InvalidRequest, NotFound
from server.sessions.service import NewSession
from server.settings import load
from tests.e2e.test_commands import skiff
from tests.support.factories import running_app, script


async def hanging(app: App, count: int) -> list[str]:
    """Sessions whose model was asked and never answers."""
    asked = NewSession(task=script({"hang": True}), agent={"tools": []}, title="long work")
    made = [(await app.service.create_session(asked)).id for _ in range(count)]
    for session_id in made:
        async with asyncio.timeout(20):
            async for event in app.service.follow(session_id):
                if getattr(event, "type", "") == "span.model_request_start":
                    break
    return made


async def stop(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """What the command said, and its exit code."""
    done = await asyncio.to_thread(skiff, "stop", *arguments, "--data-dir", str(folder))
    return done.returncode, (done.stdout + done.stderr).splitlines()


def named(lines: Sequence[str], ending: str) -> set[str]:
    return {line.split()[0] for line in lines if ending in line}


def test_everything_at_work_is_interrupted_whoever_drives_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_app(tmp_path) as app:
            one, two, three = await hanging(app, 3)
            code, lines = await stop(tmp_path, one)
            assert (code, named(lines, "(long work): stopped, after 0 tool calls")) == (0, {one})
            code, lines = await stop(tmp_path, "--all")
            assert (code, named(lines, "stopped")) == (0, {two, three})
            for session_id in (one, two, three):
                view = await app.service.view(session_id)
                assert view.settled and view.state.ending == "interrupted"
            assert await stop(tmp_path, "--all") == (0, ["Nothing is at work."])

    asyncio.run(story())


def test_where_nobody_drives_them_they_stop_when_somebody_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_app(tmp_path) as app:
            (session_id,) = await hanging(app, 1)
        code, lines = await stop(tmp_path, "--all")
        assert (code, named(lines, "will stop when")) == (0, {session_id})
        async with running_app(tmp_path) as app:
            (view,) = await app.service.wait([session_id], "all", 20)
            assert (view.state.ending, view.state.requests) == ("interrupted", 1), "its model was not asked again"

    asyncio.run(story())


def test_it_has_to_be_said_what_to_stop(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path, sandbox="local", model="scripted")
    for session_id, every in ((None, False), ("sesn_1", True)):
        with pytest.raises(InvalidRequest, match="Name one session, or say --all"):
            asyncio.run(commands.stop(settings, session_id, every))
    with pytest.raises(NotFound, match="sesn_nobody"):
        asyncio.run(commands.stop(settings, "sesn_nobody", False))
