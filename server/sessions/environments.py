"""An environment: where an agent's tools run. From what a caller asks for to the resolved configuration. Pure.

The wire's `config` (type cloud, networking, packages) and Skiff's own additions (image, cpus, memory_mb) under the key
`skiff`. Friendlier forms: `network: "none" | "limited" | "open"`, `allowed_hosts`, `network_access: bool`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.egress.policy import PolicyError, parse_hosts
from sandbox.protocol import NetworkPolicy, SandboxSpec
from server.errors import InvalidRequest, NotSupported
from server.ids import new_id, now

KNOWN = (
    "name", "type", "network", "network_access", "allowed_hosts", "image", "cpu", "memory_mb", "packages", "config",
)  # fmt: skip
LEAST_CPUS = 0.1
"""With less, the runner itself does not answer in time; container engines refuse less than a hundredth."""
LEAST_MEMORY_MB = 64
"""MiB: the runner, a shell and a small program; the same bound as the operator's setting."""
_MODES = {"none": "none", "limited": "limited", "open": "unrestricted", "unrestricted": "unrestricted"}


@dataclass(frozen=True)
class Bounds:
    """What the operator allows a caller to ask for, and what a sandbox has when nothing is asked."""

    images: tuple[str, ...]
    max_cpus: float
    max_memory_mb: int
    cpus: float
    memory_mb: int
    disk_mb: int
    pids: int


def resolve(asked: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
    """The environment as stored and read back, with a new id. Raises InvalidRequest or NotSupported."""
    for key in asked:
        if key not in KNOWN:
            raise InvalidRequest(f"environment.{key} is unknown. Known: {', '.join(KNOWN)}.")
    if asked.get("type") not in (None, "standard_sandbox", "cloud"):
        raise NotSupported(f"environment.type {asked['type']!r} is not supported; use `standard_sandbox`.")
    if asked.get("packages"):
        raise NotSupported(
            "environment.packages are not supported by this version of Skiff. Choose an `image` that has them, or"
            " open the network to a package index and let the agent install them."
        )
    if asked.get("config") is not None:
        raise NotSupported("environment.config is not supported by this version of Skiff; use `network`.")
    mode, hosts = _network(asked)
    at = now()
    return {
        "id": new_id("env"),
        "type": "environment",
        "name": _name(asked),
        "description": None,
        "config": {"type": "cloud", "networking": _networking(mode, hosts), "packages": _no_packages()},
        "skiff": {
            "network": mode,
            "image": _image(asked.get("image"), bounds),
            "cpus": _amount(asked, "cpu", bounds.cpus, LEAST_CPUS, bounds.max_cpus),
            "memory_mb": int(_amount(asked, "memory_mb", bounds.memory_mb, LEAST_MEMORY_MB, bounds.max_memory_mb)),
            "disk_mb": bounds.disk_mb,
            "pids": bounds.pids,
        },
        "metadata": {},
        "created_at": at,
        "updated_at": at,
        "archived_at": None,
    }


def digest(environment: Mapping[str, Any]) -> str:
    """Equal for environments that differ in nothing but id and dates."""
    body = {key: value for key, value in environment.items() if key not in ("id", "created_at", "updated_at")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def reaches_out(environment: Mapping[str, Any]) -> bool:
    """Whether anything can be reached from a resolved environment; web tools are off by default where nothing can."""
    networking = environment["config"]["networking"]
    return bool(networking["type"] == "unrestricted" or networking["allowed_hosts"])


def sandbox_spec(environment: Mapping[str, Any]) -> SandboxSpec:
    """What the sandbox backend needs to know of an environment."""
    own, networking = environment["skiff"], environment["config"]["networking"]
    return SandboxSpec(
        image=own["image"],
        cpus=own["cpus"],
        memory_mb=own["memory_mb"],
        disk_mb=own["disk_mb"],
        pids=own["pids"],
        network=NetworkPolicy(own["network"], tuple(networking.get("allowed_hosts", ()))),
    )


def _name(asked: Mapping[str, Any]) -> str:
    name = asked.get("name") or "sandbox"
    if not isinstance(name, str) or len(name) > 256:
        raise InvalidRequest("environment.name must be text of 1 to 256 characters.")
    return name


def _network(asked: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The policy's mode and hosts. Without a word about the network there is none."""
    network, access, hosts = asked.get("network"), asked.get("network_access"), asked.get("allowed_hosts")
    if isinstance(network, Mapping):
        extra = set(network) - {"type", "mode", "allowed_hosts"}
        if extra:
            raise NotSupported(f"environment.network.{sorted(extra)[0]} is not supported by this version of Skiff.")
        hosts = network.get("allowed_hosts", hosts)
        network = network.get("mode") or network.get("type")
    if access is not None and not isinstance(access, bool):
        raise InvalidRequest("environment.network_access must be true or false.")
    if network is None:
        network = "limited" if hosts is not None else "open" if access else "none"
    if not isinstance(network, str) or network not in _MODES:
        raise InvalidRequest("environment.network must be `none`, `limited` (with allowed_hosts) or `open`.")
    mode = _MODES[network]
    if access is False and mode != "none":
        raise InvalidRequest("environment: network_access is false, but `network` opens it.")
    if access and mode == "none":
        raise InvalidRequest("environment: network_access is true, but `network` closes it.")
    if hosts is not None and mode != "limited":
        raise InvalidRequest("environment.allowed_hosts goes with network `limited`.")
    return mode, _hosts(hosts)


def _hosts(hosts: Any) -> tuple[str, ...]:
    if hosts is None:
        return ()
    if not isinstance(hosts, Sequence) or isinstance(hosts, str) or not all(isinstance(host, str) for host in hosts):
        raise InvalidRequest("environment.allowed_hosts must be a list of host names.")
    try:
        parse_hosts(hosts)
    except PolicyError as error:
        raise InvalidRequest(f"environment.allowed_hosts: {error}") from None
    return tuple(hosts)


def _networking(mode: str, hosts: Sequence[str]) -> dict[str, Any]:
    """The wire's form; it has no word for `none`, which is limited to no hosts."""
    if mode == "unrestricted":
        return {"type": "unrestricted"}
    return {
        "type": "limited",
        "allowed_hosts": list(hosts),
        "allow_mcp_servers": False,
        "allow_package_managers": False,
    }


def _no_packages() -> dict[str, Any]:
    return {"type": "packages", **{manager: [] for manager in ("apt", "cargo", "gem", "go", "npm", "pip")}}


def _image(image: Any, bounds: Bounds) -> str:
    if image in (None, "", "default"):
        return ""
    if image not in bounds.images:
        known = ", ".join(bounds.images) or "none but the default one"
        raise InvalidRequest(f"environment.image {image!r} is not on the operator's list (setting `images`: {known}).")
    return str(image)


def _amount(asked: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = asked.get(key)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequest(
            f"environment.{key} must be a number of at least {least:g} and at most {most:g} (set by the operator)."
        )
    return float(value)
