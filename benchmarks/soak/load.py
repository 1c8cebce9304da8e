"""The load: people who come, talk, interrupt, use tools, leave and come back, each checking what it is told.

Above: `__main__` and the short soak of the tests. Below: the official client on a real `skiff serve`, whose model is
the scripted Messages API over HTTP. Whatever is not as it should be is a session lost: it is noted, and the load goes
on.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fake import script
from benchmarks.site import KEY, TOOLSET, Places, Site, message, places, started
from benchmarks.soak.gauges import Reading, look
from benchmarks.soak.verdict import left_behind

MODEL = "claude-sonnet-5-5"
TURNS = 12
"""Turns of a session before it is deleted: long enough to idle, short enough that its log is no growth of its own."""
TURN_SECONDS = 120.0
PROBE_SECONDS = 2.0
SETTLE_SECONDS = 60.0
CALL = {"call": [{"tool": "nothing", "input": {"command": "true"}, "force": True}]}
"""Of a tool that is not offered: a round that needs no sandbox."""
COUNT = {"call": [{"tool": "bash", "input": {"command": "echo x >> count; wc -l < count"}}]}
"""What it answers is the number of times that it ran in this session: nothing lost, nothing twice."""


@dataclass(frozen=True)
class Plan:
    """How hard and how long."""

    seconds: float
    talkers: int
    """Sessions at a time that need no sandbox."""
    workers: int
    """Sessions at a time that run commands."""
    pause: float
    """Mean seconds between the turns of one session: people think."""
    sandbox: str
    readings: int = 20


@dataclass
class Seen:
    """What a soak has seen."""

    before: Reading
    """Idle, after one session of each kind had come and gone."""
    readings: list[Reading] = field(default_factory=list)
    """Under load, at equal intervals."""
    after: Reading | None = None
    """Idle again, everything deleted."""
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the load began, milliseconds from a send until the model was asked)"""
    turns: int = 0
    sessions: int = 0
    lost: list[str] = field(default_factory=list)
    left: int = 0
    """Sessions that were still there after all had been deleted."""


@asynccontextmanager
async def serving(folder: Path, plan: Plan, model_url: str) -> AsyncIterator[Site]:
    """A server for this load on a data folder."""
    most = str(plan.talkers + plan.workers + 2)
    settings = {
        "SKIFF_API_KEY": KEY,
        "SKIFF_POOL": "0",
        "SKIFF_SANDBOX_MEMORY_MB": "256",
        "SKIFF_MAX_SESSIONS_AT_WORK": most,
        "SKIFF_MAX_SANDBOXES": str(plan.workers + 2),
        "ANTHROPIC_BASE_URL": model_url,
        "ANTHROPIC_API_KEY": "sk-scripted",
    }
    arguments = ["-m", "server", "serve", "--data-dir", str(folder), "--sandbox", plan.sandbox, "--model", MODEL]
    async with started([*arguments, "--port", "0"], settings) as site:
        yield site


async def soak(site: Site, folder: Path, plan: Plan, model_url: str) -> Seen:
    """Warm the server up, load it, let it settle."""
    installation = _installation(folder) if plan.sandbox == "docker" else ""
    async with places(site) as there, places(site, TOOLSET) as working:
        await _one_of_each(there, working if plan.workers else there)
    seen = Seen(await settled(site, folder, installation))
    began = time.monotonic()
    async with places(site) as there, places(site, TOOLSET) as working:
        until = began + plan.seconds
        people = [_person(working, plan, number, until, seen, True) for number in range(plan.workers)]
        people += [_person(there, plan, plan.workers + number, until, seen, False) for number in range(plan.talkers)]
        watching = asyncio.create_task(_watch(site, folder, installation, plan, began, seen))
        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(person)
            group.create_task(_probe(there, model_url, began, until, seen))
        await watching
        await _one_of_each(
            there, working if plan.workers else there
        )  # a pool of connections drops the idle ones when it is used next
        seen.left = len([each async for each in there.client.beta.sessions.list()])
    seen.after = await settled(site, folder, installation, seen.before)
    return seen


async def settled(site: Site, folder: Path, installation: str, before: Reading | None = None) -> Reading:
    """A look at the idle server, once it is as it was `before`, or for SETTLE_SECONDS."""
    for _ in range(int(SETTLE_SECONDS / 0.5)):
        await asyncio.sleep(0.5)
        now = await look(site, folder, installation, 0.0)
        if not now.sandboxes and not now.containers and not (before and left_behind(before, now)):
            break
    return now


# --- people ----------------------------------------------------------------------------------------------------------


async def _person(there: Places, plan: Plan, number: int, until: float, seen: Seen, works: bool) -> None:
    """Begin sessions, one after the other, until the time is over."""
    chance = random.Random(number)
    while time.monotonic() < until:
        session_id = ""
        try:
            async with asyncio.timeout(TURN_SECONDS * TURNS):
                session_id = await there.session()
                await _life(there, plan, session_id, works, until, chance, seen)
        except Exception as error:
            seen.lost.append(
                f"{session_id or 'a session that could not be made'}: {type(error).__name__}: {error}"[:500]
            )
            await asyncio.sleep(1.0)
        seen.sessions += 1


