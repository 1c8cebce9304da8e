"""One bubblewrap process: started held back, bounded, let go; ended with everything in it.

Above: `sandbox` (the runner's process) and `workspace` (short helper commands). Below: `command`, `limits`, the kernel.
It knows nothing of frames: it offers its stdin and stdout as a `sandbox.channel.Transport`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxUnavailable
from sandbox.local import limits
from sandbox.local.command import Folders, bwrap_argv, limited_argv
from sandbox.local.host import Host, explain
from sandbox.protocol import SandboxSpec
from sandbox.seccomp import bpf_program
from sandbox.sending import send

SPAWN_SECONDS = 20.0
"""From fork to a finished inside: 10 ms on an idle machine. A loaded one gets a lot of patience, a stuck one an end."""
END_SECONDS = 10.0
"""From SIGKILL to an empty namespace: milliseconds, unless a process hangs in the kernel (a dead network disk)."""
PORTION = 256 << 10
STDERR_BYTES = 4096
"""The last words of bubblewrap or the runner, for the error message."""


@dataclass(frozen=True)
class Place:
    """Where a process runs: on which host, with which files, on which workspace.

    `uploads` and `outputs` are the folders of a session's files beside it; None where a helper has no use for them.
    """

    host: Host
    parts: Path
    workspace: Path
    uploads: Path | None = None
    outputs: Path | None = None
    only_read: bool = False
    """See `command.Folders`."""


class Process:
    """A running bubblewrap with PID 1 of its namespace in it."""

    def __init__(self, process: asyncio.subprocess.Process, pidfd: int, group: limits.Group | None) -> None:
        self._process = process
        self._pidfd = pidfd
        self._group = group
        self._last_words = bytearray()
        self._listener = asyncio.create_task(self._listen())
        self._ending: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and self._ending is None

    @property
    def last_words(self) -> str:
        """The end of what was written to stderr."""
        return self._last_words.decode("utf-8", "replace").strip()

    async def read(self) -> bytes:
        """The next portion of stdout; b"" at its end."""
        assert self._process.stdout is not None
        return await self._process.stdout.read(PORTION)

    def write(self, data: bytes) -> bool:
        """To stdin. Whether the pipe took all of it. Raises ConnectionError when the process reads no more."""
        assert self._process.stdin is not None
        return send(self._process.stdin, data)

    async def drain(self) -> None:
        """Wait while the pipe is full. Raises ConnectionError when the process is gone."""
        assert self._process.stdin is not None
        await self._process.stdin.drain()

    async def close(self) -> None:
        """End it (see `end`): a sandbox without its pipes would be out of reach for ever."""
        await self.end()

    def freeze(self, frozen: bool) -> None:
        """Stop or continue all processes; nothing where there is no cgroup."""
        if self._group is not None and self.alive:
            self._group.freeze(frozen)

    async def wait(self) -> int:
        """The exit code of PID 1 inside, or minus the signal that ended bubblewrap."""
        return await self._process.wait()

    async def end(self) -> None:
        """Kill everything inside and wait until nothing is left. Idempotent; survives cancellation of the caller."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        # The kernel kills the whole namespace with its PID 1, and bubblewrap's own end follows. A frozen group
        # would take the signal only when thawed.
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.freeze(False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._listener.cancel()
        os.close(self._pidfd)
        if self._group is not None:
            await self._group.remove()

    async def _listen(self) -> None:
        """Drain stderr, keeping its end: a full pipe would stop the writer."""
        assert self._process.stderr is not None
        while portion := await self._process.stderr.read(STDERR_BYTES):
            self._last_words = (self._last_words + portion)[-STDERR_BYTES:]


async def start(place: Place, argv: Sequence[str], spec: SandboxSpec, group: limits.Group | None) -> Process:
    """Run `argv` as PID 1 of a new sandbox. Raises SandboxUnavailable with bubblewrap's reason. Cancelling ends it."""
    starting = asyncio.create_task(_start(place, argv, spec, group))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Half way, PID 1 is nameless and outlives its parent: it is let begin (bounded by SPAWN_SECONDS), then ended.
        with contextlib.suppress(SandboxUnavailable):
            await (await starting).end()
        raise


async def _start(place: Place, argv: Sequence[str], spec: SandboxSpec, group: limits.Group | None) -> Process:
    """Start it.

    bubblewrap makes the inside, reports the host's pid of PID 1 and waits; that pid is put into the group; only then
    does the first instruction of `argv` run. On failure the group is removed.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        info_read, info_write = _pipe(ours, theirs)
        block_read, block_write = _pipe(theirs, ours)
        filter_fd = _memory_file(theirs, bpf_program(os.uname().machine))
        options = ("--seccomp", str(filter_fd), "--info-fd", str(info_write), "--block-fd", str(block_read))
        folders = Folders(place.workspace, place.uploads, place.outputs, place.only_read)
        inside = bwrap_argv(folders, place.parts, place.host.prefix, spec, options)
        bounded = limited_argv(argv, limits.rlimits(spec, in_cgroup=group is not None))
        process = await _spawn(place.host, [*inside, *bounded], (filter_fd, info_write, block_read))
        theirs.close()
        pidfd = -1
        try:
            async with asyncio.timeout(SPAWN_SECONDS):
                pid = await _child_pid(os.dup(info_read))
            pidfd = os.pidfd_open(pid)
            if group is not None:
                group.add(pid)
            os.write(block_write, b"\0")
        except BaseException as error:
            why = await _give_up(process, pidfd, group)
            if isinstance(error, (OSError, ValueError)):  # TimeoutError is an OSError
                raise SandboxUnavailable(f"bubblewrap could not make a sandbox: {explain(why)}") from error
            raise
        return Process(process, pidfd, group)


async def _spawn(host: Host, argv: Sequence[str], descriptors: Sequence[int]) -> asyncio.subprocess.Process:
    user = {} if host.uid is None else {"user": host.uid, "group": host.uid, "extra_groups": []}
    try:
        return await asyncio.create_subprocess_exec(
            str(host.bwrap),
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=PORTION,
            env={},
            cwd="/",
            pass_fds=descriptors,
            **user,  # type: ignore[arg-type]  # one dict of three parameters
        )
    except OSError as error:
        raise SandboxUnavailable(f"{host.bwrap} cannot be started: {error.strerror}") from error


async def _child_pid(info: int) -> int:
    """Read bubblewrap's report; takes over the descriptor. Raises ValueError when it ended without one."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(info, "rb", 0)
    )
    try:
        report = b""
        while portion := await reader.read(4096):
            report += portion
            with contextlib.suppress(ValueError, KeyError):
                return int(json.loads(report)["child-pid"])
        raise ValueError("no report")
    finally:
        transport.close()


async def _give_up(process: asyncio.subprocess.Process, pidfd: int, group: limits.Group | None) -> str:
    """End what was half made; returns its last words. While held back, PID 1 does not yet die with its parent."""
    if pidfd >= 0:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    words = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            _, words = await process.communicate()
    if pidfd >= 0:
        os.close(pidfd)
    if group is not None:
        await group.remove()
    return words.decode("utf-8", "replace")


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """(read end, write end), each closed with the stack of its owner."""
    read_end, write_end = os.pipe()
    reader.callback(os.close, read_end)
    writer.callback(os.close, write_end)
    return read_end, write_end


def _memory_file(owner: contextlib.ExitStack, content: bytes) -> int:
    """A file that exists only as a descriptor, at its beginning."""
    descriptor = os.memfd_create("skiff")
    owner.callback(os.close, descriptor)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
