"""Real sandbox backends for tests: the embedded one always, the container engine's where there is one.

A machine without an engine or without the sandbox image skips the docker half loudly. SKIFF_REQUIRE_DOCKER=1 makes
that a failure, and SKIFF_REQUIRE_LOCAL=1 does the same for bubblewrap: the machine that must not skip sets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from sandbox.egress.dial import Dialer
from sandbox.egress.mux import MuxStream
from sandbox.egress.policy import parse_policy
from sandbox.egress.proxy import Proxy
from sandbox.errors import SandboxError
from sandbox.local import LocalBackend
from sandbox.protocol import NetworkPolicy, Sandbox, SandboxBackend, SandboxSpec
from sandbox.wire import Bash, Call, Operation, Result

BACKENDS = [pytest.param("local", id="local"), pytest.param("docker", id="docker", marks=pytest.mark.docker)]

SMALL = SandboxSpec(cpus=1.0, memory_mb=256, disk_mb=64, pids=64)
"""Bounds that a hostile test reaches quickly."""

MUST_END = 30.0
"""Seconds after which a test of sandboxes is stuck, whatever the machine's load."""

_numbers = itertools.count()


def fresh_slot() -> str:
    """A slot that no earlier run on this machine has left behind."""
    return f"test-{secrets.token_hex(4)}-{next(_numbers)}"


def op(operation: Operation, body: bytes = b"", op_id: str = "", thread: str = "main") -> Call:
    """A call with an operation id of its own."""
    return Call(op_id or f"op-{secrets.token_hex(8)}", operation, thread, body)


async def bash(sandbox: Sandbox, command: str, timeout_ms: int = 20_000) -> Result:
    """The result of a command in the main shell."""
    return await sandbox.call(op(Bash(command=command, timeout_ms=timeout_ms)))


async def says(sandbox: Sandbox, command: str) -> str:
    """What a command says, without the newline at the end."""
    return (await bash(sandbox, command)).body.decode("utf-8", "replace").strip()


def local_serve(address: tuple[str, int]) -> Callable[[NetworkPolicy], Callable[[MuxStream], Awaitable[None]]]:
    """The real policy and proxy, on a network where every name is one server of the test's own."""

    async def resolve(host: str, port: int) -> list[tuple[str, int]]:
        return [address]

    def serve(policy: NetworkPolicy) -> Callable[[MuxStream], Awaitable[None]]:
        dialer = Dialer(resolver=resolve, allowed=lambda ip: True)
        return Proxy(parse_policy(policy), lambda *decision: None, dialer).serve

    return serve


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A data folder that the sandboxes' own user may enter, unlike pytest's: all that is made stays below it."""
    with tempfile.TemporaryDirectory(prefix="skiff-test-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)


@contextlib.asynccontextmanager
async def opened(kind: str, address: tuple[str, int] = ("127.0.0.1", 9)) -> AsyncIterator[SandboxBackend]:
    """A backend of the named kind, entered; everything that it made is destroyed at the end.

    `address` is where every host name leads for sandboxes with a network.
    """
    with data_folder() as folder:
        async with asyncio.timeout(MUST_END), _make(kind, folder, address) as backend:
            try:
                yield backend
            finally:
                for ref in await backend.list():
                    await backend.destroy(ref)


def _make(kind: str, folder: Path, address: tuple[str, int]) -> LocalBackend:
    if kind == "local":
        return LocalBackend(folder, net_serve=local_serve(address))
    from sandbox.docker.backend import DockerBackend

    return DockerBackend(f"test-{folder.name}-{os.getpid()}", net_serve=local_serve(address))  # type: ignore[return-value]


@functools.cache
def missing(kind: str) -> str:
    """Why a kind of backend cannot be tested here; "" when it can."""

    async def ask() -> str:
        try:
            async with opened(kind) as backend:
                await backend.check()
        except SandboxError as error:
            return str(error)
        return ""

    return asyncio.run(ask())


def require(kind: str) -> None:
    """Skip the running test, or fail it where the machine must have this backend."""
    why = missing(kind)
    if not why:
        return
    if os.environ.get(f"SKIFF_REQUIRE_{kind.upper()}") == "1":
        pytest.fail(f"SKIFF_REQUIRE_{kind.upper()}=1, but the {kind} backend cannot be used: {why}")
    pytest.skip(f"NOT TESTED on {kind.upper()}: {why}")


Story = Callable[[SandboxBackend], Awaitable[None]]


def run_on(kind: str, story: Story, address: tuple[str, int] = ("127.0.0.1", 9)) -> None:
    """Play a story on a fresh backend of the named kind; skips when the machine has none."""
    require(kind)

    async def play() -> None:
        async with opened(kind, address) as backend:
            await story(backend)

    asyncio.run(play())
