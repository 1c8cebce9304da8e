"""Finding what an installation left on an engine: its containers and volumes, by label, and what of it is nobody's.

Above: `backend`. Below: `engine`. Objects of another installation, or without our labels, are never even listed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sandbox.docker.engine import Engine
from sandbox.docker.labels import object_name, owned_filter, session_volume, slot_of
from sandbox.errors import SandboxGone


@dataclass(frozen=True)
class Found:
    """What exists of one slot. container is an id, "" where only the volume is left."""

    slot: str
    container: str = ""
    volume: str = ""


def merge(containers: Iterable[dict[str, Any]], volumes: Iterable[dict[str, Any]]) -> list[Found]:
    """Containers and volumes as the engine lists them -> one entry a slot, sorted by slot."""
    ids = {slot_of(found.get("Labels")): str(found["Id"]) for found in containers}
    names = {slot_of(found.get("Labels")): str(found["Name"]) for found in volumes}
    return [Found(slot, ids.get(slot, ""), names.get(slot, "")) for slot in sorted({*ids, *names} - {""})]


def nobodys(found: Iterable[Found], known: Collection[str]) -> list[Found]:
    """Those whose slot nobody knows."""
    return [one for one in found if one.slot not in known]


async def survey(engine: Engine, installation: str) -> list[Found]:
    """Everything of this installation on the engine, running or not."""
    filters = owned_filter(installation)
    containers = await engine.call("list containers", lambda client: client.containers(all=True, filters=filters))
    volumes = await engine.call("list volumes", lambda client: client.volumes(filters=filters))
    return merge(containers, volumes["Volumes"] or [])


async def remove(engine: Engine, installation: str, slot: str) -> None:
    """Remove a slot's container and its volumes. Idempotent; the workspace last, so that a broken off removal is found
    again by what is left."""
    name = object_name(installation, slot)
    await remove_container(engine, name)
    await _remove_volume(engine, session_volume(installation, slot))
    await _remove_volume(engine, name)


async def _remove_volume(engine: Engine, name: str) -> None:
    try:
        await engine.call("remove the workspace", lambda client: client.remove_volume(name))
    except SandboxGone:
        return


async def remove_container(engine: Engine, container: str) -> None:
    """Kill and remove a container by id or name, its anonymous volumes too, never its workspace. Idempotent."""
    try:
        await engine.call("remove the sandbox", lambda client: client.remove_container(container, v=True, force=True))
    except SandboxGone:
        return
