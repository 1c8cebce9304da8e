"""`skiff work`: take over the sessions of a host that closed us, finish what runs, and leave.

A host ends `skiff mcp` by closing its input; turns that run then are driven on by this detached process. It is the
same path as after a crash: take the lock, fold the log, go on.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from server.app import App, running
from server.engine.role import Role
from server.errors import Conflict
from server.settings import Settings, config_file

TAKE_SECONDS = 120.0
"""For the lock: the process that started us releases it on its way out, which may wait 45 s for a container."""
LOOK = 0.2
"""Seconds between looks at who the engine is."""
LOG_NAME = "work.log"


async def finish(settings: Settings) -> None:
    """Be the engine until no session has anything to do; leave, saying why, where another process is it."""
    predecessor = os.getppid()
    async with running(settings) as app:
        driver = await _driver(app.role, predecessor)
        if app.role.engine is not None:
            await app.role.engine.supervisor.idle()
        elif driver is None:
            why = app.role.trouble or f"process {predecessor} has not let go of the sessions"
            _say(f"gave up after {TAKE_SECONDS:.0f} seconds: {why}. The next Skiff on this folder goes on with them.")
        else:
            _say(f"nothing to do: process {driver} drives the sessions")


async def _driver(role: Role, predecessor: int) -> int | None:
    """The process that is the engine, once it is not the one that started us, which is leaving; None: it stayed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(TAKE_SECONDS):
            while True:
                with suppress(Conflict):  # nobody at the moment
                    if (driver := await role.process()) != predecessor:
                        return driver
                await asyncio.sleep(LOOK)
    return None


def _say(line: str) -> None:
    print(f"skiff: {line}", file=sys.stderr, flush=True)  # noqa: T201 - for the reader of work.log


def hand_over(app: App) -> bool:
    """Start the successor if this process is the engine and sessions are at work. Whether it was started."""
    engine = app.role.engine
    if engine is None or not engine.supervisor.at_work:
        return False
    settings = app.settings
    program = Path(__file__).resolve().parents[2]
    arguments = ["work", "--data-dir", str(settings.data_dir), "--sandbox", settings.sandbox]
    if settings.model:
        arguments += ["--model", settings.model]
    path = os.pathsep.join(filter(None, [str(program), os.environ.get("PYTHONPATH")]))
    with open(settings.data_dir / LOG_NAME, "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "server", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **_files(settings), "PYTHONPATH": path},
            cwd="/",
            start_new_session=True,  # the host kills our process group
        )
    return True


def _files(settings: Settings) -> dict[str, str]:
    """The variables that name files, absolute: the successor works in another folder."""
    named = {"SKIFF_CONFIG": config_file(), "SKIFF_PRICES": settings.prices}
    return {name: str(path) for name, path in named.items() if path is not None}
