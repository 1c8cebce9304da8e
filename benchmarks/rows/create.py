"""create → first command: a sandbox from the pool, a cold one, and the engine's own create and start."""

from __future__ import annotations

import asyncio
import secrets
import time

from benchmarks.bench import Bench
from benchmarks.row import Hold, Row, figure
from sandbox.docker import reaper
from sandbox.docker.backend import DockerBackend
from sandbox.docker.engine import Engine
from sandbox.docker.images import Images
from sandbox.docker.labels import object_name
from sandbox.docker.options import Placement, create_options
from sandbox.protocol import SandboxSpec
from sandbox.wire import Bash, Call

NEEDS_ENGINE = True
SPEC = SandboxSpec()
POOLED_MS = 20.0
COLD_TIMES = 1.4
FILL_SECONDS = 60.0
SETTLE_SECONDS = 0.3
"""For the engine to finish with what was asked of it last: it answers a removal before all of it is done."""


async def measure(bench: Bench) -> list[Row]:
    """One of each in turn, and nothing beside it: the pool is full again before the next is taken."""
    pooled: list[float] = []
    cold: list[float] = []
    bare: list[float] = []
    engine = Engine()
    image = await Images(engine).ensure("")
    pool = DockerBackend(f"bench-{secrets.token_hex(4)}", default=SPEC, pool_size=1)
    fresh = DockerBackend(f"bench-{secrets.token_hex(4)}", default=SPEC)
    async with pool, fresh:
        for number in range(bench.samples(12) + 1):
            await _filled(pool)
            from_pool = await _first_command(pool)
            await _filled(pool)
            if number % 2:  # neither is always the one that comes after the refill
                beside, alone = await _by_engine(engine, image), await _first_command(fresh)
            else:
                alone, beside = await _first_command(fresh), await _by_engine(engine, image)
            if number:  # the first of each opens connections and fills the caches of the disk
                pooled.append(from_pool)
                cold.append(alone)
                bare.append(beside)
    await engine.close()
    floor, what = figure(bare), "the engine's create + start"
    return [
        Row("create → first command, pooled", "ms", figure(pooled), floor, what, Hold(plus=POOLED_MS)),
        Row("create → first command, cold", "ms", figure(cold), floor, what, Hold(COLD_TIMES)),
    ]


async def _filled(pool: DockerBackend) -> None:
    async with asyncio.timeout(FILL_SECONDS):
        await pool.pool_filled()
    await asyncio.sleep(SETTLE_SECONDS)


async def _first_command(backend: DockerBackend) -> float:
    began = time.monotonic()
    sandbox = await backend.create(SPEC, f"bench-{secrets.token_hex(4)}")
    result = await sandbox.call(Call("first", Bash("/bin/true", timeout_ms=20_000)))
    took = (time.monotonic() - began) * 1000
    await backend.destroy(sandbox.ref)
    if not result.ok:
        raise RuntimeError(f"the first command failed: {result.body!r}")
    return took


async def _by_engine(engine: Engine, image: str) -> float:
    """The same container, asked for with the same options, made and started by two bare requests."""
    installation, slot = f"bench-{secrets.token_hex(4)}", "floor"
    name = object_name(installation, slot)
    options = create_options(SPEC, Placement(installation, slot, image, "benchmark"))
    began = time.monotonic()
    await engine.call("create", lambda client: client.create_container_from_config(options, name))
    await engine.call("start", lambda client: client.start(name))
    took = (time.monotonic() - began) * 1000
    await reaper.remove(engine, installation, slot)
    return took
