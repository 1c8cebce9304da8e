"""One sandbox: the `Sandbox` protocol over a container and the channel to the runner inside it.

Above: `backend`, which makes and keeps them. Below: `channel` (frames), `engine` (pause, stop, archive), `disk` and
`idle` (decisions). It knows neither how a container is made nor what an operation means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from sandbox.channel import RunnerChannel
from sandbox.docker.disk import DiskBound, explain
from sandbox.docker.engine import Engine
from sandbox.docker.idle import IdleSettings, should_pause
from sandbox.docker.options import WORKSPACE
from sandbox.docker.placing import tarred
from sandbox.egress.mux import NetMux
from sandbox.errors import SandboxError, SandboxGone, SandboxUnavailable
from sandbox.protocol import OnOutput, SandboxRef
from sandbox.wire import OUTPUTS, SESSION, UPLOADS, Call, Result, Usage

WATCH_SECONDS = 5.0
"""How often a running operation's disk use and an idle container's processor use are looked at."""
MEASURE_SECONDS = 20.0
"""A tree that cannot be counted in this time is not judged; the next operation tries again."""
SWITCH_SECONDS = 5.0
"""How long letting go waits for a freeze or thaw that is under way: 30 ms are usual. Whoever attaches next would
otherwise be told a state that is about to change."""
SETTLE_SECONDS = 0.2
"""After a refused freeze or thaw, before its state is believed: an engine learns of its own switches by events that
come milliseconds late, and for so long says "is not paused" of a frozen container."""

log = logging.getLogger("skiff.sandbox.docker")


class Container:
    """See `sandbox.protocol.Sandbox`. Made by `backend` when the runner has said hello."""

    def __init__(
        self,
        engine: Engine,
        ref: SandboxRef,
        channel: RunnerChannel,
        net: NetMux | None,
        disk_bytes: int,
        on_close: Callable[[Container], None],
    ) -> None:
        self.ref = ref
        self.bare = False
        self.incarnation = channel.incarnation
        self._engine = engine
        self._channel = channel
        self._net = net
        self._disk = DiskBound(disk_bytes, self._measure)
        self._on_close = on_close
        self._users = 0
        self._last_use = time.monotonic()
        self._paused = False
        """Whether it may be frozen; only an answer of the engine makes it False again."""
        self._switching = asyncio.Lock()
        self._switches: set[asyncio.Task[None]] = set()

    # --- operations ---------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether a call has a chance; see the protocol."""
        return self._channel.error is None

    @property
    def left(self) -> Mapping[str, str]:
        """What the owner before this one left unsettled; see the protocol."""
        return self._channel.ops

    async def call(self, call: Call, on_output: OnOutput | None = None) -> Result:
        """Do an operation, thawing first; see the protocol. A result over the disk bound says so."""
        with self._in_use():
            await self._thaw()
            began = time.monotonic()
            result, stopped = await self._watched(call, on_output)
            verdict = "growing" if stopped else await self._disk.after(time.monotonic() - began)
        if verdict == "fine":
            return result
        return explain(result, self._disk.used, self._disk.bound, stopped)

    async def _watched(self, call: Call, on_output: OnOutput | None) -> tuple[Result, bool]:
        """The result, and whether the disk bound stopped it. Few operations live to be looked at even once."""
        stopped = asyncio.Event()
        watching: set[asyncio.Task[None]] = set()
        timer = asyncio.get_running_loop().call_later(
            WATCH_SECONDS, lambda: watching.add(asyncio.create_task(self._stop_if_growing(call.op_id, stopped)))
        )
        try:
            return await self._channel.call(call, on_output), stopped.is_set()
        finally:
            timer.cancel()
            for task in watching:
                task.cancel()
            if watching:
                await asyncio.wait(watching)

    async def _stop_if_growing(self, op_id: str, stopped: asyncio.Event) -> None:
        """Look at the disk while an operation runs; stop it when it writes beyond the bound."""
        while True:
            if await self._disk.check() == "growing":
                stopped.set()
                with contextlib.suppress(SandboxError):  # the call itself hears of it
                    await self._channel.cancel(op_id)
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def _measure(self) -> int:
        """Bytes that the workspace takes up; what was last known when it cannot be counted now. Never raises a
        SandboxError: a result that was already had must not be lost over it."""
        call = Call(f"usage-{secrets.token_hex(8)}", Usage())
        with contextlib.suppress(SandboxError):
            try:
                async with asyncio.timeout(MEASURE_SECONDS):
                    result = await self._channel.call(call)
                    await self._channel.settle([call.op_id])
                    used = result.meta.get("bytes") if result.ok else None
                    return used if isinstance(used, int) and used >= 0 else await self._measure_from_outside()
            except TimeoutError:
                await self._channel.cancel(call.op_id)
        return self._disk.used

    async def _measure_from_outside(self) -> int:
        """For a runner that does not know the operation: a process of the engine, at thirty times the cost."""

        def work(client: Any) -> bytes:
            made = client.exec_create(self.ref.container, ["du", "-sxkc", WORKSPACE, OUTPUTS], stderr=False)
            return bytes(client.exec_start(made["Id"]))

        words = (await self._engine.call("measure the workspace", work)).split()[-2:]  # the last line is the sum
        return int(words[0]) << 10 if words and words[0].isdigit() else self._disk.used

    async def cancel(self, op_id: str) -> None:
        """Stop a running operation; see the protocol."""
        with self._in_use():
            await self._thaw()
            await self._channel.cancel(op_id)

    async def settle(self, op_ids: Sequence[str]) -> None:
        """These results are stored. Waits for nothing: a frozen runner reads it when it thaws."""
        await self._channel.settle(op_ids)

    async def ping(self) -> None:
        """Return when the runner has answered. Raises SandboxGone."""
        with self._in_use():
            await self._thaw()
            await self._channel.ping()

    # --- what the session is given ------------------------------------------------------------------------------------

    async def place(self, path: str, size: int, portions: AsyncIterator[bytes]) -> None:
        """Put a file that the agent can only read; see the protocol. The engine writes it, as root."""
        with self._in_use():
            await self._thaw()
            tar = tarred(f"{UPLOADS}/{path}".removeprefix(SESSION + "/"), size, portions, asyncio.get_running_loop())
            await self._engine.finish(
                "place a file in the sandbox", lambda client: client.put_archive(self.ref.container, SESSION, tar)
            )

    async def unplace(self, path: str) -> None:
        """Take it away again; see the protocol. A process of the engine's does it, as root without any capability."""

        def work(client: Any) -> int:
            command = ["rm", "-rf", "--", f"{UPLOADS}/{path}"]
            made = client.exec_create(self.ref.container, command, user="0:0", workdir="/")
            client.exec_start(made["Id"])
            return int(client.exec_inspect(made["Id"])["ExitCode"] or 0)

        with self._in_use():
            await self._thaw()
            if await self._engine.finish("remove a file from the sandbox", work):
                raise SandboxUnavailable(f"{path} could not be removed from the sandbox")

    # --- states -------------------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Freeze all processes. Does nothing while an operation runs, for it would never end.

        Raises SandboxUnavailable or SandboxGone; the sandbox is usable after the former.
        """
        await self._to_its_end(self._switch(frozen=True))

    async def _thaw(self) -> None:
        if self._paused or self._switching.locked():
            await self._to_its_end(self._switch(frozen=False))

    async def _to_its_end(self, switch: Coroutine[Any, Any, None]) -> None:
        """Wait for a switch that goes on when the caller is cancelled, as its request to the engine does anyway."""

        def over(task: asyncio.Task[None]) -> None:
            self._switches.discard(task)
            if not task.cancelled():
                task.exception()  # seen, though whoever awaited it may have been cancelled

        task = asyncio.create_task(switch)
        self._switches.add(task)
        task.add_done_callback(over)
        await asyncio.shield(task)

    async def _switch(self, frozen: bool) -> None:
        """Freeze or thaw. A refusing engine may be in the wished state already; if not, it is asked once more."""
        async with self._switching:
            if self._paused == frozen or (frozen and self._users):
                return
            self._channel.unwatch()
            self._paused = True
            try:
                await self._ask_to_switch(frozen)
                self._paused = frozen
            except SandboxUnavailable:
                await asyncio.sleep(SETTLE_SECONDS)
                self._paused = await self._is_frozen()  # no answer to this either: the next call tries to thaw
                if self._paused != frozen:
                    await self._ask_to_switch(frozen)
                    self._paused = frozen
            finally:
                if not self._paused and self.alive:
                    self._channel.watch()

    async def _ask_to_switch(self, frozen: bool) -> None:
        container = self.ref.container
        if frozen:
            await self._engine.call("pause the sandbox", lambda client: client.pause(container))
        else:
            await self._engine.call("resume the sandbox", lambda client: client.unpause(container))

    async def _is_frozen(self) -> bool:
        found: dict[str, Any] = await self._engine.call(
            "look at the sandbox", lambda client: client.inspect_container(self.ref.container)
        )
        return bool(found["State"]["Paused"])

    async def stop(self) -> None:
        """Kill all processes, keep container and workspace, let go of the attachment.

        Raises SandboxUnavailable when the engine does not do it: the sandbox then lives on, attached, and can be
        stopped again.
        """
        async with self._switching:
            with contextlib.suppress(SandboxGone):
                await self._engine.finish("stop the sandbox", lambda client: client.stop(self.ref.container, timeout=0))
        await self.close()

    async def close(self) -> None:
        """Let go of the attachment; the container lives on as it is, a frozen one stays frozen."""
        self._on_close(self)
        await self._channel.close()
        if self._net is not None:
            await self._net.close()
        if self._switches:
            await asyncio.wait(self._switches, timeout=SWITCH_SECONDS)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._last_use = time.monotonic()

    # --- idleness -----------------------------------------------------------------------------------------------------

    async def watch_idle(self, settings: IdleSettings) -> None:
        """Freeze the container whenever it has been idle long enough; runs until cancelled or the sandbox is gone.

        An engine that fails is asked again at the next look; of a row of failures the first is logged.
        """
        used, seen, failing = 0.0, time.monotonic(), False
        while self.alive:
            await asyncio.sleep(max(WATCH_SECONDS, settings.pause_after - (time.monotonic() - self._last_use)))
            quiet = 0.0 if self._users else time.monotonic() - self._last_use
            if self._paused or quiet < settings.pause_after:
                continue
            try:
                now_used, now = await self._processor_seconds(), time.monotonic()
                share, used, seen = (now_used - used) / max(now - seen, 0.001), now_used, now
                if should_pause(quiet, share, settings):
                    await self.pause()
                failing = False
            except SandboxGone:
                return
            except SandboxError as error:
                if not failing:
                    log.warning("the idle sandbox %s is not frozen, trying again: %s", self.ref.slot, error)
                failing = True

    async def _processor_seconds(self) -> float:
        stats = await self._engine.call(
            "read the sandbox's processor use",
            lambda client: client.stats(self.ref.container, stream=False, one_shot=True),
        )
        return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


Discard = Callable[[Container], Awaitable[None]]
"""Removes a container with its workspace; never raises a SandboxError."""
