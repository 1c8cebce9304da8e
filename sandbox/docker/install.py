"""Installing packages into an image: a container runs the package managers, and what it leaves becomes the image.

Above: `images`. Below: `engine`, `packages` (what to run), `indexes` (where to fetch from). It knows no tags but the
one that it is told.

A container and not the engine's build: a build cannot be bounded in memory, processes, disk or time, and whatever
configuration it is given stays in a layer. What install scripts do is strangers' code, run as root of a container.

    it may reach     the network of the engine's default bridge, so whatever a container there reaches; the indexes'
                     configuration of this machine, credentials included (use ones that can only read)
    it cannot reach  the host's files, its engine, other sandboxes and workspaces, the server's keys and variables
    it is bounded    by the constants below, a reduced set of capabilities and the seconds it is given
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import secrets
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from sandbox.docker import indexes
from sandbox.docker.engine import Engine
from sandbox.errors import SandboxGone, SandboxUnavailable

Progress = Callable[[str], None]

PREFIX = "skiff-build-"
"""Of the containers' names; then the time after which nobody waits for it any more, in seconds since 1970."""
MEMORY = 3 << 30
"""Unpacking large wheels takes a few hundred MiB; compiling one of the smaller ones 1 to 2 GiB."""
PIDS = 1024
DISK = 8 << 30
"""What may be written: twice the largest images of scientific packages. Looked at every DISK_SECONDS."""
DISK_SECONDS = 10.0
POLL_SECONDS = 0.25
LAST_LINES = 12
LONGEST_LINE = 300
CLEANUP_SECONDS = 30.0
"""For removing the container, shielded; with thousands of files in it that takes seconds on a slow disk."""

_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")
"""What package managers need to unpack and to become their own users; no raw sockets, devices or other roots."""
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")


async def install(
    engine: Engine,
    base: str,
    script: str,
    tag: str,
    labels: Mapping[str, str],
    seconds: float,
    progress: Progress,
) -> None:
    """Run `script` on the image `base` and keep the result as `tag`, with these labels and the seconds it took.

    progress gets the newest line now and then. Raises SandboxUnavailable with the last lines when the script fails, or
    when `seconds` are over. Whatever happens, the container is gone in the end.
    """
    name = f"{PREFIX}{int(time.time() + seconds + CLEANUP_SECONDS)}-{secrets.token_hex(4)}"
    started = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            container = await _start(engine, base, script, name)
            await _finish(engine, container, progress)
            took = {"dev.skiff.seconds": f"{time.monotonic() - started:.0f}"}
            await _commit(engine, container, tag, {**labels, **took})
    except TimeoutError:
        raise SandboxUnavailable(
            f"the packages could not be installed within {seconds:.0f} s (setting package_build_seconds)"
        ) from None
    finally:
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            await remove(engine, name)


async def collect(engine: Engine) -> list[str]:
    """Remove the containers of installations that nobody waits for any more, a killed server's; returns their names."""
    found = await engine.call(
        "list containers", lambda client: client.containers(all=True, filters={"name": f"^/{PREFIX}"})
    )
    names = [name.lstrip("/") for container in found for name in container["Names"]]
    forgotten = [name for name in names if overdue(name, time.time())]
    for name in forgotten:
        await remove(engine, name)
    return forgotten


def overdue(name: str, now: float) -> bool:
    """Whether the container of this name is one of an installation whose time is over."""
    deadline = name.removeprefix(PREFIX).partition("-")[0]
    return name.startswith(PREFIX) and deadline.isdigit() and int(deadline) < now


async def remove(engine: Engine, name: str) -> None:
    """Remove a container with its volume, where it is still there."""
    try:
        await engine.call("remove the installation", lambda client: client.remove_container(name, v=True, force=True))
    except SandboxGone:
        return


async def _start(engine: Engine, base: str, script: str, name: str) -> str:
    files = await asyncio.to_thread(indexes.gather, os.environ, Path.home())
    archive = _tar({**files, "install.sh": script.encode()})
    made = await engine.finish(
        "make the installation", lambda client: client.create_container_from_config(options(base), name)
    )
    container = str(made["Id"])
    await engine.call("hand it its files", lambda client: client.put_archive(container, indexes.FOLDER, archive))
    await engine.finish("start the installation", lambda client: client.start(container))
    return container


def options(base: str) -> dict[str, Any]:
    """The body of the engine's request for the container. No labels: an image of it would hand them on."""
    return {
        "Image": base,
        "Entrypoint": ["/bin/sh", f"{indexes.FOLDER}/install.sh"],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "CapDrop": ["ALL"],
            "CapAdd": list(_CAPABILITIES),
            "SecurityOpt": ["no-new-privileges"],
            "Memory": MEMORY,
            "MemorySwap": MEMORY,
            "PidsLimit": PIDS,
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}, {"Name": "fsize", "Soft": DISK, "Hard": DISK}],
            # a volume without a name: removed with the container, and never part of an image made of it
            "Mounts": [{"Type": "volume", "Target": indexes.FOLDER}],
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
            "RestartPolicy": {"Name": "no"},
        },
    }


async def _finish(engine: Engine, container: str, progress: Progress) -> None:
    """Wait for the end, telling the newest line once it is another. Raises SandboxUnavailable unless all went well."""
    told, measured = "", time.monotonic()
    while True:
        state = (await engine.call("look", lambda client: client.inspect_container(container)))["State"]
        if not state["Running"]:
            break
        if time.monotonic() - measured > DISK_SECONDS:
            await _check_disk(engine, container)
            measured = time.monotonic()
        newest = "".join(await _log(engine, container, 1))
        if newest != told:
            told = newest
            progress(newest)
        await asyncio.sleep(POLL_SECONDS)
    if state["ExitCode"]:
        why = f"more than {MEMORY >> 30} GiB of memory" if state.get("OOMKilled") else f"exit {state['ExitCode']}"
        lines = "\n".join(await _log(engine, container, LAST_LINES))
        raise SandboxUnavailable(f"the packages could not be installed ({why}):\n{lines}")
    await _check_disk(engine, container)


async def _check_disk(engine: Engine, container: str) -> None:
    found = await engine.call(
        "measure", lambda client: client.containers(all=True, size=True, filters={"id": container})
    )
    if found and int(found[0].get("SizeRw") or 0) > DISK:
        raise SandboxUnavailable(f"the packages could not be installed: they fill more than {DISK >> 30} GiB")


async def _log(engine: Engine, container: str, lines: int) -> list[str]:
    """The last lines, without credentials that a package manager may have put into an address."""
    raw: bytes = await engine.call("read its words", lambda client: client.logs(container, tail=lines))
    text = _CREDENTIALS.sub("", raw.decode("utf-8", "replace"))
    return [line[:LONGEST_LINE].rstrip() for line in text.splitlines()[-lines:]]


async def _commit(engine: Engine, container: str, tag: str, labels: Mapping[str, str]) -> None:
    repository, _, version = tag.partition(":")
    changes = ['ENTRYPOINT ["/bin/sh"]']  # for people; the runner's layer takes it away again
    await engine.finish(
        "keep the image",
        lambda client: client.commit(container, repository, version, changes=changes, conf={"Labels": dict(labels)}),
    )


def _tar(files: Mapping[str, bytes]) -> bytes:
    """The bundle of authorities is for every user, as apt fetches as one of its own; the rest is root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644 if name == "ca.crt" else 0o600
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
