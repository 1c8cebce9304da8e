"""Starts a real runner as a subprocess, for tests of the runner and of the channel.

As root the runner is PID 1 of its own process namespace, under an unprivileged user with a bounded number of
processes: nothing that a test does inside reaches the machine. Otherwise it is an ordinary child.
"""

from __future__ import annotations

import asyncio
import atexit
import compileall
import contextlib
import functools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from sandbox import wire
from sandbox.channel import RunnerChannel
from sandbox.sending import send

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
"""A Python that any user may run; the tests' own may lie in somebody's home."""
ISOLATED = os.geteuid() == 0 and all(map(shutil.which, ("unshare", "setpriv", "prlimit"))) and PYTHON is not None
"""Whether a runner here is PID 1 of a namespace: what may kill everything is tested only then."""
USER = 20_000 + os.getpid() % 10_000
"""A user id of this test run's own: the limit on processes counts per user."""
MAX_PROCESSES = 150


class PipeTransport:
    """The `Transport` over a subprocess's stdin and stdout."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def read(self) -> bytes:
        return await self._stdout.read(1 << 16)

    def write(self, data: bytes) -> bool:
        return send(self._stdin, data)

    async def drain(self) -> None:
        await self._stdin.drain()

    async def close(self) -> None:
        """The pipes belong to the process; a second channel may be opened over them."""


class RunnerProcess:
    """A running runner: its workspace and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process, workspace: Path) -> None:
        self.process, self.workspace = process, workspace

    def transport(self) -> PipeTransport:
        return PipeTransport(self.process)

    def kill(self) -> None:
        """As a machine's end would: at once, with all in it."""
        os.killpg(self.process.pid, signal.SIGKILL)

    @contextlib.asynccontextmanager
    async def attached(self) -> AsyncIterator[RunnerChannel]:
        """A channel of its own, opened and closed; the runner lives on."""
        channel = RunnerChannel(self.transport())
        await channel.open(timeout=20)
        try:
            yield channel
        finally:
            await channel.close()


@functools.cache
def image() -> Path:
    """The runner as images hold it: a bare copy of its folder, of wire.py and __init__.py, readable by any user."""
    folder = Path(tempfile.mkdtemp(prefix="skiff-image-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = folder / "sandbox"
    shutil.copytree(ROOT / "sandbox" / "runner", target / "runner", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "wire.py"):
        shutil.copy(ROOT / "sandbox" / name, target / name)
    folder.chmod(0o755)
    compileall.compile_dir(target, quiet=1)
    return target / "runner"


def _command(workspace: Path, flags: tuple[str, ...]) -> list[str]:
    python = PYTHON if ISOLATED and PYTHON else sys.executable
    runner = [python, "-I", "-S", str(image()), "--workspace", str(workspace), *flags]
    if not ISOLATED:
        return runner
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    limit = ["prlimit", f"--nproc={MAX_PROCESSES}"]
    return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *user, *limit, *runner]


@contextlib.asynccontextmanager
async def runner(*flags: str) -> AsyncIterator[RunnerProcess]:
    """A fresh runner with an empty workspace, ended and removed on leaving."""
    workspace = Path(tempfile.mkdtemp(prefix="skiff-test-"))
    os.chmod(workspace, 0o777)
    pipe = asyncio.subprocess.PIPE
    command = _command(workspace, ("--exit-on-eof", *flags))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, limit=1 << 20, cwd="/", start_new_session=True
    )
    try:
        yield RunnerProcess(process, workspace)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(10):
                await process.communicate()
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
        shutil.rmtree(workspace, ignore_errors=True)


class Hands:
    """A channel with short names for what tests do."""

    def __init__(self, channel: RunnerChannel, workspace: Path) -> None:
        self.channel, self.workspace = channel, workspace
        self._count = 0

    def new_call(self, operation: wire.Operation, thread: str = "main", body: bytes = b"") -> wire.Call:
        self._count += 1
        return wire.Call(f"op{self._count}", operation, thread, body)

    async def do(self, operation: wire.Operation, thread: str = "main", body: bytes = b"") -> wire.Result:
        result = await self.channel.call(self.new_call(operation, thread, body))
        await self.channel.settle([result.op_id])
        return result

    async def bash(self, command: str, timeout_ms: int = 20_000, thread: str = "main") -> wire.Result:
        return await self.do(wire.Bash(command, timeout_ms=timeout_ms), thread)

    async def processes(self) -> list[str]:
        """The command lines in the sandbox, but for the runner's own, the shells' and this look's."""
        shown = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null"
        lines = (await self.bash(shown, thread="look")).body.decode().splitlines()
        own = ("bash --norc", "tr ", str(image()))
        return [line for line in lines if line.strip() and not any(mark in line for mark in own)]


def with_hands(story: Callable[[Hands], Awaitable[T]], *flags: str) -> T:
    """Run a test's story against a fresh runner, bounded by a minute."""

    async def run() -> T:
        async with asyncio.timeout(60), runner(*flags) as process, process.attached() as channel:
            return await story(Hands(channel, process.workspace))

    return asyncio.run(run())
