"""Packs a slot's files and unpacks them again, in a container that lives only for that.

Above: `backend`. Below: `options` (what such a container may do), `attach`, the runner's own `packing`. It is told that
nobody else works on the files, and who removes what an unpacking that failed has left.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from sandbox.docker import reaper
from sandbox.docker.attach import AttachStream, attach
from sandbox.docker.engine import Engine
from sandbox.docker.images import Images
from sandbox.docker.labels import object_name
from sandbox.docker.launch import ATTACH_SECONDS, CLEANUP_SECONDS, START_SECONDS
from sandbox.docker.options import Placement, packing_options
from sandbox.errors import SandboxError
from sandbox.packing import SILENCE_SECONDS, failed, feed, within
from sandbox.protocol import SandboxSpec

END_SECONDS = 600.0
"""From the last portion to the end: a million folders get their modes then."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Packer:
    """Packs and unpacks for one installation."""

    engine: Engine
    images: Images
    installation: str

    async def pack(self, spec: SandboxSpec, slot: str, own: str) -> AsyncGenerator[bytes]:
        """The archive, in portions; `own` is the container's slot. Raises SandboxUnavailable."""
        async with self._container(spec, slot, own, "pack") as (container, stream):
            while portion := await within(SILENCE_SECONDS, stream.read()):
                yield portion
            await self._ended(container, stream)

    async def unpack(self, spec: SandboxSpec, slot: str, own: str, portions: AsyncIterator[bytes]) -> None:
        """Make the slot's volumes and fill them. Raises SandboxUnavailable; a part of it may be there then."""
        async with self._container(spec, slot, own, "unpack") as (container, stream):
            await feed(stream, portions)
            while await within(END_SECONDS, stream.read()):
                pass
            await self._ended(container, stream)

    @asynccontextmanager
    async def _container(
        self, spec: SandboxSpec, slot: str, own: str, verb: Literal["pack", "unpack"]
    ) -> AsyncIterator[tuple[str, AttachStream]]:
        image = await self.images.ensure(spec.image, spec.packages)
        place = Placement(self.installation, slot, image, self.images.version)
        name, options = object_name(self.installation, own), packing_options(spec, place, own, verb)
        try:
            made: Body = await self.engine.finish(
                f"{verb} the workspace", lambda client: client.create_container_from_config(options, name)
            )
            container = str(made["Id"])
            stream = await within(ATTACH_SECONDS, attach(self.engine.endpoint, container, self.engine.api))
            try:
                start = self.engine.finish(f"{verb} the workspace", lambda client: client.start(container))
                await within(START_SECONDS, start)
                yield container, stream
            finally:
                await stream.close()
        finally:
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True), contextlib.suppress(SandboxError):
                await reaper.remove_container(self.engine, name)

    async def _ended(self, container: str, stream: AttachStream) -> None:
        """Its stream is over: return when it has ended well."""
        found: Body = await self.engine.call("wait for the workspace", lambda client: client.wait(container))
        if found["StatusCode"]:
            words = stream.complaints.decode("utf-8", "replace").strip()[-400:]
            raise failed(words or str(found["StatusCode"]))
