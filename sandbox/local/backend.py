"""Makes, finds and removes sandboxes without a container engine.

Above: `server.app`, through `sandbox.protocol.SandboxBackend`. Below: `host`, `limits`, `workspace`, `process`,
`sandbox`, and `sandbox.channel` for the runner. It knows nothing of sessions: a slot is a name that a caller chose.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType

from sandbox.channel import RunnerChannel
from sandbox.egress.mux import NetMux, Serve
from sandbox.errors import SandboxError, SandboxUnavailable, SpecRefused
from sandbox.local import limits, process
from sandbox.local.command import runner_argv
from sandbox.local.host import SANDBOX_UID, Host, enterable, find_host
from sandbox.local.process import Place, Process
from sandbox.local.sandbox import LocalSandbox
from sandbox.local.workspace import Workspaces, pack, run, unpack
from sandbox.protocol import NetworkPolicy, Promises, SandboxRef, SandboxSpec

SYSTEM_FOLDER = Path("/var/lib/skiff")
"""Where workspaces go when the server is root and its data folder is closed to others, as /root is."""


HELLO_SECONDS = 20.0
"""For the runner's first word: 0.1 s when quiet, seconds with many starting at once on few cores."""

NetServe = Callable[[NetworkPolicy], Serve]


class LocalBackend:
    """See `sandbox.protocol.SandboxBackend`.

    data_dir   the server's; workspaces are in `sandboxes/` below it, or in SYSTEM_FOLDER
    uid        who sandboxes are on the host when the server is root
    cgroups    False: never use them, even where they could be
    net_serve  given a policy, what serves one network stream of such a sandbox (an egress proxy's `serve`);
               None = policies that open hosts are refused
    """

    name = "local"

    def __init__(
        self, data_dir: Path, *, uid: int = SANDBOX_UID, cgroups: bool = True, net_serve: NetServe | None = None
    ) -> None:
        self._net_serve = net_serve
        self._uid = uid
        self._cgroups = limits.find_cgroups() if cgroups else None
        self._data_dir = data_dir.absolute()
        self._key = hashlib.sha256(str(self._data_dir).encode()).hexdigest()[:12]
        self._found: tuple[Host, Workspaces] | None = None
        self._live: dict[str, LocalSandbox] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.promises = _promises(self._cgroups is not None)

    async def __aenter__(self) -> LocalBackend:
        if self._cgroups is not None:
            self._cgroups.sweep(self._key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(sandbox.stop() for sandbox in self._live.values()))
        self._live.clear()

    async def check(self) -> None:
        """One sandbox is made with everything but a runner, on an empty folder of its own, and ended (20 ms)."""
        host, workspaces = self._ready()
        said = await run(workspaces.trial, [str(host.python), "-I", "-S", "-c", "print('ready')"])
        if said.strip() != b"ready":
            raise SandboxUnavailable(f"{host.python} does not start in a sandbox: {said[-200:]!r}")

    async def create(self, spec: SandboxSpec, slot: str) -> LocalSandbox:
        _refuse(spec, self._net_serve is not None)
        async with self._lock(slot):
            workspaces = self._ready()[1]
            place = await asyncio.to_thread(workspaces.make, slot)
            try:
                return await self._start(spec, slot, place)
            except BaseException:
                await asyncio.shield(workspaces.remove(slot))
                raise

    async def attach(self, ref: SandboxRef, spec: SandboxSpec) -> LocalSandbox:
        _refuse(spec, self._net_serve is not None)
        async with self._lock(ref.slot):
            live = self._live.get(ref.slot)
            if live is not None and live.alive and live.spec == spec:
                return live
            await self._end(ref.slot)
            place = self._ready()[1].find(ref.slot)
            return await self._start(spec, ref.slot, place)

    async def stop(self, ref: SandboxRef) -> None:
        async with self._lock(ref.slot):
            await self._end(ref.slot)

    async def pack(self, ref: SandboxRef, spec: SandboxSpec) -> AsyncGenerator[bytes]:
        _refuse(spec, self._net_serve is not None)
        async with self._lock(ref.slot):
            await self._end(ref.slot)
            place = self._ready()[1].find(ref.slot)
            async with contextlib.aclosing(pack(place, spec)) as portions:
                async for portion in portions:
                    yield portion

    async def unpack(self, ref: SandboxRef, spec: SandboxSpec, portions: AsyncIterator[bytes]) -> None:
        _refuse(spec, self._net_serve is not None)
        async with self._lock(ref.slot):
            await self._end(ref.slot)
            workspaces = self._ready()[1]
            await workspaces.remove(ref.slot)
            place = await asyncio.to_thread(workspaces.make, ref.slot)
            try:
                await unpack(place, spec, portions)
            except BaseException:
                await asyncio.shield(workspaces.remove(ref.slot))
                raise

    async def list(self) -> list[SandboxRef]:
        slots = await asyncio.to_thread(self._ready()[1].slots)
        return [SandboxRef(self.name, slot) for slot in slots]

    async def destroy(self, ref: SandboxRef) -> None:
        async with self._lock(ref.slot):
            await self._end(ref.slot)
            await self._ready()[1].remove(ref.slot)
        self._locks.pop(ref.slot, None)

    async def reap(self, known_slots: Collection[str]) -> Sequence[str]:
        slots = [ref.slot for ref in await self.list() if ref.slot not in known_slots and ref.slot not in self._locks]
        for slot in slots:
            await self.destroy(SandboxRef(self.name, slot))
        return slots

    async def _start(self, spec: SandboxSpec, slot: str, place: Place) -> LocalSandbox:
        """A new runner on the workspace. Raises SandboxUnavailable; nothing of it is left running then."""
        argv = runner_argv(place.host.python, spec.network.mode != "none")
        process_ = await process.start(place, argv, spec, self._group(slot, spec))
        try:
            channel, mux = await self._attach(process_, spec)
        except BaseException as error:
            await process_.end()
            if isinstance(error, SandboxError):
                raise SandboxUnavailable(f"the runner did not start: {process_.last_words or error}") from error
            raise
        ref = SandboxRef(self.name, slot)
        sandbox = self._live[slot] = LocalSandbox(ref, spec, place, process_, channel, mux)
        return sandbox

    async def _attach(self, process_: Process, spec: SandboxSpec) -> tuple[RunnerChannel, NetMux | None]:
        """The open channel to a runner and, where its policy opens hosts, what carries its connections."""
        if self._net_serve is None or spec.network.mode == "none":
            channel = RunnerChannel(process_)
            await channel.open(HELLO_SECONDS)
            return channel, None
        frames: list[NetMux] = []
        channel = RunnerChannel(process_, lambda frame: frames[0].handle(frame))
        mux = NetMux(channel.send, self._net_serve(spec.network))
        frames.append(mux)
        await channel.open(HELLO_SECONDS)
        return channel, mux

    def _group(self, slot: str, spec: SandboxSpec) -> limits.Group | None:
        if self._cgroups is None:
            return None
        try:
            return self._cgroups.make(f"{self._key}-{slot}", spec)
        except OSError as error:
            raise SandboxUnavailable(f"no cgroup could be made for {slot}: {error.strerror}") from error

    async def _end(self, slot: str) -> None:
        live = self._live.pop(slot, None)
        if live is not None:
            await live.stop()

    def _lock(self, slot: str) -> asyncio.Lock:
        return self._locks.setdefault(slot, asyncio.Lock())

    def _ready(self) -> tuple[Host, Workspaces]:
        """Look at the host once; until it has what is needed, look again at every call."""
        if self._found is None:
            host = find_host(self._uid)
            below = self._data_dir / "sandboxes"
            root = below
            if host.uid is not None and not enterable(below, host.uid):
                root = SYSTEM_FOLDER / self._key
                SYSTEM_FOLDER.mkdir(parents=True, exist_ok=True)
                SYSTEM_FOLDER.chmod(0o711)
            workspaces = Workspaces(root, host)
            workspaces.prepare()
            self._found = host, workspaces
        return self._found


