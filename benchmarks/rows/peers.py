"""Ours beside a peer: the Claude Agent SDK, where it is installed (`pip install claude-agent-sdk`).

It drives one process of its own a session and runs its tools on this machine, without a container; ours run in one.
Both are asked by the same double, in turn. Answers that the double refuses (a peer may try fields that the API does
not have, and then ask again without them) are no rounds.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import MODEL, Bench, say
from benchmarks.fake import Request, calls, script
from benchmarks.row import Hold, Row, figure
from benchmarks.rows.throughput import SESSIONS, rate
from benchmarks.skiff import ended, quiet, session, skiff, turn
from server.app import App

NEEDS_ENGINE = True
PEER = "claude_agent_sdk"
BESIDE = "Claude Agent SDK, no container"
ROUNDS = 14
"""Of history at the end; those from the sixth on count as a round at ten, as in `rounds`."""
FROM = 6
ROUND = 4
"""Times that a round of ours goes into one of theirs. The eight of the design would be faster than a bare SDK loop that
commits and runs the command: that one goes into it five or six times (`rounds` measures it)."""
NOTES = (
    "the design's own bounds are 8 x in a round, and 3 x the best peer of all; why they are others: ARCHITECTURE.md",
)
COMMAND = {"command": "/bin/true"}
OURS, THEIRS = script(calls(ROUNDS, "bash", COMMAND)), script(calls(ROUNDS, "Bash", COMMAND))


async def measure(bench: Bench) -> list[Row]:
    """A first message, a tool round, and twenty sessions at once. Raises RuntimeError where there is no peer."""
    if importlib.util.find_spec(PEER) is None:
        raise RuntimeError("the peer is not installed here (pip install claude-agent-sdk, 180 MB)")
    async with skiff(bench) as app:
        await quiet(app)
        return [await _first(bench, app), await _round(bench, app), await _together(bench, app)]


async def _first(bench: Bench, app: App) -> Row:
    """A session of one's own with its first message, to the first model request."""
    ours: list[float] = []
    theirs: list[float] = []
    task = script([{"say": "Here."}])
    for number in range(bench.samples(5) + 1):
        say(f"peers: first message, {number + 1}")
        await bench.fake.clear()
        began = time.monotonic()
        await turn(app.service, await session(app.service), task)
        took = (await _answered(bench))[0].at - began
        await bench.fake.clear()
        began = time.monotonic()
        async with _peer(bench) as client:
            await _ask(client, task)
        if number:
            ours.append(took * 1000)
            theirs.append(((await _answered(bench))[0].at - began) * 1000)
    name = "new session and message → first model request"
    return Row(name, "ms", figure(ours), figure(theirs), BESIDE, Hold(1 / 50))


async def _round(bench: Bench, app: App) -> Row:
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(bench.samples(3, 1)):
        say(f"peers: rounds, {number + 1}")
        await bench.fake.clear()
        await turn(app.service, await session(app.service), OURS)
        ours += _gaps(await _answered(bench))
        await bench.fake.clear()
        async with _peer(bench) as client:
            await _ask(client, THEIRS)
        theirs += _gaps(await _answered(bench))
    return Row(
        "tool round, bash, 10 rounds of history", "ms", figure(ours), figure(theirs), BESIDE, Hold(1 / ROUND), NOTES
    )


async def _together(bench: Bench, app: App) -> Row:
    """Tool rounds a second of sessions that are there already."""
    ours: list[float] = []
    theirs: list[float] = []
    say(f"peers: {SESSIONS} sessions at once")
    ids = [await session(app.service) for _ in range(SESSIONS)]
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(_peer(bench)) for _ in range(SESSIONS)]
        for number in range(bench.samples(3, 1) + 1):
            await bench.fake.clear()
            for session_id in ids:
                await app.service.send_message(session_id, OURS)
            await ended(app.service, ids)
            took = rate(await _answered(bench))
            await bench.fake.clear()
            await asyncio.gather(*(_ask(client, THEIRS) for client in peers))
            if number:  # the first time, both sides make what they need
                ours.append(took)
                theirs.append(rate(await _answered(bench)))
    name = f"tool rounds a second, {SESSIONS} sessions at once"
    return Row(name, "rounds/s", figure(ours), figure(theirs), BESIDE, Hold(3, least=True), NOTES)


async def _answered(bench: Bench) -> list[Request]:
    return [request for request in await bench.fake.log() if request.status == 200]


def _gaps(log: list[Request]) -> list[float]:
    return [(after.at - before.answered) * 1000 for before, after in itertools.pairwise(log)][FROM:]


@asynccontextmanager
async def _peer(bench: Bench) -> AsyncIterator[Any]:
    """A connected client of the peer, with a home and a working folder of its own, which asks nobody before a tool."""
    sdk = importlib.import_module(PEER)
    folder: Path = bench.folder()
    quietly = ("DISABLE_TELEMETRY", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "IS_SANDBOX")
    options = sdk.ClaudeAgentOptions(
        model=MODEL,
        permission_mode="bypassPermissions",
        cwd=str(folder),
        env={"HOME": str(folder), **dict.fromkeys(quietly, "1")},
    )
    async with sdk.ClaudeSDKClient(options=options) as client:
        yield client


async def _ask(client: Any, text: str) -> None:
    """One turn. Raises RuntimeError when it did not end well."""
    await client.query(text)
    async for message in client.receive_response():
        if getattr(message, "is_error", False):
            raise RuntimeError(f"the peer's turn failed: {message}")
