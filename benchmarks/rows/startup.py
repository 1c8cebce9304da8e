"""start → first model request: a host starts `skiff mcp` and sends out an agent at once."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.bench import MODEL, Bench
from benchmarks.fake import script
from benchmarks.host import host, skiff_mcp
from benchmarks.imports import imported
from benchmarks.row import Hold, Row, figure
from benchmarks.skiff import sweep

TASK = script([{"say": "Here."}])


async def measure(bench: Bench) -> list[Row]:
    """Each start beside a start of the bare libraries; the first of both only fills the bytecode caches."""
    ours: list[float] = []
    bare: list[float] = []
    folder = bench.folder()
    try:
        for number in range(bench.samples(10) + 1):
            took = await _start(bench, folder)
            async with imported() as (_, seconds):
                pass
            if number:
                ours.append(took)
                bare.append(seconds)
    finally:
        await sweep(bench, folder)
    return [Row("start → first model request", "s", figure(ours), figure(bare), "imports alone", Hold(1.2))]


async def _start(bench: Bench, folder: Path) -> float:
    await bench.fake.clear()
    began = time.monotonic()
    async with host(skiff_mcp(folder, "--model", MODEL)) as client:
        await client.initialize()
        await client.tool("create_session", task=TASK)
    return (await bench.fake.log())[0].at - began
