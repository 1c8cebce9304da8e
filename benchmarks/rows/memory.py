"""Memory: the server after its imports, what an idle session adds, and what a live sandbox with a shell adds."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

from benchmarks.bench import MODEL, Bench, say
from benchmarks.fake import script
from benchmarks.host import Host, host, skiff_mcp
from benchmarks.imports import imported
from benchmarks.row import Hold, Row, figure
from benchmarks.skiff import sweep
from sandbox.docker.backend import DockerBackend
from sandbox.docker.engine import Engine
from sandbox.docker.idle import IdleSettings
from sandbox.docker.images import Images
from sandbox.docker.labels import object_name
from sandbox.docker.options import Placement, create_options
from sandbox.protocol import SandboxSpec
from sandbox.wire import Bash, Call

SANDBOXES = 20
TALKER = {"name": "talker", "tools": []}
"""An agent without tools: its sessions have no sandbox, so that only the session itself is counted."""
SETTLE_SECONDS = 3.0
"""For what was started to have touched its memory, and for what ended to have given it back."""
LOOKS = 15
AGREE_MB = 4.0
"""A fifth of a megabyte for each sandbox: less than the figure is quoted to."""


async def measure(bench: Bench) -> list[Row]:
    """The sandboxes' row needs an engine, the others do not."""
    rows = [await _server(bench), await _sessions(bench)]
    return [*rows, await _sandboxes(bench)] if bench.engine else rows


# --- the server ------------------------------------------------------------------------------------------------------


async def _server(bench: Bench) -> Row:
    ours: list[float] = []
    bare: list[float] = []
    folder = bench.folder()
    try:
        for _ in range(bench.samples(3, 1)):
            async with host(skiff_mcp(folder, "--model", MODEL)) as client:
                await client.initialize()
                await client.request("tools/list", {})
                await _talk(client)  # the SDK is imported once a model has been asked
                ours.append(await settled(client.pid))
            async with imported() as (process, _):
                bare.append(await settled(process.pid))
    finally:
        await sweep(bench, folder)
    name = "memory: the server after its imports and a first session"
    return Row(name, "MB", figure(ours), figure(bare), "imports alone", Hold(1.2))


async def _sessions(bench: Bench) -> Row:
    """Each session has had a turn; as many again go before, so that no cache is counted as a session's."""
    count = bench.samples(400, 50)
    folder = bench.folder()
    try:
        async with host(skiff_mcp(folder, "--model", MODEL)) as client:
            await client.initialize()
            say(f"memory: {count} sessions, twice")
            for _ in range(count):
                await _talk(client)
            before = await settled(client.pid)
            for _ in range(count):
                await _talk(client)
            after = await settled(client.pid)
    finally:
        await sweep(bench, folder)
    added = figure([(after - before) * 1024 / count])
    notes = (f"the mean over {count} sessions; p95 has no meaning here",)
    beside = "nothing: the bound is absolute"
    return Row("memory: added per idle session", "KB", added, None, beside, Hold(plus=20), notes)


async def _talk(client: Host) -> None:
    await client.tool("create_session", task=script([{"say": "Here."}]), agent=TALKER)


async def settled(pid: int) -> float:
    """Resident memory in MB."""
    await asyncio.sleep(SETTLE_SECONDS)
    return megabytes(f"/proc/{pid}/status", "VmRSS")


# --- the sandboxes ---------------------------------------------------------------------------------------------------


async def _sandboxes(bench: Bench) -> Row:
    """What the machine has less, with everything that the engine keeps for a container."""
    ours: list[float] = []
    bare: list[float] = []
    for number in range(bench.samples(3, 1)):
        say(f"memory: {SANDBOXES} sandboxes, {number + 1}")
        ours.append(await _with_runner())
        bare.append(await _with_sleep())
    name = "memory: added per live sandbox with a shell"
    notes = (f"MemAvailable over {SANDBOXES}; anything else that runs on the machine is in it",)
    return Row(name, "MB", figure(ours), figure(bare), "the same containers with a sleep in them", Hold(plus=14), notes)


async def _with_runner() -> float:
    spec = SandboxSpec()
    async with DockerBackend(f"bench-{secrets.token_hex(4)}", idle=IdleSettings(pause_after=0)) as backend:
        first = await backend.create(spec, "warm")  # what is read once from the image is nobody's in particular
        await first.call(Call("warm", Bash("true")))
        before = await _available()
        try:
            for number in range(SANDBOXES):
                sandbox = await backend.create(spec, f"bench-{number}")
                await sandbox.call(Call(f"op-{number}", Bash("true")))
            return (before - await _available()) / SANDBOXES
        finally:
            for ref in await backend.list():
                await backend.destroy(ref)


async def _with_sleep() -> float:
    engine, installation = Engine(), f"bench-{secrets.token_hex(4)}"
    image = await Images(engine).ensure("")
    before = await _available()
    names = []
    try:
        for number in range(SANDBOXES):
            slot = f"floor-{number}"
            options = create_options(SandboxSpec(), Placement(installation, slot, image, "benchmark"))
            names.append(object_name(installation, slot))
            await _start(engine, {**options, "Entrypoint": ["sleep", "600"]}, names[-1])
        return (before - await _available()) / SANDBOXES
    finally:
        for name in names:
            await _remove(engine, name)
        await engine.close()


async def _start(engine: Engine, options: dict[str, Any], name: str) -> None:
    await engine.call("create", lambda client: client.create_container_from_config(options, name))
    await engine.call("start", lambda client: client.start(name))


async def _remove(engine: Engine, name: str) -> None:
    await engine.call("remove", lambda client: client.remove_container(name, force=True))
    await engine.call("remove", lambda client: client.remove_volume(name))


async def _available() -> float:
    """MB that the machine could still give, once three looks in a row agree; the last look, where they never do."""
    looks = [megabytes("/proc/meminfo", "MemAvailable")]
    while len(looks) < LOOKS:
        await asyncio.sleep(SETTLE_SECONDS / 2)
        looks.append(megabytes("/proc/meminfo", "MemAvailable"))
        if len(looks) > 3 and max(looks[-3:]) - min(looks[-3:]) < AGREE_MB:
            break
    return looks[-1]


def megabytes(path: str, name: str) -> float:
    fields = dict(line.split(":", 1) for line in Path(path).read_text("utf-8").splitlines())
    return int(fields[name].split()[0]) / 1024
