"""`skiff work`: take over the sessions of a host that closed us, finish what runs, and leave.

A host ends `skiff mcp` by closing its input; turns that run then are driven on by this detached process. It is the
same path as after a crash: take the lock, fold the log, go on.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from server.app import App, running
from server.settings import Settings

TAKE_SECONDS = 10.0
"""For the lock: the process that started us releases it on its way out. Longer means that another engine took it."""
LOG_NAME = "work.log"


async def finish(settings: Settings) -> None:
    """Be the engine until no session has anything to do."""
    async with running(settings) as app:
        for _ in range(int(TAKE_SECONDS / 0.1)):
            if app.role.engine is not None:
                await app.role.engine.supervisor.idle()
                return
            await asyncio.sleep(0.1)


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
            env={**os.environ, "PYTHONPATH": path},
            cwd="/",
            start_new_session=True,  # the host kills our process group
        )
    return True
