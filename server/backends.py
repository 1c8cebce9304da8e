"""Which sandbox backend this server has: the operator's choice, or the container engine if one answers.

Above: `app`. Below: the concrete backends, imported here and only when they are chosen. A server without any sandbox
starts all the same: what needs none works, and what needs one says what to do.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import ImageMissing, SandboxError, SandboxUnavailable
from sandbox.protocol import NetworkPolicy, Promises, Sandbox, SandboxBackend, SandboxRef, SandboxSpec
from server.settings import Settings

if TYPE_CHECKING:
    from sandbox.egress.mux import Serve

logger = logging.getLogger(__name__)


async def choose(settings: Settings, installation: str) -> SandboxBackend:
    """The backend to use, not yet entered. Never raises: where there is none, one that refuses and says why."""
    if settings.sandbox == "docker":
        return docker_backend(settings, installation)
    if settings.sandbox == "local":
        return local_backend(settings)
    reasons = []
    for candidate in (docker_backend(settings, installation, pool=0), local_backend(settings)):
        try:
            async with candidate:
                await candidate.check()
        except ImageMissing:
            return docker_backend(
                settings, installation
            )  # the engine is there; the first need says how to build the image
        except SandboxError as error:
            reasons.append(f"{candidate.name}: {error}")
        else:
            return docker_backend(settings, installation) if candidate.name == "docker" else local_backend(settings)
    return NoBackend("No sandbox can be had here. " + " ".join(reasons) + " `skiff doctor` says more.")


def default_spec(settings: Settings) -> SandboxSpec:
    """The specification of a sandbox that asks for nothing in particular."""
    return SandboxSpec(
        cpus=settings.sandbox_cpus,
        memory_mb=settings.sandbox_memory_mb,
        disk_mb=settings.sandbox_disk_mb,
        pids=settings.sandbox_pids,
    )


def docker_backend(settings: Settings, installation: str, pool: int | None = None) -> SandboxBackend:
    from sandbox.docker.backend import DockerBackend
    from sandbox.docker.idle import IdleSettings

    return DockerBackend(
        installation,
        default=default_spec(settings),
        pool_size=settings.pool if pool is None else pool,
        idle=IdleSettings(settings.pause_after, settings.background_grace),
        net_serve=_serve,
        package_seconds=settings.package_build_seconds,
    )


def local_backend(settings: Settings) -> SandboxBackend:
    from sandbox.local.backend import LocalBackend

    return LocalBackend(Path(settings.data_dir), net_serve=_serve)


def _serve(policy: NetworkPolicy) -> Serve:
    """The egress proxy of one sandbox."""
    from sandbox.egress.policy import parse_policy
    from sandbox.egress.proxy import Proxy

    return Proxy(parse_policy(policy), _log_decision).serve


def _log_decision(host: str, port: int, allowed: bool, reason: str) -> None:
    logger.log(logging.INFO if allowed else logging.WARNING, "egress %s:%s %s %s", host, port, allowed, reason)


class NoBackend:
    """Stands where there is no backend: everything is refused, with the reason."""

    name = "none"
    promises = Promises(False, False, False, False, False)

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def __aenter__(self) -> NoBackend:
        return self

    async def __aexit__(self, *_: object) -> bool | None:
        return None

    async def check(self) -> None:
        raise SandboxUnavailable(self._reason)

    async def create(self, spec: SandboxSpec, slot: str) -> Sandbox:
        raise SandboxUnavailable(self._reason)

    async def attach(self, ref: SandboxRef, spec: SandboxSpec) -> Sandbox:
        raise SandboxUnavailable(self._reason)

    async def stop(self, ref: SandboxRef) -> None:
        raise SandboxUnavailable(self._reason)

    async def pack(self, ref: SandboxRef, spec: SandboxSpec) -> AsyncGenerator[bytes]:
        raise SandboxUnavailable(self._reason)
        yield b""  # so that it is a generator

    async def unpack(self, ref: SandboxRef, spec: SandboxSpec, portions: AsyncIterator[bytes]) -> None:
        raise SandboxUnavailable(self._reason)

    async def list(self) -> list[SandboxRef]:
        return []

    async def destroy(self, ref: SandboxRef) -> None:
        raise SandboxUnavailable(self._reason)

    async def reap(self, known_slots: Collection[str]) -> Sequence[str]:
        return []