async def _life(
    there: Places, plan: Plan, session_id: str, works: bool, until: float, chance: random.Random, seen: Seen
) -> None:
    """A session's turns, each checked; then it is archived or not, and deleted."""
    commands = 0
    for number in range(TURNS):
        if time.monotonic() >= until:
            break
        kind = chance.random()
        if works and kind < 0.7:
            commands += 1
            _expect(await turn(there, session_id, [COUNT, {"say": "$RESULT"}]), str(commands))
        elif kind < 0.85:
            _expect(
                await turn(there, session_id, [CALL] * chance.randrange(3) + [{"say": f"turn {number}"}]),
                f"turn {number}",
            )
        else:
            await interrupted(there, session_id)
        seen.turns += 1
        await asyncio.sleep(min(chance.expovariate(1 / plan.pause), max(0.0, until - time.monotonic())))
    idle = [event async for event in there.client.beta.sessions.events.list(session_id, types=["session.status_idle"])]
    if not idle and number:
        raise RuntimeError("its history is gone")
    if chance.random() < 0.3:
        await there.client.beta.sessions.archive(session_id)
    await there.client.beta.sessions.delete(session_id)


def _expect(said: str, wanted: str) -> None:
    if said.strip().splitlines()[-1:] != [wanted]:  # before it may stand that the sandbox was started again
        raise RuntimeError(f"the answer is {said!r}, not {wanted!r}")


async def turn(there: Places, session_id: str, steps: Sequence[Mapping[str, Any]], *, text: str = "") -> str:
    """One turn, followed as it goes; what was said last in it. Raises RuntimeError when it does not end well."""
    said = ""
    stream = there.client.beta.sessions.events.stream
    async with asyncio.timeout(TURN_SECONDS), await stream(session_id) as events:
        await there.client.beta.sessions.events.send(session_id, events=[message(script(steps) + text)])
        async for event in events:
            if event.type == "agent.message":
                said = "".join(block.text for block in event.content if block.type == "text")
            if _over(event):
                return said
    raise RuntimeError("the stream ended before the turn")


async def interrupted(there: Places, session_id: str) -> None:
    """A turn whose model says nothing, interrupted once it has been asked."""
    stream, send = there.client.beta.sessions.events.stream, there.client.beta.sessions.events.send
    async with asyncio.timeout(TURN_SECONDS), await stream(session_id) as events:
        await send(session_id, events=[message(script([{"hang": True, "say": "never"}]))])
        async for event in events:
            if event.type == "span.model_request_start":
                await send(session_id, events=[{"type": "user.interrupt"}])
            if _over(event):
                return


def _over(event: Any) -> bool:
    if event.type in ("session.error", "session.status_terminated", "session.deleted"):
        raise RuntimeError(f"a turn failed: {event.to_json()}")
    return bool(event.type == "session.status_idle")


async def _one_of_each(there: Places, working: Places) -> None:
    """A session of each kind comes and goes."""
    for place, step in ((there, CALL), (working, CALL if working is there else COUNT)):
        session_id = await place.session()
        await turn(place, session_id, [step, {"say": "ok"}])
        await interrupted(place, session_id)
        await place.client.beta.sessions.delete(session_id)


# --- looking ---------------------------------------------------------------------------------------------------------


async def _watch(site: Site, folder: Path, installation: str, plan: Plan, began: float, seen: Seen) -> None:
    for number in range(1, plan.readings + 1):
        due = began + plan.seconds * number / (plan.readings + 1)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        seen.readings.append(await look(site, folder, installation, time.monotonic() - began))


async def _probe(there: Places, model_url: str, began: float, until: float, seen: Seen) -> None:
    """One more session, whose sends are timed: from the send until the model has the request."""
    session_id, number = await there.session(), 0
    try:
        while time.monotonic() < until:
            number += 1
            mark, at = f"probe {number}.", time.monotonic()
            await turn(there, session_id, [{"say": "ok"}], text=mark)
            arrived = [when for when, said in await asyncio.to_thread(_arrivals, model_url) if said.endswith(mark)]
            if arrived:
                seen.latencies.append((at - began, (arrived[0] - at) * 1000))
            if number % TURNS == 0:
                await there.client.beta.sessions.delete(session_id)
                session_id = await there.session()
            await asyncio.sleep(min(PROBE_SECONDS, max(0.0, until - time.monotonic())))
        await there.client.beta.sessions.delete(session_id)
    except Exception as error:
        seen.lost.append(f"the probe's session {session_id}: {type(error).__name__}: {error}"[:500])


def _arrivals(model_url: str) -> list[tuple[float, str]]:
    with urllib.request.urlopen(f"{model_url}/arrivals", timeout=60) as answer:
        return [(at, said) for at, said in json.loads(answer.read())]


def _installation(folder: Path) -> str:
    connection = sqlite3.connect(folder / "skiff.db")
    try:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'installation'").fetchone()[0])
    finally:
        connection.close()
