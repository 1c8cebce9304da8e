"""The REST door: the official client on a real port of a real `skiff serve`, beside a bare Starlette and the bare SDK.

What a request costs, what it takes from a send to the model, and a tool round in a session that somebody follows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from anthropic import AsyncAnthropic

from benchmarks import floor
from benchmarks.bench import Bench, say
from benchmarks.fake import Request, calls, script
from benchmarks.parts import parts
from benchmarks.row import Hold, Row, figure
from benchmarks.rows.rounds import AROUND, NEW_PROCESS, SAME, SAME_WORK, TOOLS, around, check
from benchmarks.rows.send import FIRST, SENDS
from benchmarks.site import TOOLSET, TURN_SECONDS, Places, bare_serve, ended, places, skiff_serve

FOLLOWER_MS = 1
"""For the stream: the official client reads it, and takes a core from the server meanwhile."""
POINT = 10
"""Rounds of history at which a tool round is measured."""
WARM = 20
"""Requests that come before those that count."""
PAUSE_SECONDS = 0.05
"""From a send until somebody looks for the end of its turn: the model has been asked by then, undisturbed."""
BARE = "a bare Starlette that answers the same"
CLIENT = ("the official client is in both figures, and takes most of the time of the smaller one",)


async def measure(bench: Bench) -> list[Row]:
    """Requests with and without an engine; the tool round needs one."""
    rows = await _requests(bench)
    return [*rows, await _rounds(bench)] if bench.engine else rows


# --- requests --------------------------------------------------------------------------------------------------------


async def _requests(bench: Bench) -> list[Row]:
    async with skiff_serve(bench) as site, places(site, TOOLSET) as there:
        session_id = await there.session(FIRST)
        await there.rest(session_id, 1)
        async with bare_serve(bench, there, session_id) as beside, beside.client() as bare, floor.client() as sdk:
            say("rest: requests")
            return [await _retrieve(bench, there, bare, session_id), *await _send(bench, there, bare, sdk)]


async def _retrieve(bench: Bench, there: Places, bare: AsyncAnthropic, session_id: str) -> Row:
    ours: list[float] = []
    beside: list[float] = []
    for number in range(WARM + bench.samples(300, 20)):
        took = await _timed(partial(there.client.beta.sessions.retrieve, session_id))
        alone = await _timed(partial(bare.beta.sessions.retrieve, session_id))
        if number >= WARM:
            ours.append(took)
            beside.append(alone)
    return Row("REST: sessions.retrieve", "ms", figure(ours), figure(beside), BARE, None, CLIENT)


async def _send(bench: Bench, there: Places, bare: AsyncAnthropic, sdk: AsyncAnthropic) -> list[Row]:
    """As `rows/send`; beside each send goes the same one to the bare server, and each request of the bare SDK."""
    answered: list[float] = []
    trips: list[float] = []
    ours: list[float] = []
    alone: list[float] = []
    beside = replace(there, client=bare)
    for number in range(bench.samples(10) + 1):
        session_id = await there.session(FIRST)
        await there.rest(session_id, 1)
        await bench.fake.clear()
        began, took, trip = [], [], []
        for turn in range(SENDS):
            trip.append(await _timed(partial(beside.send, session_id, "Go on.")))
            began.append(time.monotonic())
            await there.send(session_id, "Go on.")
            took.append((time.monotonic() - began[-1]) * 1000)
            await asyncio.sleep(PAUSE_SECONDS)
            await there.rest(session_id, turn + 2)
        log = await bench.fake.log()
        asked = await floor.arrivals(sdk, bench.fake, [request.body for request in log])
        if number:  # the first round warms both sides up
            answered += took
            trips += trip
            ours += [(request.at - start) * 1000 for request, start in zip(log, began, strict=True)]
            alone += [request + around for request, around in zip(asked, trip, strict=True)]
    both = "bare SDK + a bare REST round trip"
    return [
        Row("REST: events.send", "ms", figure(answered), figure(trips), BARE, None, CLIENT),
        Row("REST: send → first model request", "ms", figure(ours), figure(alone), both, Hold(1, 5)),
    ]


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    await act()
    return (time.monotonic() - began) * 1000


# --- a tool round ----------------------------------------------------------------------------------------------------


async def _rounds(bench: Bench) -> Row:
    """Sessions that are begun and followed with the official client, which reads every event as it comes."""
    ours: list[float] = []
    bare: list[float] = []
    with parts(bench.folder()) as own:
        work = partial(own.round, TOOLS[NEW_PROCESS][1]["command"])
        async with skiff_serve(bench) as site, places(site, TOOLSET) as there, floor.client() as sdk:
            for number in range(bench.samples(5, 1)):
                say(f"rest: rounds, session {number + 1}")
                took, bodies = around(await _followed(bench, there), POINT)
                ours += took
                bare += await floor.turnarounds(sdk, bench.fake, bodies, work)
    name = f"REST: tool round, {NEW_PROCESS}, {POINT} rounds of history, followed"
    return Row(name, "ms", figure(ours), figure(bare), SAME, replace(SAME_WORK, plus=FOLLOWER_MS))


async def _followed(bench: Bench, there: Places) -> list[Request]:
    """The model requests of a session that goes beyond the point."""
    session_id = await there.session()
    await bench.fake.clear()
    stream = there.client.beta.sessions.events.stream
    async with asyncio.timeout(TURN_SECONDS), await stream(session_id) as events:
        await there.send(session_id, script(calls(POINT + AROUND + 1, *TOOLS[NEW_PROCESS])))
        async for event in events:
            if ended(event):
                break
    log = await bench.fake.log()
    check(log[-1].body["messages"])
    return log
