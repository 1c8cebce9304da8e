"""An environment: where an agent's tools run. From what a caller asks for to the resolved configuration. Pure.

Two ways in. `create` and `update` take the wire's fields, strictly, with Skiff's own additions (image, cpu, memory_mb)
under the key `skiff`. `resolve` takes what a caller of the MCP door writes: `network: "none" | "limited" | "open"`,
`allowed_hosts`, `network_access: bool`, and image, cpu, memory_mb and packages beside them.

Inside, `skiff` holds everything that a sandbox needs to know and the wire has no word for: `network` says `none` where
the wire must say `limited` to no hosts. `wire` shows of it what a client can set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox import packages as names_only
from sandbox.egress.policy import PolicyError, parse_hosts
from sandbox.errors import SpecRefused
from sandbox.protocol import NetworkPolicy, Packages, SandboxSpec
from sandbox.readymade import READY_MADE
from server.catalog import fields
from server.errors import InvalidRequest, NotSupported, Refused, coded
from server.ids import new_id, now

FRIENDLY = (
    "name", "type", "network", "network_access", "allowed_hosts", "image", "cpu", "memory_mb", "packages", "config",
)  # fmt: skip
WIRE = ("name", "description", "config", "metadata", "scope", "skiff")
OWN = ("image", "cpu", "memory_mb")
MANAGERS = ("apt", "cargo", "gem", "go", "npm", "pip")
MAX_NAME, MAX_DESCRIPTION = 256, 2048
"""Characters. The wire names no bounds here; these are an agent's."""
MOST_HOSTS = 256
"""Of a policy that somebody is meant to read; the wire names no bound."""
LEAST_CPUS = 0.1
"""With less, the runner itself does not answer in time; container engines refuse less than a hundredth."""
LEAST_MEMORY_MB = 64
"""MiB: the runner, a shell and a small program; the same bound as the operator's setting."""
_MODES = {"none": "none", "limited": "limited", "open": "unrestricted", "unrestricted": "unrestricted"}
_INDEXES = (
    "allow_package_managers opens the package indexes, and the operator has not said which hosts those are (setting"
    " `package_hosts`)"
)


@dataclass(frozen=True)
class Bounds:
    """What the operator allows a caller to ask for, and what a sandbox has when nothing is asked."""

    images: tuple[str, ...]
    """Besides the default image and the ready-made ones."""
    max_cpus: float
    max_memory_mb: int
    cpus: float
    memory_mb: int
    disk_mb: int
    pids: int
    package_hosts: tuple[str, ...] = ()
    """What `allow_package_managers` opens; without any it is refused."""
    packages_from_mcp: bool = False
    """Whether the MCP door's callers, who are often models, may have packages installed."""


# --- the wire's form -------------------------------------------------------------------------------------------------


