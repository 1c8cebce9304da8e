"""The Docker backend: makes, finds, re-attaches and removes sandboxes on one container engine.

Above: `server.app`, through `sandbox.protocol`. Below: `launch` (a container and its channel), `images`, `pool`,
`reaper`. What belongs to whom is the caller's: it knows slots, and which of them are still somebody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from sandbox.docker import install, reaper
from sandbox.docker.container import Container
from sandbox.docker.engine import Engine
from sandbox.docker.idle import IdleSettings
from sandbox.docker.images import PACKAGE_SECONDS, Images, Progress
from sandbox.docker.labels import PACKING_PREFIX, POOL_PREFIX, RUNNER, SPEC, object_name, session_volume, spec_hash
from sandbox.docker.launch import Body, Launcher, NetServe
from sandbox.docker.options import check
from sandbox.docker.packing import Packer
from sandbox.docker.pool import Pool
from sandbox.docker.shelf import Built
from sandbox.errors import SandboxError, SandboxGone, SpecRefused, WorkspaceGone
from sandbox.protocol import Promises, SandboxRef, SandboxSpec

CLOSE_SECONDS = 15.0
"""For leaving: attachments close in milliseconds, a pooled container goes in 0.1 s, on a busy engine in one."""

Slots = list[str]
Shelf = list[Built]
"""For annotations below the method that is named `list` too."""

log = logging.getLogger("skiff.sandbox.docker")


class DockerBackend:
    """See `sandbox.protocol.SandboxBackend`.

    installation   whose sandboxes these are; objects of others on the same engine are never touched
    default        the specification that the warm pool is kept for
    pool_size      sandboxes kept ready; 0 = none, each costs about 15 MB
    idle           when an unused sandbox is frozen
    net_serve      serves the network streams of sandboxes whose policy opens hosts; None = such policies are refused
    package_seconds  for installing an environment's packages, once
    engine         the engine; None = the one that the `docker` command would use
    """

    name = "docker"
    promises = Promises(
        survives_server_restart=True,
        memory_limit=True,
        pids_limit=True,
        own_image=True,
        pause=True,
        notes=(
            "the disk bound is soft: measured after operations and every few seconds; one file is bounded hard",
            "running sandboxes survive a restart of the engine only with its live-restore; workspaces always do",
        ),
    )

    def __init__(
        self,
        installation: str,
        *,
        default: SandboxSpec | None = None,
        pool_size: int = 0,
        idle: IdleSettings | None = None,
        net_serve: NetServe | None = None,
        package_seconds: float = PACKAGE_SECONDS,
        engine: Engine | None = None,
    ) -> None:
        self.installation = installation
        self._default = default or SandboxSpec()
        self._pool_size = pool_size
        self._idle = idle or IdleSettings()
        self._engine = engine or Engine()
        self._images = Images(self._engine, package_seconds)
        self._launcher = Launcher(self._engine, self._images, installation, net_serve, self._forget)
        self._packer = Packer(self._engine, self._images, installation)
        self._pool = Pool(pool_size, self._make_pooled, self._discard)
        self._live: dict[Container, anyio.CancelScope] = {}
        self._making: set[str] = set()
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        if self._pool_size:
            self._tasks.start_soon(self._pool.refill)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        try:
            if isinstance(error, asyncio.CancelledError):  # the group's own, when a task of it failed
                return await self._tasks.__aexit__(kind, error, trace)
            await self._tasks.__aexit__(None, None, None)  # the block's own error leaves as it is, in no group
            return None
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._images.close()
                await self._pool.drain()
                for container in tuple(self._live):
                    await container.close()
                await self._engine.close()

    # --- the protocol -------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Raises SandboxUnavailable or ImageMissing when no sandbox could be made now."""
        await self._engine.call("answer", lambda client: client.ping())
        await self._images.ensure(self._default.image)

    async def create(self, spec: SandboxSpec, slot: str) -> Container:
        """A fresh sandbox: a pooled one under its own slot where the specification is the default, else a new one."""
        self._refuse(spec, slot)
        if spec == self._default and (container := await self._pool.claim()):
            return self._watch(container)
        with self._being_made(slot):
            return self._watch(await self._make(spec, slot))

    async def attach(self, ref: SandboxRef, spec: SandboxSpec) -> Container:
        """Take over what is left of a sandbox; see the protocol. A container of another specification, or a stopped
        one of an older runner, is replaced around its workspace."""
        self._refuse(spec, ref.slot)
        for container in self._attached(ref.slot):
            await container.close()
        with self._being_made(ref.slot):
            found = await self._launcher.find(ref.slot)
            if found is not None and not self._fits(found, spec):
                await reaper.remove_container(self._engine, str(found["Id"]))
                found = None
            if found is not None:
                return self._watch(self._keep(await self._launcher.take_over(spec, ref.slot, found)))
            await self._require_workspace(ref.slot)
            bare = not await self._has_volume(session_volume(self.installation, ref.slot))
            container = self._keep(await self._launcher.make(spec, ref.slot))
            container.bare = bare
            return self._watch(container)

    async def stop(self, ref: SandboxRef) -> None:
        """End all processes of a sandbox that nobody is attached to; see the protocol."""
        for container in self._attached(ref.slot):
            await container.close()
        name = object_name(self.installation, ref.slot)
        with contextlib.suppress(SandboxGone):
            await self._engine.finish("stop the sandbox", lambda client: client.stop(name, timeout=0))

    async def pack(self, ref: SandboxRef, spec: SandboxSpec) -> AsyncGenerator[bytes]:
        """All that the slot's volumes hold of the agent's; see the protocol."""
        self._refuse(spec, ref.slot)
        await self.stop(ref)
        await self._require_workspace(ref.slot)
        own = PACKING_PREFIX + secrets.token_hex(8)
        with self._being_made(own):
            async with contextlib.aclosing(self._packer.pack(spec, ref.slot, own)) as portions:
                async for portion in portions:
                    yield portion

    async def unpack(self, ref: SandboxRef, spec: SandboxSpec, portions: AsyncIterator[bytes]) -> None:
        """Make the slot's volumes with what was packed; see the protocol."""
        self._refuse(spec, ref.slot)
        await self.destroy(ref)
        own = PACKING_PREFIX + secrets.token_hex(8)
        with self._being_made(own), self._being_made(ref.slot):
            async with self._nothing_left(ref.slot):
                await self._packer.unpack(spec, ref.slot, own, portions)

    async def list(self) -> list[SandboxRef]:
        """Every sandbox and workspace of this installation, those that wait in the pool too."""
        found = await reaper.survey(self._engine, self.installation)
        return [SandboxRef(self.name, one.slot, one.container) for one in found]

    async def destroy(self, ref: SandboxRef) -> None:
        """Remove the sandbox and its workspace. Idempotent."""
        for container in self._attached(ref.slot):
            await container.close()
        await reaper.remove(self._engine, self.installation, ref.slot)

    # --- beyond it ----------------------------------------------------------------------------------------------------

    async def build(self, progress: Progress, base_image: str = "", fresh: bool = False) -> str:
        """Build the sandbox image; see `Images.build`."""
        return await self._images.build(progress, base_image, fresh)

    async def build_ready(self, name: str, progress: Progress, fresh: bool = False) -> Built:
        """Build a ready-made image; see `Images.build_ready`."""
        return await self._images.build_ready(name, progress, fresh)

    async def built(self) -> Shelf:
        """The images with packages that are on the engine."""
        return await self._images.built()

    async def collect_images(self, progress: Progress) -> Slots:
        """Remove images that are out of date and unused; returns their tags."""
        return await self._images.collect(progress)

    async def pool_filled(self) -> None:
        """Wait until the warm pool is full. The caller bounds the wait."""
        await self._pool.filled()

    async def gc(self, known_slots: Collection[str]) -> Slots:
        """The slots that `reap` would remove: nobody's, neither pooled nor being made now."""
        found = await reaper.survey(self._engine, self.installation)
        known = {*known_slots, *self._pool.slots, *self._making, *(one.ref.slot for one in self._live)}
        return [one.slot for one in reaper.nobodys(found, known)]

    async def reap(self, known_slots: Collection[str]) -> Slots:
        """Remove containers and volumes of this installation whose slot is not among the caller's; returns the slots.

        Call it at start with every slot in the database, pending intents included. Another installation's are safe.
        Installations of packages that a killed server left running go too, whosever they were, once their time is over.
        """
        slots = await self.gc(known_slots)
        for slot in slots:
            await reaper.remove(self._engine, self.installation, slot)
        await install.collect(self._engine)
        return slots

    # --- inside -------------------------------------------------------------------------------------------------------

    def _attached(self, slot: str) -> tuple[Container, ...]:
        return tuple(one for one in self._live if one.ref.slot == slot)

    def _refuse(self, spec: SandboxSpec, slot: str) -> None:
        check(spec)
        object_name(self.installation, slot)
        if spec.network.mode != "none" and self._launcher.net_serve is None:
            raise SpecRefused(f"network mode {spec.network.mode!r}: this server runs without an egress proxy")

    async def _make(self, spec: SandboxSpec, slot: str) -> Container:
        async with self._nothing_left(slot):
            return self._keep(await self._launcher.make(spec, slot))

    @contextlib.asynccontextmanager
    async def _nothing_left(self, slot: str) -> AsyncIterator[None]:
        """Remove what a failure, or a cancellation, leaves of a slot that was to be made."""
        try:
            yield
        except BaseException:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True), contextlib.suppress(SandboxError):
                await reaper.remove(self._engine, self.installation, slot)
            raise

    async def _make_pooled(self) -> Container:
        slot = POOL_PREFIX + secrets.token_hex(8)
        with self._being_made(slot):
            return await self._make(self._default, slot)

    async def _discard(self, container: Container) -> None:
        try:
            await self.destroy(container.ref)
        except SandboxError as error:
            log.warning("pooled sandbox %s is left to the next collection: %s", container.ref.slot, error)

    def _fits(self, found: Body, spec: SandboxSpec) -> bool:
        labels = found["Config"]["Labels"] or {}
        current = found["State"]["Running"] or labels.get(RUNNER) == self._images.version
        return bool(labels.get(SPEC) == spec_hash(spec) and current)

    async def _require_workspace(self, slot: str) -> None:
        if not await self._has_volume(object_name(self.installation, slot)):
            raise WorkspaceGone(f"the sandbox {slot!r} and its workspace no longer exist")

    async def _has_volume(self, name: str) -> bool:
        try:
            await self._engine.call("look for the workspace", lambda client: client.inspect_volume(name))
        except SandboxGone:
            return False
        return True

    @contextlib.contextmanager
    def _being_made(self, slot: str) -> Iterator[None]:
        self._making.add(slot)
        try:
            yield
        finally:
            self._making.discard(slot)

    def _keep(self, container: Container) -> Container:
        """Remember the attachment, so that leaving closes it."""
        self._live[container] = anyio.CancelScope()
        return container

    def _watch(self, container: Container) -> Container:
        """Watch the idleness of a sandbox that has an owner, for as long as it is attached. Pooled ones stay warm."""
        assert self._tasks is not None, "the backend must be entered first"

        async def watch(scope: anyio.CancelScope) -> None:
            with scope:
                await container.watch_idle(self._idle)

        if self._idle.pause_after and container in self._live:
            self._tasks.start_soon(watch, self._live[container])
        return container

    def _forget(self, container: Container) -> None:
        scope = self._live.pop(container, None)
        if scope is not None:
            scope.cancel()
