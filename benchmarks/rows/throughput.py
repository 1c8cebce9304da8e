"""Tool rounds a second: twenty sessions at once, each with a warm container of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from anthropic import AsyncAnthropic

from benchmarks import floor
from benchmarks.bench import Bench, say
from benchmarks.fake import Request, calls, script
from benchmarks.row import Row, figure
from benchmarks.skiff import ended, quiet, session, skiff, turn

NEEDS_ENGINE = True
SESSIONS = 20
ROUNDS = 20
NOTES = (
    "to hold: ≥ 3 x the best peer run the same way. The group `peers` runs one, where it is installed; the best of the"
    " others (programs for Node.js, without containers) did about 67 rounds/s on two such cores elsewhere",
    "the floor has no log and no tool: twenty bare SDK loops that answer each call themselves",
)


async def measure(bench: Bench) -> list[Row]:
    """Bursts of ours and of the bare SDK in turn; both are asked by one double, which has a core to share."""
    ours: list[float] = []
    bare: list[float] = []
    work = script(calls(ROUNDS, "bash", {"command": "/bin/true"}))
    async with skiff(bench) as app, floor.client() as sdk:
        for number in range(bench.samples(5, 1) + 1):
            say(f"throughput: burst {number}, warming {SESSIONS} sandboxes")
            ids = [await session(app.service) for _ in range(SESSIONS)]
            for session_id in ids:
                await turn(app.service, session_id, script(calls(1, "bash", {"command": "true"})))
            await quiet(app)
            await bench.fake.clear()
            for session_id in ids:
                await app.service.send_message(session_id, work)
            await ended(app.service, ids)
            log = await bench.fake.log()
            beside = await _bare(bench, sdk, log[0].body, work)
            for session_id in ids:  # both sides begin each burst with no history to speak of
                await app.service.delete_session(session_id, if_running="refuse")
            if number:
                ours.append(rate(log))
                bare.append(beside)
    name = f"tool rounds a second, {SESSIONS} sessions at once"
    return [Row(name, "rounds/s", figure(ours), figure(bare), "as many bare SDK loops, no log, no tool", None, NOTES)]


def rate(log: Sequence[Request]) -> float:
    """Rounds a second, from the first request to the last answer; a session's last request is no round."""
    return (len(log) - SESSIONS) / (max(request.answered for request in log) - min(request.at for request in log))


async def _bare(bench: Bench, sdk: AsyncAnthropic, body: Any, work: str) -> float:
    await bench.fake.clear()
    fresh = {**body, "messages": [{"role": "user", "content": [{"type": "text", "text": work}]}]}
    await asyncio.gather(*(_loop(sdk, fresh) for _ in range(SESSIONS)))
    return rate(await bench.fake.log())


async def _loop(sdk: AsyncAnthropic, body: Any) -> None:
    """A tool loop as a person would write it."""
    messages = list(body["messages"])
    while True:
        content = await floor.ask(sdk, {**body, "messages": messages})
        uses = [block for block in content if block["type"] == "tool_use"]
        if not uses:
            return
        said = [
            {"type": "tool_use", "id": use["id"], "name": use["name"], "input": json.loads(use["json"])} for use in uses
        ]
        results = [{"type": "tool_result", "tool_use_id": use["id"], "content": "ok"} for use in uses]
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": results}]
