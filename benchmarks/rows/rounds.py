"""A tool round in a container: the end of one model answer → the next model request, with the log durable between.

Beside it the same of a bare SDK loop, which stores nothing and runs nothing: it takes in the rest of the answer and
makes the next request, at the same history. And of one that does between the two what a round of bash cannot be
without: two durable commits, and a shell of this machine's own that runs the command.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anthropic import AsyncAnthropic

from benchmarks import floor
from benchmarks.bench import Bench, say
from benchmarks.fake import Request, calls, script
from benchmarks.parts import Parts, parts
from benchmarks.row import Hold, Row, figure
from benchmarks.skiff import container_of, quiet, session, skiff, turn
from sandbox.docker.engine import Engine
from server.app import App

NEEDS_ENGINE = True
POINTS = (10, 40, 100)
"""Rounds of history."""
AROUND = 4
"""Rounds before and after a point that count to it."""
SETTLE_SECONDS = 2.0
"""After the start of a container."""
EXECS = 5
"""Of the engine, after each session."""
TOOLS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bash /bin/true": ("bash", {"command": "/bin/true"}),
    "bash builtin": ("bash", {"command": "true"}),
    "read": ("read", {"file_path": "hello.txt"}),
}
"""Three kinds of work: with a new process, in the shell itself, and without the shell."""
BARE = "bare SDK loop at that history"
SAME = "that loop, two bare commits and a bare bash"
NEW_PROCESS = "bash /bin/true"
SAME_WORK = Hold(1.4)
"""With a new process the floor is the same work: of the 4 ms over a bare SDK loop that the design allows, a bare loop
that commits and runs the command takes 2.5 on a fast machine, and all on a slow one. The factor is that of a cold start
beside the engine's own."""
NOTES = (
    "beside the Claude Agent SDK: the group `peers`, where that is installed",
    "with a new process the design's own bound is the bare SDK loop + 4 ms; why it is another: ARCHITECTURE.md",
)
Samples = dict[tuple[str, int], list[float]]


@dataclass(frozen=True)
class Sides:
    """The samples of a round, by tool and point: ours, and the two other sides."""

    ours: Samples = field(default_factory=lambda: defaultdict(list))
    bare: Samples = field(default_factory=lambda: defaultdict(list))
    """A bare SDK loop."""
    same: Samples = field(default_factory=lambda: defaultdict(list))
    """One that also commits twice and runs the command: for bash alone."""


async def measure(bench: Bench) -> list[Row]:
    """Sessions with each tool in turn; after each, bare loops with the same requests, and the engine's own exec in the
    same container."""
    sides = Sides()
    execs: list[float] = []
    engine = Engine()
    with parts(bench.folder()) as own:
        async with skiff(bench) as app, floor.client() as sdk:
            await quiet(app)
            for number in range(bench.samples(5, 1)):
                for tool in TOOLS:
                    say(f"rounds: {tool}, session {number + 1}")
                    session_id, log = await _work(bench, app, tool)
                    await _take(bench, sdk, own, tool, log, sides)
                    container = container_of(app.settings.data_dir, session_id)
                    execs += [await _exec(engine, container) for _ in range(EXECS)]
    await engine.close()
    at = [(tool, point, f"tool round, {tool}, {point} rounds of history") for tool in TOOLS for point in POINTS]
    beside_bare = {tool: None if tool == NEW_PROCESS else Hold(1, 4) for tool in TOOLS}
    beside_same = {NEW_PROCESS: SAME_WORK}
    rows = [_row(name, sides.ours, sides.bare, (tool, point), BARE, beside_bare[tool]) for tool, point, name in at]
    rows += [
        _row(f"{name}, the same work", sides.ours, sides.same, (tool, point), SAME, beside_same.get(tool))
        for tool, point, name in at
        if (tool, point) in sides.same
    ]
    name = f"tool round, {NEW_PROCESS}, 10 rounds"
    return [*rows, Row(name, "ms", figure(sides.ours[NEW_PROCESS, 10]), figure(execs), "the engine's exec alone")]


def _row(name: str, ours: Samples, floors: Samples, key: tuple[str, int], beside: str, hold: Hold | None) -> Row:
    return Row(name, "ms", figure(ours[key]), figure(floors[key]), beside, hold, NOTES)


async def _work(bench: Bench, app: App, tool: str) -> tuple[str, list[Request]]:
    """A session that goes through all points, in a sandbox that is there and was used before; its id and its model
    requests. What the engine still does after a start would stand in the first rounds."""
    session_id = await session(app.service, files={"hello.txt": b"hello\n"})
    await turn(app.service, session_id, script(calls(1, *TOOLS[tool])))
    await asyncio.sleep(SETTLE_SECONDS)
    await bench.fake.clear()
    await turn(app.service, session_id, script(calls(max(POINTS) + AROUND + 1, *TOOLS[tool])))
    log = await bench.fake.log()
    check(log[-1].body["messages"])
    return session_id, log


def check(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raises RuntimeError when a call failed: a fast failure is not a fast tool."""
    blocks = [block for message in messages if message["role"] == "user" for block in message["content"]]
    failed = [block for block in blocks if block.get("is_error")]
    if failed:
        raise RuntimeError(f"a measured tool call failed: {failed[0]['content']}")


def around(log: Sequence[Request], point: int) -> tuple[list[float], list[Mapping[str, Any]]]:
    """Milliseconds of the rounds near a point of a session, and the requests that a bare loop makes for the same."""
    near = range(point - AROUND, point + AROUND + 1)
    took = [(log[n].at - log[n - 1].answered) * 1000 for n in near]
    return took, [log[n].body for n in (near[0] - 1, *near)]


async def _take(bench: Bench, sdk: AsyncAnthropic, own: Parts, tool: str, log: Sequence[Request], sides: Sides) -> None:
    command = TOOLS[tool][1].get("command")
    for point in POINTS:
        took, bodies = around(log, point)
        sides.ours[tool, point] += took
        sides.bare[tool, point] += await floor.turnarounds(sdk, bench.fake, bodies)
        if command:
            work = functools.partial(own.round, command)
            sides.same[tool, point] += await floor.turnarounds(sdk, bench.fake, bodies, work)


async def _exec(engine: Engine, container: str) -> float:
    def work(client: Any) -> int:
        made = client.exec_create(container, ["/bin/true"])
        client.exec_start(made)
        return int(client.exec_inspect(made)["ExitCode"])

    began = time.monotonic()
    await engine.call("run a command", work)
    return (time.monotonic() - began) * 1000
