"""stdio start → `tools/list` answered: what a host waits for before it can do anything."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.host import host, skiff_mcp
from benchmarks.row import Hold, Row, figure
from benchmarks.skiff import sweep

HELLO = '''
from mcp.server.mcpserver import MCPServer

server = MCPServer("hello")

@server.tool()
def hello(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"

server.run("stdio")
'''


async def measure(bench: Bench) -> list[Row]:
    """Each start beside one of the smallest server that the same SDK can make."""
    ours: list[float] = []
    bare: list[float] = []
    folder = bench.folder()
    try:
        for number in range(bench.samples(15) + 1):
            took = await _listed(skiff_mcp(folder))
            beside = await _listed(["-c", HELLO])
            if number:  # the first ones fill the bytecode caches
                ours.append(took)
                bare.append(beside)
    finally:
        await sweep(bench, folder)
    name = "stdio start → tools/list answered"
    return [Row(name, "s", figure(ours), figure(bare), "a hello-world server on the same SDK", Hold(1.3))]


async def _listed(arguments: Sequence[str]) -> float:
    began = time.monotonic()
    async with host(arguments) as client:
        await client.initialize()
        answer = await client.request("tools/list", {})
        took = time.monotonic() - began
    if not answer["tools"]:
        raise RuntimeError("the server lists no tools")
    return took
