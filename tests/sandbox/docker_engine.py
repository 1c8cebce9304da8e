"""What the tests against a real engine share: entering a backend of their own, and saying why they cannot run."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sandbox.docker.backend import DockerBackend
from sandbox.docker.idle import IdleSettings
from sandbox.errors import SandboxUnavailable
from sandbox.protocol import Sandbox, SandboxSpec
from sandbox.wire import Bash, Call, Result

SPEC = SandboxSpec(cpus=1.0, memory_mb=256, disk_mb=64, pids=128)
STORY_SECONDS = 60


def require_engine() -> None:
    """Skip without an engine or image, saying why; fail instead where SKIFF_REQUIRE_DOCKER=1."""

    async def look() -> None:
        async with DockerBackend("tests-look") as backend:
            await backend.check()

    try:
        asyncio.run(look())
    except SandboxUnavailable as error:
        if os.environ.get("SKIFF_REQUIRE_DOCKER") == "1":
            pytest.fail(f"SKIFF_REQUIRE_DOCKER=1, but: {error}")
        pytest.skip(str(error))


@asynccontextmanager
async def backend(**options: Any) -> AsyncIterator[DockerBackend]:
    """A backend of an installation that nobody else has; what it made is removed at the end."""
    options.setdefault("idle", IdleSettings(pause_after=0))
    async with DockerBackend(f"tests-{secrets.token_hex(6)}", default=SPEC, **options) as made:
        try:
            yield made
        finally:
            with anyio.CancelScope(shield=True):
                for ref in await made.list():
                    await made.destroy(ref)


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run a story, bounded."""

    async def bounded() -> None:
        async with asyncio.timeout(STORY_SECONDS):
            await story()

    asyncio.run(bounded())


async def bash(sandbox: Sandbox, command: str, timeout_ms: int = 20_000) -> Result:
    """Run a command under an operation id of its own."""
    return await bash_in(sandbox, "main", command, timeout_ms)


async def bash_in(sandbox: Sandbox, thread: str, command: str, timeout_ms: int = 20_000) -> Result:
    """The same in a thread's own shell, beside what runs in others."""
    return await sandbox.call(Call(f"op-{secrets.token_hex(6)}", Bash(command, timeout_ms=timeout_ms), thread))
