"""kill -9 → every interrupted session working again; and whether a command was lost or run twice on the way.

A hundred and eighty sessions hang in a model request, twenty run a command in their containers when the server is
killed. The commands end while nobody listens. The clock runs from the next server's open doors to the last session's
next model request, which for the twenty holds the result of the command that the dead server had begun.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import floor
from benchmarks.bench import Bench, say
from benchmarks.fake import Request, calls, script
from benchmarks.host import child
from benchmarks.row import Hold, Row, figure
from benchmarks.served import settings
from benchmarks.skiff import ended, session, sweep, turn
from server.app import running
from server.events import PRIVATE_DISPATCHED, StoredEvent
from server.sessions.service import Service

THINKING = 180
RUNNING = 20
COMMAND_SECONDS = 3
"""Long enough for all twenty to have begun; over before the next server is let in."""
PATIENCE = 60.0
TALKER = {"name": "talker", "tools": []}
LOST = "the command's line in its file is missing, or is there twice"


async def measure(bench: Bench) -> list[Row]:
    """Without an engine, only the sessions that wait for their model."""
    ours: list[float] = []
    bare: list[float] = []
    wrong: list[float] = []
    for number in range(bench.samples(3, 1)):
        say(f"resume: kill {number + 1}")
        folder = bench.folder()
        try:
            took, failed, bodies = await _crash(bench, folder)
        finally:
            await sweep(bench, folder)
        ours.append(took)
        wrong.append(failed)
        bare.append(await _bare(bench, bodies))
    running_ = RUNNING if bench.engine else 0
    count = f"{THINKING} thinking, {running_} running a command"
    notes = ("the libraries are imported before the doors open; the start row counts them",)
    beside = "as many bare SDK requests at once"
    resumed = f"kill -9 → working again, a session ({count})"
    rows = [Row(resumed, "ms", figure(ours), figure(bare), beside, Hold(plus=10), notes)]
    if bench.engine:
        nothing = "nothing: the bound is absolute"
        rows.append(Row("kill -9: commands lost or run twice", "", figure(wrong), None, nothing, Hold(), (LOST,)))
    return rows


async def _crash(bench: Bench, folder: Path) -> tuple[float, int, list[Mapping[str, Any]]]:
    """Milliseconds a session, commands lost or run twice, and the bodies of the requests that showed the recovery."""
    await bench.fake.clear()
    async with _server(bench, folder) as (first, _):
        async with running(settings(str(folder), bench.sandbox)) as app:
            thinking, working = await _occupy(bench, app.service)
        first.kill()
        await first.wait()
    await asyncio.sleep(COMMAND_SECONDS)
    await bench.fake.clear()
    async with _server(bench, folder) as (_, opened):
        log = await _until(bench, lambda log: len(_by_session(log)) >= len(thinking) + len(working))
        back = _by_session(log)
        took = (max(request.at for request in back.values()) - opened) * 1000 / len(back)
        async with running(settings(str(folder), bench.sandbox)) as app:
            views = await ended(app.service, working) if working else []
            failed = sum((view.state.reply or "").split() != ["ran"] for view in views)
            for session_id in (*thinking, *working):
                await app.service.delete_session(session_id, if_running="interrupt")
    return took, failed, [request.body for request in back.values()]


@asynccontextmanager
async def _server(bench: Bench, folder: Path) -> AsyncIterator[tuple[Process, float]]:
    """A server as a process, once it is the engine; and when its doors were open."""
    async with child(["-m", "benchmarks.served", str(folder), bench.sandbox]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            await process.stdout.readline()
            process.stdin.write(b"\n")
            opened = float(await process.stdout.readline())
            await process.stdout.readline()
        yield process, opened


async def _occupy(bench: Bench, service: Service) -> tuple[list[str], list[str]]:
    """Sessions in the middle of their work: those that wait for the model, and those whose command runs."""
    working = [await session(service) for _ in range(RUNNING if bench.engine else 0)]
    warm = script(calls(1, "bash", {"command": "true"}))
    await asyncio.gather(*(turn(service, one, f"Session {one}\n{warm}") for one in working))
    thinking = [await session(service, agent=TALKER) for _ in range(THINKING)]
    for one in thinking:
        await service.send_message(one, f"Session {one}\n{script([{'hang': True, 'say': 'never'}])}")
    await _until(bench, lambda log: sum(not request.answered for request in log) >= THINKING)
    run, look = f"echo ran >> ran; sleep {COMMAND_SECONDS}", "cat ran"
    task = script([*calls(1, "bash", {"command": run}), *calls(1, "bash", {"command": look}), {"say": "$RESULT"}])
    for one in working:
        await service.send_message(one, task)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(_dispatched(service, one) for one in working))
    await asyncio.sleep(0.3)  # they are on their way to the shells; now they are there
    return thinking, working


async def _dispatched(service: Service, session_id: str) -> None:
    """Return when the session's second call (the first one only warmed its sandbox) is on its way."""
    seen = 0
    async with aclosing(service.follow(session_id)) as log:
        async for event in log:
            seen += isinstance(event, StoredEvent) and event.type == PRIVATE_DISPATCHED
            if seen == 2:
                return


def _by_session(log: Sequence[Request]) -> dict[str, Request]:
    """Each session's first request, by the text with which it began."""
    found: dict[str, Request] = {}
    for request in log:
        found.setdefault(request.body["messages"][0]["content"][0]["text"].split("\n", 1)[0], request)
    return found


async def _until(bench: Bench, condition: Callable[[list[Request]], bool]) -> list[Request]:
    """The double's log once it fulfils the condition. Asked rarely, because answering costs the double time."""
    async with asyncio.timeout(PATIENCE):
        while True:
            log = await bench.fake.log()
            if condition(log):
                return log
            await asyncio.sleep(1.0)


async def _bare(bench: Bench, bodies: Sequence[Mapping[str, Any]]) -> float:
    """Milliseconds a request, when the SDK makes them all at once with a client that has no connection yet."""
    await bench.fake.clear()
    async with floor.client() as sdk:
        began = time.monotonic()
        asking = [asyncio.create_task(floor.ask(sdk, body)) for body in bodies]
        log = await _until(bench, lambda log: len(log) >= len(bodies))
        for task in asking:
            task.cancel()  # those that hang; the others are done
        await asyncio.wait(asking)
    await bench.fake.clear()
    return (max(request.at for request in log) - began) * 1000 / len(bodies)
