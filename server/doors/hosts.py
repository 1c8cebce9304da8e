"""Which Host and Origin headers are taken, so that a web page cannot reach a door by DNS tricks. Pure.

Above: `http`, for every path but the probes'. Below: nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from server.errors import SkiffError

_LOCAL = ("127.0.0.1", "localhost", "[::1]")


class StrangeHost(SkiffError):
    """A Host header that nobody allowed: the client, or a page in a browser, meant another server."""

    wire_type = "invalid_request_error"
    status = 421


class StrangeOrigin(SkiffError):
    """A request of a web page that is not ours."""

    wire_type = "permission_error"
    status = 403


def host_headers(host: str, allowed: Sequence[str]) -> list[str]:
    """The Host headers that are taken; `name:*` is the name with any port."""
    own = () if host in ("0.0.0.0", "::", "") else (f"[{host}]" if ":" in host else host,)
    names = [*_LOCAL, *own, *(name for name in allowed if not _has_port(name))]
    patterns = [pattern for name in names for pattern in (name, f"{name}:*")]
    return list(dict.fromkeys([*patterns, *filter(_has_port, allowed)]))


def origins(names: Sequence[str]) -> list[str]:
    """The Origin headers that are taken: pages of the server's own names."""
    return [f"{scheme}://{name}" for scheme in ("http", "https") for name in names]


def check(host: str, origin: str, names: Sequence[str]) -> None:
    """Raises StrangeHost, StrangeOrigin for headers that are none of these names. No Origin is a good one."""
    if not _among(host, names):
        raise StrangeHost("Invalid Host header. SKIFF_ALLOWED_HOSTS names the hosts that are served.")
    if origin and not _among(origin, origins(names)):
        raise StrangeOrigin("Invalid Origin header. SKIFF_ALLOWED_HOSTS names the hosts that are served.")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _among(given: str, names: Sequence[str]) -> bool:
    base, colon, port = given.rpartition(":")
    return given in names or (bool(colon) and port.isdigit() and f"{base}:*" in names)


def _has_port(name: str) -> bool:
    return name.rpartition("]")[2].count(":") == 1
