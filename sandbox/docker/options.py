"""What the engine is asked for when a sandbox's container is made: every hardening in one pure function.

Above: `backend`, which sends it. Below: `SandboxSpec`, the seccomp profile. It is the engine's own JSON, so that
what is tested (`tests/sandbox/test_docker_options.py`) is what is sent.

Asked for and why
    NetworkMode none      the only mode in which nothing of the host answers; even the engine's "internal" networks
                          leave every service of the host in reach. Opened hosts go through the attach stream
    no --init             the runner is PID 1: nothing inside can signal it, and it reaps what the shells leave
    StdinOnce false       or the first disconnect of the server would close PID 1's stdin and end the sandbox
    LogConfig none        or the engine would write every frame into a file without bound
    Healthcheck none      an image's own health check would run as a second, unmetered process
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.docker.labels import labels, object_name, session_volume, spec_hash
from sandbox.errors import SpecRefused
from sandbox.packages import check as check_packages
from sandbox.protocol import SandboxSpec
from sandbox.runner.net import PROXY_ENV
from sandbox.seccomp import docker_profile
from sandbox.wire import SESSION

RUNNER = ("python3", "-I", "-S", "/opt/skiff/sandbox/runner")
"""Isolated and without `site`: 24 ms sooner, and no file of the image's Python can change what the runner does."""
AGENT = "1000:1000"
WORKSPACE = "/workspace"

MIN_MEMORY_MB = 64
"""The runner and a shell need 20; under 64 a first `git status` is killed."""
OPEN_FILES = (1024, 4096)
"""Soft and hard. 1024 is what programs expect; a higher hard limit than the engine's own would be refused."""
SHM_BYTES = 64 << 20
"""/dev/shm: the engine's default, said aloud because it counts towards the memory limit."""


@dataclass(frozen=True)
class Placement:
    """Whose container this is, and from which image: what an installation decides, not the specification."""

    installation: str
    slot: str
    image: str
    runner: str
    """The runner's version, for the labels."""


def check(spec: SandboxSpec) -> None:
    """Raises SpecRefused, by name, for a number that no engine can keep or a package that is not just a name."""
    for name, value, least in (
        ("memory_mb", spec.memory_mb, MIN_MEMORY_MB),
        ("pids", spec.pids, 16),
        ("disk_mb", spec.disk_mb, 16),
        ("cpus", spec.cpus, 0.01),
    ):
        if value < least:
            raise SpecRefused(f"{name} is {value}; a sandbox needs at least {least}")
    check_packages(spec.packages)


def create_options(spec: SandboxSpec, place: Placement) -> dict[str, Any]:
    """The body of the engine's `POST /containers/create`. Raises SpecRefused."""
    check(spec)
    opened = spec.network.mode != "none"
    return {
        "Image": place.image,
        "Entrypoint": list(RUNNER),
        "Cmd": ["--net"] if opened else [],
        "User": AGENT,
        "WorkingDir": WORKSPACE,
        "Hostname": "skiff",
        "Env": [f"{name}={value}" for name, value in PROXY_ENV.items()] if opened else [],
        "Labels": labels(place.installation, place.slot, spec_hash(spec), place.runner),
        "OpenStdin": True,
        "StdinOnce": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "StopSignal": "SIGKILL",
        "StopTimeout": 0,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, _volumes(place)),
    }


def packing_options(spec: SandboxSpec, place: Placement, slot: str, verb: Literal["pack", "unpack"]) -> dict[str, Any]:
    """The same for the container that packs the files of `place`, or unpacks them; `slot` is its own.

    It runs alone, with all bounds of a sandbox. Packing reads as root, for an agent can make files that it cannot read
    itself, and can write nowhere; unpacking runs as the agent, so that an archive can do no more than the agent could.
    """
    options = create_options(spec, place)
    host = {**options["HostConfig"], "Tmpfs": {}}
    if verb == "pack":
        host["CapAdd"] = ["DAC_OVERRIDE"]
        host["Mounts"] = [{**mount, "ReadOnly": True} for mount in host["Mounts"]]
    return {
        **options,
        "Cmd": [f"--{verb}"],
        "User": "0:0" if verb == "pack" else AGENT,
        "Env": [],
        "Labels": labels(place.installation, slot, spec_hash(spec), place.runner),
        "StdinOnce": True,  # a server that dies ends it
        "HostConfig": host,
    }


def _volumes(place: Placement) -> list[dict[str, Any]]:
    """The workspace, and what the session is given and hands out: made by the engine with the container where they are
    missing (one request less each), kept when it goes.

    Two, because the agent owns the top of its workspace: whatever lies in there it could rename.
    """
    owned = {"Labels": labels(place.installation, place.slot)}
    return [
        {"Type": "volume", "Source": source, "Target": target, "VolumeOptions": owned}
        for source, target in (
            (object_name(place.installation, place.slot), WORKSPACE),
            (session_volume(place.installation, place.slot), SESSION),
        )
    ]


def _host_config(spec: SandboxSpec, volumes: list[dict[str, Any]]) -> dict[str, Any]:
    memory = spec.memory_mb << 20
    soft, hard = OPEN_FILES
    return {
        "NetworkMode": "none",
        "IpcMode": "private",
        "Privileged": False,
        "Init": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={json.dumps(docker_profile(), separators=(',', ':'))}"],
        "ReadonlyRootfs": True,
        # exec, because builds and package managers run what they unpack there; half the memory, which it counts to
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,exec,size={memory // 2},mode=1777"},
        "Mounts": volumes,
        "Memory": memory,
        "MemorySwap": memory,  # the sum of both: no swap, or one sandbox slows the whole machine
        "NanoCpus": round(spec.cpus * 1e9),
        "PidsLimit": spec.pids,
        "ShmSize": min(SHM_BYTES, memory // 2),
        "Ulimits": [
            {"Name": "nofile", "Soft": soft, "Hard": hard},
            {"Name": "core", "Soft": 0, "Hard": 0},
            # one file can never be larger than the whole disk bound: the hard part of a bound that is else soft
            {"Name": "fsize", "Soft": spec.disk_mb << 20, "Hard": spec.disk_mb << 20},
        ],
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
    }
