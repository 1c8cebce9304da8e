"""Plays rows of the crash matrix, a few at the same time: they mostly wait.

    python -m tests.crash.matrix NAME ...

    a life is killed at its point  ->  (a second one)  ->  nobody is there  ->  a plain life  ->  the judgement

Above: `test_matrix`, which runs this as a process of its own and reads a line of JSON for each row that is over,
`{"name": ..., "failed": words or null}`. Below: `act`, `stories`, `judge`. One model answers all; each row has a data
folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import traceback
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from server.app import App, running
from server.events import StoredEvent
from server.sessions.hands import UNKNOWABLE
from server.sessions.state import OpenCall
from server.settings import Settings
from tests.crash import judge
from tests.crash.act import Act, Forge, Killed, Life, forge
from tests.crash.points import POINTS
from tests.crash.row import Outcome, Point
from tests.crash.site import REACHED
from tests.crash.stories.story import file
from tests.crash.stories.tools import watch
from tests.support.messages_api import MessagesAPI, messages_api
from tests.support.program import Machine
from tests.support.sandboxes import data_folder
from tests.support.scenario import MODEL, SECONDS, clear, reply, script

AT_ONCE = 6
"""Rows at the same time: each has one life that works and one that waits."""
MARK = re.compile(r"echo (\w+) >> counter")


@dataclass(frozen=True)
class Wreck:
    """What was found when no process was there."""

    log: Sequence[StoredEvent]
    calls: Sequence[OpenCall]
    """Those that nobody outside has to answer."""
    asking: bool
    unanswered: bool
    begun: bool
    """One of the calls has left its trace in the workspace."""
    running: bool
    """It was still at it when the next life came."""


async def play(point: Point, api: MessagesAPI, forge: Forge) -> None:
    """One row, whole. Raises AssertionError, saying what is not as it must be."""
    with data_folder() as folder:
        machine = Machine(folder, api, point.kind)
        lives: list[Life] = []
        try:
            async with asyncio.timeout(2 * SECONDS):
                await _play(point, machine, forge, lives)
            left = clear(point.kind, folder)
            assert not left, f"left behind: {left}"
        except BaseException as failure:
            failure.add_note("\n".join(f"--- {life.pid}\n{life.words}" for life in lives))
            raise
        finally:
            for life in lives:
                life.kill()
            clear(point.kind, folder)
            for life in lives:
                life.said.unlink(missing_ok=True)


async def _play(point: Point, machine: Machine, forge: Forge, lives: list[Life]) -> None:
    async with running(_settings(machine), lead=False) as door:
        settings = {name: v.replace("{folder}", str(machine.folder)) for name, v in point.story.settings.items()}
        act = Act(point.name, machine, forge, door, settings, lives=lives)
        await _crash(act, point)
        wreck = await _look(act, point)
        await point.story.between(act)
        async with _plain(act, point):
            await point.story.go_on(act)
            if act.session:
                await act.rests()
    async with running(_settings(machine)) as app:
        await _judge(act, point, wreck, app)
    left = judge.leftovers(machine.folder)
    assert not left, f"left behind: {left}"


def _settings(machine: Machine) -> Settings:
    """Of the door and of the judge, both in this process."""
    given: dict[str, Any] = {"data_dir": machine.folder, "sandbox": machine.kind, "model": MODEL, "pool": 0}
    return Settings(**given, pause_after=0.0, sandbox_memory_mb=128)


# --- the crash -------------------------------------------------------------------------------------------------------


async def _crash(act: Act, point: Point) -> None:
    """Let the story begin, until the server dies at its point."""
    life = await act.live("serve", point.name)
    act.url = await life.url()
    begun = asyncio.create_task(point.story.begin(act))
    await _death(life, begun)
    if not act.busy:
        begun.cancel()  # it waits for what nobody will do
    with suppress(Killed, asyncio.CancelledError):
        async with asyncio.timeout(SECONDS):
            await begun
    if point.second is not None:
        await _death(await act.live("work", point.name, second=True), None)


async def _death(life: Life, begun: asyncio.Task[None] | None) -> None:
    """The life ends, and by nothing but its point."""
    try:
        status = await life.ends()
    except TimeoutError:
        if begun is not None and begun.done() and not begun.cancelled() and (trouble := begun.exception()):
            raise trouble from None
        raise AssertionError("the point was never reached") from None
    assert (status, REACHED in life.words) == (-signal.SIGKILL, True), "it ended otherwise than at its point"


async def _look(act: Act, point: Point) -> Wreck:
    """What is there while no process is."""
    if not act.session:
        return Wreck((), (), False, act.unanswered is not None, False, False)
    log = judge.log_of(act.machine.folder, act.session)
    state = judge.folded(log)
    calls = tuple(call for call in state.calls if not call.awaits)
    begun = await _begun(act, calls) if point.kind == "docker" else False
    running_on = point.story.between is watch
    return Wreck(log, calls, state.open_request is not None, act.unanswered is not None, begun, running_on)


async def _begun(act: Act, calls: Sequence[OpenCall]) -> bool:
    if not calls or len(await act.containers()) != 1:  # none that runs, or one of the pool as well
        return False
    seen = (await act.inside("cat /workspace/counter /workspace/list 2>/dev/null || true")).split()
    marks = [MARK.findall(str(call.input.get("command", ""))) for call in calls]
    marks += [str(call.input.get("new_string", "")).split("\n")[:1] for call in calls]
    return any(mark in seen for found in marks for mark in found)


@asynccontextmanager
async def _plain(act: Act, point: Point) -> AsyncIterator[None]:
    """A life as everybody starts it, until the block is over; it must end well."""
    process: Process | None = None
    if point.typed:
        life, process = await act.type_in(point.again)
    else:
        life = await act.live(point.again)
    if point.again == "serve":
        act.url = await life.url()
    yield
    if point.again == "mcp":
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
    elif point.again == "serve":
        life.terminate()
    assert await life.ends() in (0, -signal.SIGTERM), life.words


# --- the judgement ---------------------------------------------------------------------------------------------------


async def _judge(act: Act, point: Point, wreck: Wreck, app: App) -> None:
    act.door = app
    if act.session:
        await _judge_session(act, point, wreck)
        await app.service.delete_session(act.session, if_running="refuse")
    await point.story.check(act)


async def _judge_session(act: Act, point: Point, wreck: Wreck) -> None:
    folder, story = act.machine.folder, point.story
    judge.check_log(folder, act.session)
    log = judge.log_of(folder, act.session)
    assert log[: len(wreck.log)] == list(wreck.log), "what was written stays as it was written"
    errors = [event.public for event in log if event.type == "session.error"]
    assert story.fails or not errors, errors
    outcome = _outcome(point, wreck, log)
    assert outcome == point.outcome, f"the outcome was {outcome!r}"
    counted, edited = (await file(act, "counter")).split(), (await file(act, "list")).split()
    for name in {*counted, *edited}:
        assert name in (*story.lines, *story.maybe, *story.edits, "end"), name
        assert max(counted.count(name), edited.count(name)) == 1, f"{name} was done twice"
    if outcome != "unknowable":
        assert set(story.lines) <= set(counted), f"lost: {set(story.lines) - set(counted)}"
        assert not story.edits or list(story.edits) == edited, f"lost: {story.edits} against {edited}"
        if story.reply is not None:
            said = reply(await act.view())
            assert said.endswith(story.reply.strip()), said  # news of the sandbox may stand before it
    await act.door.service.send_message(act.session, script({"say": "Here."}, say=f"This is {act.name}."))
    assert reply(await act.rests()) == "Here.", "it takes the next message"
    judge.check_requests(_requests(act), judge.log_of(folder, act.session))
    await story.look(act)


def _requests(act: Act) -> list[judge.Body]:
    """What the model was asked in this story, oldest first."""
    mark = f"This is {act.name}.\n"
    return [body for body in act.machine.api.bodies if mark in str(body["messages"][0]["content"][0]["text"])]


def _outcome(point: Point, wreck: Wreck, log: Sequence[StoredEvent]) -> Outcome:
    """What became of what was under way. (A client may have lost an answer at any point; at some that is the point.)"""
    if point.outcome == "sent again" and wreck.unanswered:
        return "sent again"
    if point.outcome == "made" and (wreck.asking or wreck.calls) and not wreck.begun:
        return "made"
    if not wreck.calls:
        return "asked again" if wreck.asking else "went on"
    ids = {call.id for call in wreck.calls}
    results = [event.public or {} for event in log if event.type == "agent.tool_result"]
    if any(UNKNOWABLE in str(result["content"]) for result in results if result["tool_use_id"] in ids):
        return "unknowable"
    if not wreck.begun:
        return "started"
    return "re-attached" if wreck.running else "kept"


# --- all of them -----------------------------------------------------------------------------------------------------


async def play_all(points: Sequence[Point]) -> None:
    """Every one of these rows; what came of each is printed as soon as it is over."""
    places = asyncio.Semaphore(AT_ONCE)
    playing = asyncio.current_task()
    assert playing is not None
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(32))  # this process is the door and the judge of every row at once
    loop.add_signal_handler(signal.SIGTERM, playing.cancel)  # then everything is cleared away
    with messages_api() as api:
        os.environ |= {"ANTHROPIC_BASE_URL": api.base_url, "ANTHROPIC_API_KEY": "sk-scripted-key"}

        async def one(point: Point) -> None:
            failed: str | None = None
            async with places:
                try:
                    await play(point, api, made)
                except Exception as failure:
                    failed = "".join(traceback.format_exception(failure))
            print(json.dumps({"name": point.name, "failed": failed}), flush=True)

        async with forge() as made:
            await asyncio.gather(*map(one, points))


if __name__ == "__main__":
    asyncio.run(play_all([POINTS[name] for name in sys.argv[1:]]))
