"""From a specification to a container whose runner has said hello.

Above: `backend`. Below: `options` (what to ask for), `images`, `attach`, `sandbox.channel`. It decides nothing about
ownership: it is told a slot, and leaves nothing of that slot's container behind when it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from sandbox.channel import RunnerChannel
from sandbox.docker import reaper
from sandbox.docker.attach import AttachStream, attach
from sandbox.docker.container import Container
from sandbox.docker.engine import Engine
from sandbox.docker.images import Images
from sandbox.docker.labels import object_name
from sandbox.docker.options import Placement, create_options
from sandbox.egress.mux import NetMux, Serve
from sandbox.errors import ImageMissing, SandboxError, SandboxGone, SandboxUnavailable
from sandbox.protocol import NetworkPolicy, SandboxRef, SandboxSpec

ATTACH_SECONDS = 3.0
"""For a running container to answer: 2 to 13 ms were seen. A runner that is blocked by an earlier client never will."""
START_SECONDS = 30.0
"""For a fresh container to say hello: 0.4 s when quiet, 4.6 s with a hundred at once on two cores."""
CLEANUP_SECONDS = 15.0
"""For removing what a failed start left, shielded from the cancellation that may have caused the failure."""

log = logging.getLogger("skiff.sandbox.docker")

NetServe = Callable[[NetworkPolicy], Serve]
"""Given a sandbox's policy: what serves one of its network streams, usually an egress proxy's `serve`."""
Body = dict[str, Any]


@dataclass(frozen=True)
class Launcher:
    """Makes and takes over containers of one installation."""

    engine: Engine
    images: Images
    installation: str
    net_serve: NetServe | None
    on_close: Callable[[Container], None]

    async def make(self, spec: SandboxSpec, slot: str) -> Container:
        """A new container for the slot; its volume is made with it where it is missing.

        Raises SpecRefused, ImageMissing, SandboxUnavailable. On failure, or when cancelled, the container is gone
        again; the volume is the caller's to remove.
        """
        name = object_name(self.installation, slot)
        try:
            container = await self._create(spec, slot, name)
            return await self._start(spec, slot, container)
        except BaseException:
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True), contextlib.suppress(SandboxError):
                await reaper.remove_container(self.engine, name)
            raise

    async def find(self, slot: str) -> Body | None:
        """What the engine knows of the slot's container, or None."""
        name = object_name(self.installation, slot)
        try:
            found: Body = await self.engine.call("look for the sandbox", lambda client: client.inspect_container(name))
        except SandboxGone:
            return None
        return found

    async def take_over(self, spec: SandboxSpec, slot: str, found: Body) -> Container:
        """The slot's existing container, attached to: as it runs, or started (again).

        A runner that does not answer within ATTACH_SECONDS is killed with everything it runs: its operations are then
        unknowable, which the new incarnation shows.
        """
        container, state = str(found["Id"]), found["State"]
        if state["Running"]:
            try:
                async with asyncio.timeout(ATTACH_SECONDS):
                    if state["Paused"]:
                        await self.engine.call("resume the sandbox", lambda client: client.unpause(container))
                    stream = await self._stream(container)
                    return await self._hello(spec, slot, container, stream)
            except (SandboxError, TimeoutError) as error:
                log.warning("the runner in %s does not answer (%r); killed, to be started anew", slot, error)
                await self.engine.call("kill the sandbox", lambda client: client.stop(container, timeout=0))
        return await self._start(spec, slot, container)

    async def _create(self, spec: SandboxSpec, slot: str, name: str) -> str:
        try:
            return await self._create_once(spec, slot, name)
        except ImageMissing:
            self.images.forget(spec.image, spec.packages)  # pruned since we looked: derive it again, once
            return await self._create_once(spec, slot, name)

    async def _create_once(self, spec: SandboxSpec, slot: str, name: str) -> str:
        image = await self.images.ensure(spec.image, spec.packages)
        options = create_options(spec, Placement(self.installation, slot, image, self.images.version))
        made: Body = await self.engine.finish(
            "create the sandbox", lambda client: client.create_container_from_config(options, name)
        )
        return str(made["Id"])

    async def _start(self, spec: SandboxSpec, slot: str, container: str) -> Container:
        """Attach first, then start: nothing that the runner says can be missed."""
        try:
            async with asyncio.timeout(START_SECONDS):
                stream = await self._stream(container)
                try:
                    await self.engine.finish("start the sandbox", lambda client: client.start(container))
                except BaseException:
                    await stream.close()
                    raise
                return await self._hello(spec, slot, container, stream)
        except TimeoutError:
            raise SandboxUnavailable(
                f"the sandbox did not start within {START_SECONDS:.0f} s; the engine's machine is overloaded, or the "
                "image's Python is broken"
            ) from None

    async def _stream(self, container: str) -> AttachStream:
        await self.engine.connected()
        return await attach(self.engine.endpoint, container, self.engine.api)

    async def _hello(self, spec: SandboxSpec, slot: str, container: str, stream: AttachStream) -> Container:
        """Open a channel on the stream; the caller bounds the wait."""
        net: NetMux | None = None
        if spec.network.mode != "none" and self.net_serve is not None:
            channel = RunnerChannel(stream, on_net=lambda frame: net.handle(frame) if net else None)
            net = NetMux(channel.send, self.net_serve(spec.network))
        else:
            channel = RunnerChannel(stream)
        try:
            await channel.open(START_SECONDS)
        except BaseException:
            await stream.close()  # whatever broke the opening off: the connection must not outlive it
            raise
        ref = SandboxRef("docker", slot, container)
        return Container(self.engine, ref, channel, net, spec.disk_mb << 20, self.on_close)
