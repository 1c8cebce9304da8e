"""`skiff doctor`: what a person would check, each line ok or with what to do."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Awaitable, Callable

from rich.console import Console

from sandbox.errors import SandboxError
from server.app import prepare_data_dir
from server.backends import docker_backend, local_backend
from server.errors import SkiffError
from server.settings import KEYS, SCRIPTED, Settings

console = Console(highlight=False)
ROOM = 2 << 30
"""Bytes that should be free for images and workspaces."""

Check = Callable[[Settings], Awaitable[str]]
"""Returns what is well; raises SkiffError or SandboxError with what to do."""


class Advice(SkiffError):
    """Something to be done; the text says what."""


async def examine(settings: Settings) -> int:
    """Run every check; the exit code is 1 when no agent could be sent out."""
    well = {name: await _report(name, check, settings) for name, check in CHECKS.items()}
    usable = well["python"] and well["data folder"] and well["model"] and (well["engine"] or well["bubblewrap"])
    console.print("\nReady." if usable else "\nNot ready: see above.")
    return 0 if usable else 1


async def _report(name: str, check: Check, settings: Settings) -> bool:
    try:
        line, mark, well = await check(settings), "[green]ok[/]  ", True
    except (SkiffError, SandboxError) as error:
        line, mark, well = str(error), "[yellow]do[/]  ", False
    console.print(f"{mark}[bold]{name:12}[/]", end="")
    console.print(line, markup=False)
    return well


async def _python(settings: Settings) -> str:
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"


async def _data(settings: Settings) -> str:
    prepare_data_dir(settings.data_dir)
    mode = settings.data_dir.stat().st_mode & 0o777
    return f"{settings.data_dir}, mode {mode:o}"


async def _disk(settings: Settings) -> str:
    free = shutil.disk_usage(settings.data_dir).free
    if free < settings.min_free_mb * 10**6:
        raise Advice(
            f"only {free // 10**6} MB are free at {settings.data_dir}: nothing new is begun below"
            f" {settings.min_free_mb} (setting min_free_mb); free some space"
        )
    if free < ROOM:
        raise Advice(f"only {free >> 20} MiB are free at {settings.data_dir}; free some space")
    return f"{free >> 30} GiB free"


async def _model(settings: Settings) -> str:
    if settings.model == SCRIPTED:
        return "scripted: no language model is asked"
    if settings.platform == "api" and not any(os.environ.get(key) for key in KEYS):
        raise Advice("no key: set ANTHROPIC_API_KEY in the host's configuration, or --model scripted to try things out")
    return f"{settings.model or 'the default model'} by {settings.platform}"


async def _engine(settings: Settings) -> str:
    async with docker_backend(settings, "doctor", pool=0) as backend:
        await backend.check()
    return "a container engine answers and the sandbox image is there"


async def _bubblewrap(settings: Settings) -> str:
    async with local_backend(settings) as backend:
        await backend.check()
    return "the embedded sandbox works; it cannot promise: " + "; ".join(backend.promises.notes)


CHECKS: dict[str, Check] = {
    "python": _python,
    "data folder": _data,
    "disk": _disk,
    "model": _model,
    "engine": _engine,
    "bubblewrap": _bubblewrap,
}
