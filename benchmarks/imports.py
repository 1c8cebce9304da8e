"""The floor of everything that starts: a Python that imports the same libraries and nothing of ours.

Above: `rows/`. The list is what `skiff mcp` has loaded once it has asked a model, less what these bring themselves.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.host import child

LIBRARIES = ("typer", "mcp.server.mcpserver", "pydantic_settings", "sqlite3", "anthropic.resources.messages", "docker")
PROGRAM = f"import sys, {', '.join(LIBRARIES)}\nprint('imported', flush=True)\nsys.stdin.read()"


@asynccontextmanager
async def imported() -> AsyncIterator[tuple[Process, float]]:
    """Such a process, waiting with its imports done; and the seconds from its start until then."""
    began = time.monotonic()
    async with child(["-c", PROGRAM]) as process:
        assert process.stdout is not None
        async with asyncio.timeout(120):
            await process.stdout.readline()
        yield process, time.monotonic() - began
