"""One live sandbox of the embedded backend: a bubblewrap process with the runner in it, and its workspace.

Above: `server.tools` through `sandbox.protocol.Sandbox`. Below: `process`, `workspace`, `sandbox.channel`,
`sandbox.egress.mux`. It does not know how a sandbox is found again (`backend` does), nor what operations mean (the
runner does).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from sandbox.channel import RunnerChannel
from sandbox.egress.mux import NetMux
from sandbox.errors import SandboxError, SandboxGone
from sandbox.local import placing, workspace
from sandbox.local.process import Place, Process
from sandbox.protocol import OnOutput, SandboxRef, SandboxSpec
from sandbox.wire import Call, Result

DISK_SECONDS = 2.0
"""How often the workspace is measured while something runs; a fast disk takes in 1 GiB in that time."""
DISK_SHARE = 20
"""The measuring may cost a twentieth of a processor: a tree that takes a second to count is counted every 20 s."""
DISK_HARD = 2
"""At this many times the bound the whole sandbox is ended: stopping the operations was not enough."""


class LocalSandbox:
    """See `sandbox.protocol.Sandbox`. Made by `LocalBackend` alone."""

    def __init__(
        self,
        ref: SandboxRef,
        spec: SandboxSpec,
        place: Place,
        process: Process,
        channel: RunnerChannel,
        mux: NetMux | None,
    ) -> None:
        self.ref = ref
        self.bare = False
        self.spec = spec
        self.incarnation = channel.incarnation
        self._place = place
        self._process = process
        self._channel = channel
        self._mux = mux
        self._running: dict[str, int] = {}
        self._stopped_for_disk: set[str] = set()
        self._busy = asyncio.Event()
        self._used = 0
        self._why_ended = ""
        self._guard = asyncio.create_task(self._watch_disk())

    @property
    def alive(self) -> bool:
        """Whether a call has a chance."""
        return self._process.alive and self._channel.error is None

    @property
    def left(self) -> Mapping[str, str]:
        """Nothing: it began with this process."""
        return self._channel.ops

    async def call(self, call: Call, on_output: OnOutput | None = None) -> Result:
        """See the protocol. An operation that the disk bound stopped is a failed result that says so."""
        with self._in_use(call.op_id):
            try:
                result = await self._channel.call(call, on_output)
            except SandboxGone as error:
                raise SandboxGone(self._why_ended or str(error)) from error
        if call.op_id not in self._stopped_for_disk:
            return result
        found = result.meta.get("notes")
        notes = [*(found if isinstance(found, list) else []), self._disk_words()]
        return result._replace(ok=False, meta={**result.meta, "notes": notes, "disk_exceeded": True})

    async def cancel(self, op_id: str) -> None:
        """Stop a running operation; see the protocol."""
        self._thaw()
        await self._channel.cancel(op_id)

    async def settle(self, op_ids: Sequence[str]) -> None:
        """These results are stored. A frozen runner reads it when it thaws."""
        self._stopped_for_disk.difference_update(op_ids)
        await self._channel.settle(op_ids)

    async def place(self, path: str, size: int, portions: AsyncIterator[bytes]) -> None:
        """Put a file that the agent can only read; see the protocol."""
        await placing.place(self._uploads, path, size, portions)

    async def unplace(self, path: str) -> None:
        """Take it away again; see the protocol."""
        await placing.unplace(self._uploads, path)

    @property
    def _uploads(self) -> Path:
        assert self._place.uploads is not None
        return self._place.uploads

    async def pause(self) -> None:
        """Freeze all processes where a cgroup can. Not while an operation runs, for it would never end."""
        if not self._running and self.alive:
            self._channel.unwatch()
            self._process.freeze(True)

    def _thaw(self) -> None:
        if self.alive:
            self._process.freeze(False)
            self._channel.watch()

    async def stop(self) -> None:
        """Kill all processes, keep the workspace. Idempotent."""
        self._guard.cancel()
        if self._mux is not None:
            await self._mux.close()
        await self._channel.close()
        await self._process.end()

    async def close(self) -> None:
        """The same as `stop`: without its pipes the process would be out of reach, and it dies with the server."""
        await self.stop()

    @contextlib.contextmanager
    def _in_use(self, op_id: str) -> Iterator[None]:
        if not self._running:
            self._thaw()
        self._running[op_id] = self._running.get(op_id, 0) + 1
        self._busy.set()
        try:
            yield
        finally:
            self._running[op_id] -= 1
            if not self._running[op_id]:
                del self._running[op_id]
            if not self._running:
                self._busy.clear()

    # --- the disk bound -----------------------------------------------------------------------------------------------

    def _disk_words(self) -> str:
        return (
            f"the command was stopped: the workspace holds {self._used} MiB, its bound is {self.spec.disk_mb} MiB; "
            "delete what is not needed, or commands that write more will be stopped"
        )

    async def _watch_disk(self) -> None:
        """Measure while something runs."""
        pause = DISK_SECONDS
        while True:
            await self._busy.wait()
            await asyncio.sleep(pause)
            began = time.monotonic()
            with contextlib.suppress(SandboxError):  # no measure this time: the next one counts
                await self._judge(await workspace.used_mb(self._place))
            pause = max(DISK_SECONDS, DISK_SHARE * (time.monotonic() - began))

    async def _judge(self, used: int) -> None:
        """Over the bound and growing: stop what runs. What frees space, an `rm`, may go on."""
        growing, self._used = used > self._used, used
        if used > self.spec.disk_mb * DISK_HARD:
            self._why_ended = (
                f"the workspace grew to {used} MiB, its bound is {self.spec.disk_mb} MiB: all processes were ended; "
                "the files are kept"
            )
            await self._process.end()
        elif used > self.spec.disk_mb and growing:
            for op_id in tuple(self._running):
                self._stopped_for_disk.add(op_id)
                await self._channel.cancel(op_id)
