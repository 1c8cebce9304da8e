"""Several processes on one data folder, of which one is the engine; and a server that is asked to leave."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.app import App, running
from server.errors import Conflict, NotFound
from server.sessions.sandboxing.workspace import File
from server.sessions.service import NewSession, SessionView
from server.settings import Settings
from tests.e2e.test_processes import COUNTED
from tests.support.program import Machine, play
from tests.support.sandboxes import require
from tests.support.scenario import MODEL, SECONDS, bash, call, eventually, reply, script


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker)])
def engine(request: pytest.FixtureRequest) -> str:
    """What outlives a server is a container's alone."""
    require(request.param)
    return str(request.param)


@asynccontextmanager
async def serving(machine: Machine) -> AsyncIterator[Process]:
    """`skiff serve` on the machine's folder."""
    command = ["serve" if word == "mcp" else word for word in machine.arguments]
    environment = {**machine.environment, "PATH": os.environ.get("PATH", "")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--port", "0", env=environment, stdin=DEVNULL, stderr=DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def looking_on(machine: Machine) -> AsyncIterator[App]:
    """A door in this process, which is never the engine."""
    given: dict[str, Any] = {"data_dir": machine.folder, "sandbox": machine.kind, "model": MODEL}
    async with running(Settings(**given), lead=False) as door:
        yield door


async def engine_of(door: App, *but: int) -> int:
    """The process that is the engine, once it is none of these."""

    async def look() -> int:
        try:
            found = await door.role.process()
        except Conflict:  # between two engines
            return 0
        return 0 if found in but else found

    return await eventually(look, "another engine")


async def write(door: App, session: str, path: str) -> None:
    """Through whichever engine there is."""

    async def written() -> bool:
        try:
            await door.service.write_workspace(session, path, b"")
        except Conflict:
            return False
        return True

    await eventually(written, "a write")


async def rested(door: App, session: str) -> SessionView:
    (view,) = await door.service.wait([session], "all", SECONDS)
    assert view.settled, view.state
    return view


async def begun(door: App, *tasks: str) -> list[str]:
    """Sessions with these tasks."""
    return [(await door.service.create_session(NewSession(task=task))).id for task in tasks]


async def counts(door: App, session: str) -> bytes:
    """What the session's command has counted, once it has."""

    async def look() -> bytes:
        try:
            found = await door.service.read_workspace(session, "counter")
        except (Conflict, NotFound):  # no engine, or no file, yet
            return b""
        assert isinstance(found, File)
        return found.content

    return await eventually(look, "the command")


COUNTING = script(call(bash(COUNTED)), {"say": "$RESULT"})


def test_of_two_hosts_and_a_server_any_may_die_and_the_last_ends_the_turn_once(engine: str) -> None:
    async def story(machine: Machine) -> None:
        async with machine.host(), machine.host(), serving(machine), looking_on(machine) as door:
            dead = [await engine_of(door)]
            (session,) = await begun(door, COUNTING)
            await counts(door, session)
            for _ in range(2):
                os.kill(dead[-1], signal.SIGKILL)
                dead.append(await engine_of(door, *dead))
                assert (await door.service.view(session)).state.status == "running"
            assert len(set(dead)) == 3
            await write(door, session, "on")
            view = await rested(door, session)
            assert (reply(view), view.state.turns, view.state.tool_calls) == ("finished with 1", 1, 1)
            assert await counts(door, session) == b"line\n"
            assert len(machine.api.requests) == 2
            await door.service.delete_session(session, if_running="refuse")

    play(engine, story)


def test_a_server_that_is_asked_to_leave_leaves_its_turns_to_the_next_one_and_none_has_failed(engine: str) -> None:
    async def story(machine: Machine) -> None:
        speaking = script({"say": "word " * 50, "stream": 1.0})
        async with looking_on(machine) as door:
            async with serving(machine) as server:
                sessions = await begun(door, COUNTING, speaking)
                await counts(door, sessions[0])
                await machine.asked(lambda api: len(api.requests) == 2)
                server.terminate()
                async with asyncio.timeout(SECONDS):
                    assert await server.wait() in (0, -signal.SIGTERM)
            for session in sessions:
                view = await door.service.view(session)
                assert (view.state.status, view.state.last_error) == ("running", None)
            async with serving(machine):
                await write(door, sessions[0], "on")
                first, second = [await rested(door, session) for session in sessions]
                assert (reply(first), first.state.turns) == ("finished with 1", 1)
                assert (reply(second), second.state.turns) == (("word " * 50).strip(), 1)
                assert await counts(door, sessions[0]) == b"line\n"
                for session in sessions:
                    await door.service.delete_session(session, if_running="refuse")

    play(engine, story)
