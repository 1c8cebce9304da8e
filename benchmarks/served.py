"""A server in a process that may be killed: `python -m benchmarks.served FOLDER SANDBOX`.

It imports everything first and says `ready`; a line on its input lets it open, and it says when its doors were open
(CLOCK_MONOTONIC), and that its engine is. It serves until its input ends, or it is killed.
"""

from __future__ import annotations

import asyncio
import sys
import time

import anthropic.resources.messages
import docker

from benchmarks.bench import MODEL
from server.app import running
from server.settings import Settings, load

LOADED = (anthropic, docker)
"""Imported by the server on first need; `rows/startup.py` counts them, this process does not."""
AT_WORK = 256
"""More sessions than are interrupted, or they would wait for each other by design."""


def settings(folder: str, sandbox: str) -> Settings:
    """Of the killed server, of the one after it, and of the door that watches both."""
    most = {"max_sessions_at_work": AT_WORK, "max_model_requests": AT_WORK}
    return load(data_dir=folder, sandbox=sandbox, model=MODEL, pool=0, **most)


async def serve(folder: str, sandbox: str) -> None:
    """See above."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with running(settings(folder, sandbox)) as app:
        print(time.monotonic(), flush=True)
        await app.role.backend()
        print("engine", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
