"""send → first model request: a warm server, an idle session whose sandbox is there, a model over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import floor
from benchmarks.bench import Bench
from benchmarks.fake import calls, script
from benchmarks.host import Host, host, skiff_mcp
from benchmarks.row import Hold, Row, figure
from benchmarks.skiff import quiet, session, skiff, sweep, turn

SENDS = 5
"""A session: the history stays short, as it is when somebody begins to talk."""
AHEAD = "≥ 50 x ahead of the Claude Agent SDK: the group `peers` shows it, where that is installed"
FIRST = script([*calls(1, "bash", {"command": "true"}), {"say": "Ready."}])
BARE = '''
from anthropic import AsyncAnthropic
from mcp.server.mcpserver import MCPServer

server, sdk, bodies = MCPServer("bare"), AsyncAnthropic(max_retries=0), {}

@server.tool()
def learn(number: int, body: dict) -> str:
    """Remember a request."""
    bodies[number] = body
    return "learnt"

@server.tool()
async def send_message(number: int) -> str:
    """Make the request, and read its answer."""
    async for _ in await sdk.messages.create(**{**bodies[number], "stream": True}):
        pass
    return "answered"

server.run("stdio")
'''
"""The smallest MCP server that can make the same requests with the same SDKs."""


async def measure(bench: Bench) -> list[Row]:
    """By the use-case that every door calls, and through the MCP door of a process of its own."""
    return [await _by_service(bench), await _by_door(bench)]


async def _by_service(bench: Bench) -> Row:
    ours: list[float] = []
    bare: list[float] = []
    async with skiff(bench) as app, floor.client() as sdk:
        await quiet(app)
        for number in range(bench.samples(10) + 1):
            session_id = await session(app.service)
            await turn(app.service, session_id, FIRST)
            await bench.fake.clear()
            began = []
            for _ in range(SENDS):
                began.append(time.monotonic())
                await turn(app.service, session_id, "Go on.")
            log = await bench.fake.log()
            beside = await floor.arrivals(sdk, bench.fake, [request.body for request in log])
            if number:  # the first round warms both sides up
                ours += [(request.at - start) * 1000 for request, start in zip(log, began, strict=True)]
                bare += beside
    return Row("send → first model request", "ms", figure(ours), figure(bare), "bare SDK", Hold(1, 5), (AHEAD,))


async def _by_door(bench: Bench) -> Row:
    ours: list[float] = []
    bare: list[float] = []
    folder = bench.folder()
    try:
        async with host(skiff_mcp(folder, "--sandbox", bench.sandbox)) as client, host(["-c", BARE]) as other:
            await client.initialize()
            await other.initialize()
            for number in range(bench.samples(10) + 1):
                session_id = (await client.tool("create_session", task=FIRST))["session_id"]
                await bench.fake.clear()
                began = []
                for _ in range(SENDS):
                    began.append(time.monotonic())
                    await client.tool("send_message", session_id=session_id, message="Go on.")
                log = await bench.fake.log()
                beside = await _bare_arrivals(bench, other, [request.body for request in log])
                if number:
                    ours += [(request.at - start) * 1000 for request, start in zip(log, began, strict=True)]
                    bare += beside
    finally:
        await sweep(bench, folder)
    name = "send → first model request, from a host's pipe"
    return Row(name, "ms", figure(ours), figure(bare), "a bare MCP server with the bare SDK", Hold(1, 5), (AHEAD,))


async def _bare_arrivals(bench: Bench, other: Host, bodies: Sequence[Any]) -> list[float]:
    """Milliseconds from the call of a tool to the arrival of the request that it makes, for each of these bodies."""
    for number, body in enumerate(bodies):
        await other.request("tools/call", {"name": "learn", "arguments": {"number": number, "body": body}})
    await bench.fake.clear()
    began = []
    for number in range(len(bodies)):
        began.append(time.monotonic())
        answer = await other.request("tools/call", {"name": "send_message", "arguments": {"number": number}})
        if answer.get("isError"):
            raise RuntimeError(f"the bare server failed: {json.dumps(answer)[:500]}")
    log = await bench.fake.log()
    await bench.fake.clear()
    return [(request.at - start) * 1000 for request, start in zip(log, began, strict=True)]
