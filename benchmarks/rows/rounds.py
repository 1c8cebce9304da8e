"""A tool round in a container: the end of one model answer → the next model request, with the log durable between.

Beside it the same of a bare SDK loop, which stores nothing and runs nothing: it takes in the rest of the answer and
makes the next request, at the same history.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from anthropic import AsyncAnthropic

from benchmarks import floor
from benchmarks.bench import Bench, say
from benchmarks.fake import Request, calls, script
from benchmarks.parts import command, commit
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
NOTES = (
    "≥ 8 x ahead of the Agent SDK: the group `peers` shows it, where that is installed",
    "the 4 ms were set where the floor took 3.0 ms at 10 and 40 rounds and 4.6 at 100: as a ratio, 2.33 and 1.87",
)
Samples = dict[tuple[str, int], list[float]]


async def measure(bench: Bench) -> list[Row]:
    """Sessions with bash and with read in turn; after each, the SDK's requests with the same bodies, and the engine's
    own exec in the same container."""
    ours: Samples = {(tool, point): [] for tool in TOOLS for point in POINTS}
    bare: Samples = {(tool, point): [] for tool in TOOLS for point in POINTS}
    execs: list[float] = []
    engine = Engine()
    async with skiff(bench) as app, floor.client() as sdk:
        await quiet(app)
        for number in range(bench.samples(5, 1)):
            for tool in TOOLS:
                say(f"rounds: {tool}, session {number + 1}")
                session_id, log = await _work(bench, app, tool)
                await _take(bench, sdk, tool, log, ours, bare)
                container = container_of(app.settings.data_dir, session_id)
                execs += [await _exec(engine, container) for _ in range(EXECS)]
    await engine.close()
    rows = [
        Row(
            f"tool round, {tool}, {point} rounds of history",
            "ms",
            figure(ours[tool, point]),
            figure(bare[tool, point]),
            "bare SDK loop at that history",
            Hold(1, 4),
            NOTES,
        )
        for tool in TOOLS
        for point in POINTS
    ]
    first = "bash /bin/true"
    name = f"tool round, {first}, 10 rounds"
    rows.append(Row(name, "ms", figure(ours[first, 10]), figure(execs), "the engine's exec alone"))
    own = [2 * commit(bench.folder()) + command("/bin/true") for _ in range(bench.samples(3, 1))]
    return rows + [
        Row(
            f"tool round, {first}, {point} rounds of history, beside its parts",
            "ms",
            figure(ours[first, point]),
            figure([sdk_alone + statistics.median(own) for sdk_alone in bare[first, point]]),
            "that loop, two bare commits, a bare bash",
            Hold(1, 4),
        )
        for point in POINTS
    ]


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


async def _take(
    bench: Bench, sdk: AsyncAnthropic, tool: str, log: Sequence[Request], ours: Samples, bare: Samples
) -> None:
    for point in POINTS:
        near = range(point - AROUND, point + AROUND + 1)
        ours[tool, point] += [(log[n].at - log[n - 1].answered) * 1000 for n in near]
        bodies = [log[n].body for n in (near[0] - 1, *near)]
        bare[tool, point] += await floor.turnarounds(sdk, bench.fake, bodies)


async def _exec(engine: Engine, container: str) -> float:
    def work(client: Any) -> int:
        made = client.exec_create(container, ["/bin/true"])
        client.exec_start(made)
        return int(client.exec_inspect(made)["ExitCode"])

    began = time.monotonic()
    await engine.call("run a command", work)
    return (time.monotonic() - began) * 1000