def create(asked: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
    """The environment as stored, with a new id. Raises InvalidRequest, or NotSupported for what is not there yet."""
    fields.known(asked, WIRE)
    if asked.get("name") is None:
        raise InvalidRequest("name is required.")
    _check_scope(asked.get("scope"))
    blank = _environment("", "unrestricted", {"type": "unrestricted"}, _no_packages(), _default_own(bounds))
    blank["metadata"] = _metadata({}, asked.get("metadata"), (None,))
    return _with(blank, asked, bounds)


def update(environment: Mapping[str, Any], patch: Mapping[str, Any], bounds: Bounds) -> dict[str, Any] | None:
    """The environment with the patch applied; None when it changes nothing.

    What is left out stays, also within `config` and `skiff`. Raises InvalidRequest, Refused when it is archived.
    """
    fields.known(patch, WIRE)
    if environment["archived_at"]:
        raise coded(Refused(f"Environment {environment['id']} is archived."), "environment_archived")
    _check_scope(patch.get("scope"))
    changed = dict(environment)
    changed["metadata"] = _metadata(environment["metadata"], patch.get("metadata"), (None, ""))
    changed = _with(changed, patch, bounds)
    return None if changed == environment else {**changed, "updated_at": now()}


def wire(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The environment as a client reads it."""
    own = environment["skiff"]
    shown = {"image": own["image"] or None, "cpu": own["cpus"], "memory_mb": own["memory_mb"]}
    return {**environment, "scope": "organization", "skiff": shown}


def reaches_out(environment: Mapping[str, Any]) -> bool:
    """Whether anything can be reached from a resolved environment; web tools are off by default where nothing can."""
    networking = environment["config"]["networking"]
    return bool(networking["type"] == "unrestricted" or networking["allowed_hosts"])


def sandbox_spec(environment: Mapping[str, Any]) -> SandboxSpec:
    """What the sandbox backend needs to know of an environment."""
    own, networking = environment["skiff"], environment["config"]["networking"]
    hosts = dict.fromkeys((*networking.get("allowed_hosts", ()), *own.get("package_hosts", ())))
    return SandboxSpec(
        image=own["image"],
        cpus=own["cpus"],
        memory_mb=own["memory_mb"],
        disk_mb=own["disk_mb"],
        pids=own["pids"],
        network=NetworkPolicy(own["network"], tuple(hosts)),
        packages=_listed(environment["config"]["packages"]),
    )


def _environment(
    name: str, mode: str, networking: Mapping[str, Any], packages: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    at = now()
    return {
        "id": new_id("env"),
        "type": "environment",
        "name": name,
        "description": None,
        "config": {"type": "cloud", "networking": dict(networking), "packages": dict(packages)},
        "skiff": {"network": mode, **own},
        "metadata": {},
        "created_at": at,
        "updated_at": at,
        "archived_at": None,
    }


def _with(environment: dict[str, Any], given: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
    """The environment with what is given, and not null, in the place of what it has."""
    if given.get("name") is not None:
        environment["name"] = fields.text(given["name"], "name", MAX_NAME, 1)
    if "description" in given:
        text = given["description"]
        environment["description"] = None if text is None else fields.text(text, "description", MAX_DESCRIPTION)
    own = dict(environment["skiff"])
    if given.get("skiff") is not None:
        own |= _own(given["skiff"], own, bounds)
    if given.get("config") is not None:
        config = _config(given["config"], environment["config"])
        environment["config"] = config
        own |= _reach(given["config"], config["networking"], bounds)
    environment["skiff"] = own
    return environment


def _metadata(old: Mapping[str, str], patch: Any, deletes: Collection[str | None]) -> dict[str, str]:
    try:
        return fields.merged(old, patch, deletes)
    except InvalidRequest as error:
        raise coded(error, "invalid_metadata") from None


def _check_scope(scope: Any) -> None:
    if scope is not None and fields.choice(scope, "scope", ("organization", "account")) == "account":
        raise fields.later("scope", "`account` is")


def _config(given: Any, stored: Mapping[str, Any]) -> dict[str, Any]:
    config = fields.mapping(given, "config")
    kind = config.get("type")
    if kind == "self_hosted":
        raise fields.later("config.type", "`self_hosted` is")
    fields.choice(kind, "config.type", ("cloud", "self_hosted"))
    fields.known(config, ("type", "networking", "packages"), "config.")
    networking, packages = stored["networking"], stored["packages"]
    if config.get("networking") is not None:
        networking = _networking(config["networking"], networking)
    if config.get("packages") is not None:
        packages = _packages(config["packages"], packages)
    if networking["type"] == "limited" and not networking["allow_package_managers"] and _listed(packages):
        raise InvalidRequest("config.packages: needs networking.allow_package_managers to be true under `limited`.")
    return {"type": "cloud", "networking": networking, "packages": packages}


def _networking(given: Any, stored: Mapping[str, Any]) -> dict[str, Any]:
    path = "config.networking"
    networking = fields.mapping(given, path)
    if fields.choice(networking.get("type"), f"{path}.type", ("unrestricted", "limited")) == "unrestricted":
        fields.known(networking, ("type",), f"{path}.")
        return {"type": "unrestricted"}
    switches = ("allow_mcp_servers", "allow_package_managers")
    fields.known(networking, ("type", "allowed_hosts", *switches), f"{path}.")
    hosts = networking.get("allowed_hosts")
    return {
        "type": "limited",
        "allowed_hosts": list(stored.get("allowed_hosts", ()) if hosts is None else _hosts(hosts, f"{path}.")),
        **{name: fields.flag(networking.get(name), f"{path}.{name}", stored.get(name, False)) for name in switches},
    }


def _reach(given: Mapping[str, Any], networking: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
    """The sandbox's mode and further hosts. `allow_mcp_servers` opens none: agents have no MCP servers yet."""
    if given.get("networking") is None:
        return {}
    if not networking.get("allow_package_managers"):
        return {"network": networking["type"], "package_hosts": []}
    if not bounds.package_hosts:
        raise NotSupported(f"config.networking.{_INDEXES}.")
    return {"network": networking["type"], "package_hosts": list(bounds.package_hosts)}


def _hosts(hosts: Any, path: str) -> tuple[str, ...]:
    listed = fields.listed(hosts, f"{path}allowed_hosts", MOST_HOSTS)
    try:
        if not all(isinstance(host, str) for host in listed):
            raise PolicyError("every entry must be a host name.")
        parse_hosts(listed)
    except PolicyError as error:
        raise InvalidRequest(f"{path}allowed_hosts: {error}") from None
    return tuple(listed)


# --- packages --------------------------------------------------------------------------------------------------------


def _no_packages() -> dict[str, Any]:
    return {"type": "packages", **{manager: [] for manager in MANAGERS}}


def _packages(given: Any, stored: Mapping[str, Any], path: str = "config.packages") -> dict[str, Any]:
    """Names and versions only. A manager that is left out keeps its list."""
    packages = fields.mapping(given, path)
    fields.known(packages, ("type", *MANAGERS), f"{path}.")
    if packages.get("type") is not None:
        fields.choice(packages["type"], f"{path}.type", ("packages",))
    found = dict(stored)
    for manager in MANAGERS:
        if packages.get(manager) is None:
            continue
        names = fields.listed(packages[manager], f"{path}.{manager}", names_only.MOST)
        if not all(isinstance(name, str) for name in names):
            raise InvalidRequest(f"{path}.{manager} must be a list of names.")
        if names and manager not in names_only.SYNTAX:
            known = ", ".join(names_only.SYNTAX)
            raise NotSupported(f"{path}.{manager} is not supported by this version of Skiff; {known} are.")
        found[manager] = list(names)
    try:
        names_only.check(_listed(found))
    except SpecRefused as error:
        raise InvalidRequest(f"{path}: {error}.") from None
    return found


def _listed(packages: Mapping[str, Any]) -> Packages:
    return tuple((manager, tuple(packages[manager])) for manager in MANAGERS if packages.get(manager))


# --- Skiff's own additions -------------------------------------------------------------------------------------------


def _default_own(bounds: Bounds) -> dict[str, Any]:
    return {
        "image": "",
        "cpus": bounds.cpus,
        "memory_mb": bounds.memory_mb,
        "disk_mb": bounds.disk_mb,
        "pids": bounds.pids,
        "package_hosts": [],
    }


def _own(given: Any, stored: Mapping[str, Any], bounds: Bounds, path: str = "skiff.") -> dict[str, Any]:
    """What is given in the place of what is stored; null is the operator's default."""
    own = fields.mapping(given, "skiff")
    if "idle_seconds" in own:
        raise NotSupported(f"{path}idle_seconds: the idle time is the operator's (setting `stop_after`).")
    fields.known(own, OWN, path)
    found = dict(stored)
    if "image" in own:
        found["image"] = _image(own["image"], bounds, path)
    if "cpu" in own:
        found["cpus"] = _amount(own["cpu"], f"{path}cpu", bounds.cpus, LEAST_CPUS, bounds.max_cpus)
    if "memory_mb" in own:
        most = bounds.max_memory_mb
        found["memory_mb"] = int(_amount(own["memory_mb"], f"{path}memory_mb", bounds.memory_mb, LEAST_MEMORY_MB, most))
    return found


def _image(image: Any, bounds: Bounds, path: str) -> str:
    if image in (None, "", "default"):
        return ""
    if not isinstance(image, str) or (image not in READY_MADE and image not in bounds.images):
        known = ", ".join((*READY_MADE, *bounds.images))
        raise InvalidRequest(
            f"{path}image {image!r:.80} is neither ready-made nor on the operator's list (setting `images`): {known}."
        )
    return image


def _amount(value: Any, path: str, default: float, least: float, most: float) -> float:
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequest(
            f"{path} must be a number of at least {least:g} and at most {most:g} (set by the operator)."
        )
    return float(value)


# --- the friendly form -----------------------------------------------------------------------------------------------


def resolve(asked: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
    """The environment that a caller of the MCP door describes, as stored, with a new id.

    Raises InvalidRequest or NotSupported.
    """
    with fields.within("environment"):
        fields.known(asked, FRIENDLY)
        if asked.get("type") not in (None, "standard_sandbox", "cloud"):
            raise NotSupported(f"type {asked['type']!r:.80} is not supported; use `standard_sandbox`.")
        if asked.get("config") is not None:
            raise NotSupported("config is not supported at this door; use `network`, `allowed_hosts` and `packages`.")
        mode, hosts = _network(asked)
        own = _own({key: asked[key] for key in OWN if key in asked}, _default_own(bounds), bounds, "")
        name = fields.text(asked.get("name") or "sandbox", "name", MAX_NAME, 1)
        packages = _friendly_packages(asked.get("packages"), bounds)
        return _environment(name, mode, _friendly_networking(mode, hosts), packages, own)


def ready_made(name: str, bounds: Bounds) -> dict[str, Any] | None:
    """The environment on the ready-made image of this name, without network; None when there is no such image."""
    return resolve({"name": name, "image": name}, bounds) if name in READY_MADE else None


def digest(environment: Mapping[str, Any]) -> str:
    """Equal for environments that differ in nothing but id and dates."""
    body = {key: value for key, value in environment.items() if key not in ("id", "created_at", "updated_at")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _friendly_packages(given: Any, bounds: Bounds) -> dict[str, Any]:
    if not given:
        return _no_packages()
    if not bounds.packages_from_mcp:
        raise NotSupported(
            "packages: the operator does not let this door install any (setting `packages_from_mcp`). Choose an"
            f" `image` that has them: {', '.join((*READY_MADE, *bounds.images))}."
        )
    return _packages(given, _no_packages(), "packages")


def _network(asked: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The policy's mode and hosts. Without a word about the network there is none."""
    network, access, hosts = asked.get("network"), asked.get("network_access"), asked.get("allowed_hosts")
    if isinstance(network, Mapping):
        extra = set(network) - {"type", "mode", "allowed_hosts"}
        if extra:
            raise NotSupported(f"network.{sorted(extra)[0]} is not supported by this version of Skiff.")
        hosts = network.get("allowed_hosts", hosts)
        network = network.get("mode") or network.get("type")
    fields.flag(access, "network_access", False)
    if network is None:
        network = "limited" if hosts is not None else "open" if access else "none"
    if not isinstance(network, str) or network not in _MODES:
        raise InvalidRequest("network must be `none`, `limited` (with allowed_hosts) or `open`.")
    mode = _MODES[network]
    if access is False and mode != "none":
        raise InvalidRequest("network_access is false, but `network` opens it.")
    if access and mode == "none":
        raise InvalidRequest("network_access is true, but `network` closes it.")
    if hosts is not None and mode != "limited":
        raise InvalidRequest("allowed_hosts goes with network `limited`.")
    return mode, _hosts(hosts, "")


def _friendly_networking(mode: str, hosts: Sequence[str]) -> dict[str, Any]:
    """The wire's form; it has no word for `none`, which is limited to no hosts."""
    if mode == "unrestricted":
        return {"type": "unrestricted"}
    return {
        "type": "limited",
        "allowed_hosts": list(hosts),
        "allow_mcp_servers": False,
        "allow_package_managers": False,
    }