def _refuse(spec: SandboxSpec, serves_network: bool) -> None:
    if spec.network.mode != "none" and not serves_network:
        raise SpecRefused(f"network mode {spec.network.mode!r}: this server runs without an egress proxy")
    if spec.image:
        raise SpecRefused(
            f"the local backend has no images, it shows this machine's own /usr: image {spec.image!r} needs a "
            "container engine (sandbox=docker)"
        )
    if spec.packages:
        managers = ", ".join(manager for manager, _ in spec.packages)
        raise SpecRefused(
            f"the local backend installs no packages, it shows this machine's own /usr: packages of {managers} need a "
            "container engine (sandbox=docker)"
        )


def _promises(in_cgroups: bool) -> Promises:
    notes = [
        "programs are this machine's own /usr, read-only",
        "the sandbox ends with the server; its files stay",
        "the disk bound is soft: measured every few seconds while something runs",
        "all sandboxes are one user on the host: a hole in the kernel's namespaces would show them to each other",
    ]
    counted = in_cgroups or limits.counts_processes_by_namespace()
    if not in_cgroups:
        notes.append("no writable cgroup: memory is bounded for each process alone, processors are not bounded")
    if not counted:
        notes.append("no writable cgroup and Linux before 5.14: the number of processes is not bounded")
    return Promises(
        survives_server_restart=False,
        memory_limit=in_cgroups,
        pids_limit=counted,
        own_image=False,
        pause=in_cgroups,
        notes=tuple(notes),
    )
