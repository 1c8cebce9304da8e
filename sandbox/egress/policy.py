"""Which hosts and ports a sandbox may name. Pure: no resolving, no connecting.

Above: `proxy`, and whoever validates an environment before it is stored. Below: `addresses` for literals. A name that
passes here still has to resolve to public addresses only; `dial` sees to that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

import idna

from sandbox.egress.addresses import IPAddress, address_allowed
from sandbox.protocol import NetworkPolicy

WEB_PORTS = frozenset({80, 443})
"""`limited` names web hosts; other ports of a listed host are other services, which nobody listed."""
REFUSED_PORTS = frozenset({25})
"""Even `unrestricted` delivers no mail: port 25 takes it without a login, and spam costs the whole site its reputation.
The submission ports 465 and 587 ask for a login and stay open."""
SETTING = "environment.network.allowed_hosts"

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")
MAX_NAME = 253
"""Characters of a name in the DNS, without the final dot."""


class PolicyError(ValueError):
    """An entry of `allowed_hosts` breaks a rule. The message names both and says what to write instead."""


@dataclass(frozen=True)
class Policy:
    """A NetworkPolicy made ready: lower case, IDNA-encoded, exact names and the names under which all is allowed."""

    mode: Literal["none", "limited", "unrestricted"] = "none"
    names: frozenset[str] = frozenset()
    suffixes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Allow:
    """`host` is the canonical form to resolve: lower case, no final dot, or an address."""

    host: str


@dataclass(frozen=True)
class Deny:
    """`reason` is one line of ASCII that names the host and says how to allow it, where that is possible."""

    reason: str


def parse_policy(policy: NetworkPolicy) -> Policy:
    """The policy ready to decide by. Raises PolicyError for the first bad entry of `allowed_hosts`."""
    names, suffixes = parse_hosts(policy.allowed_hosts)
    return Policy(policy.mode, names, suffixes)


def parse_hosts(entries: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Exact names, and the `x` of every `*.x`. Raises PolicyError for the first bad entry."""
    names: set[str] = set()
    suffixes: set[str] = set()
    for entry in entries:
        wild = entry.startswith("*.")
        (suffixes if wild else names).add(_parse_name(entry, entry[2:] if wild else entry))
    return frozenset(names), frozenset(suffixes)


def decide(policy: Policy, host: str, port: int) -> Allow | Deny:
    """May a sandbox under this policy connect to this host and port? `host` is as the client wrote it, no brackets."""
    if policy.mode == "none":
        return Deny(f"{_printable(host)} is blocked: this sandbox has no network")
    address = _address(host)
    name = str(address) if address is not None else host.lower().removesuffix(".")
    if address is None and not _is_name(name):
        return Deny(f"{_printable(host)} is not a host name")
    if policy.mode == "limited":
        return _decide_limited(policy, name, address, port)
    if port in REFUSED_PORTS:
        return Deny(f"{name}:{port} is blocked: port {port} is never allowed from a sandbox")
    if address is not None and not address_allowed(address):
        return Deny(f"{name} is blocked: private, local and reserved addresses are never reachable from a sandbox")
    return Allow(name)


def _decide_limited(policy: Policy, name: str, address: IPAddress | None, port: int) -> Allow | Deny:
    if address is not None:
        return Deny(f"{name} is blocked: addresses cannot be allowed, only names listed in {SETTING}")
    parents = (name.split(".", n)[n] for n in range(1, name.count(".") + 1))
    if name not in policy.names and not any(parent in policy.suffixes for parent in parents):
        return Deny(f"{name} is blocked: not in {SETTING}; add it there to allow it")
    if port not in WEB_PORTS:
        return Deny(f"{name}:{port} is blocked: hosts in {SETTING} are reachable on ports 80 and 443 only")
    return Allow(name)


def _parse_name(entry: str, text: str) -> str:
    """The canonical name in an entry whose leading `*.` is gone. `entry` is what the message quotes."""
    rule = _broken_rule(text)
    if rule:
        raise PolicyError(f"allowed_hosts: {entry!r} {rule}")
    try:
        name = text.lower().removesuffix(".")
        name = name if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise PolicyError(f"allowed_hosts: {entry!r} is not a valid international name: {error}") from None
    if _address(name) is not None or _looks_numeric(name):
        raise PolicyError(f"allowed_hosts: {entry!r} is an IP address; only host names can be allowed")
    if not _is_name(name):
        raise PolicyError(f"allowed_hosts: {entry!r} is not a host name; write a bare name such as 'example.com'")
    return name


def _broken_rule(text: str) -> str:
    """What is wrong with an entry at first sight, as the end of a sentence; empty when nothing is."""
    if not text:
        return "is empty; write a bare host name such as 'example.com'"
    if "://" in text:
        return "has a scheme; write the bare host name"
    if _address(text) is not None:
        return "is an IP address; only host names can be allowed"
    if any(char in text for char in "/?#\\"):
        return "has a path; write the bare host name"
    if "@" in text:
        return "has a user name; write the bare host name"
    if ":" in text or "[" in text:
        return "has a port; write the bare host name (ports 80 and 443 are reachable)"
    if "*" in text:
        return "has a misplaced wildcard; only '*.' at the start is allowed, as in '*.example.com'"
    return ""


def _address(host: str) -> IPAddress | None:
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _is_name(name: str) -> bool:
    """Is this a name for the DNS, and not a number that a resolver would read as an address (`127.1`, `0x7f000001`)?"""
    return len(name) <= MAX_NAME and all(map(_LABEL.match, name.split("."))) and not _looks_numeric(name)


def _looks_numeric(name: str) -> bool:
    return _NUMBER.match(name.rpartition(".")[2]) is not None


def _printable(host: str) -> str:
    """What a client sent, fit for one line of an answer and of a log."""
    return ascii(host[:MAX_NAME])[1:-1]
