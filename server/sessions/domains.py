"""Where an agent's web tools may go: its own settings, within the hosts of its environment. Pure.

Above: `spec`. Below: nothing. A provider takes a list of allowed domains or one of blocked ones, never both, and
matches a domain with everything below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.errors import InvalidRequest, NotSupported


def narrowed(name: str, setting: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
    """The tool's settings as the provider gets them. `hosts` are those of a limited environment; empty is no limit.

    Raises InvalidRequest when nothing would be left, NotSupported when what is left cannot be said to a provider.
    """
    if not hosts:
        return {key: value for key, value in setting.items() if value != []}
    rest = {key: value for key, value in setting.items() if key not in ("allowed_domains", "blocked_domains")}
    # `*.x` becomes x, the nearest rule that there is.
    domains = sorted({host.removeprefix("*.").lower() for host in hosts})
    if allowed := setting.get("allowed_domains"):
        domains = _within(allowed, domains)
    blocked = [domain.lower() for domain in setting.get("blocked_domains") or ()]
    left = [domain for domain in domains if not any(_covers(each, domain) for each in blocked)]
    if not left:
        raise InvalidRequest(
            f"agent.tools: {name} can reach nothing, because its domains and the environment's allowed_hosts have none"
            " in common. Give other domains, or leave it out."
        )
    if partly := [each for each in blocked if any(_covers(domain, _host(each)) for domain in left)]:
        raise NotSupported(
            f"agent.tools: {name}.blocked_domains: {partly[0]} lies below a host that the environment allows, and"
            " exceptions are not supported together with allowed_hosts. Name the domains that it may reach instead."
        )
    return {**rest, "allowed_domains": left}


def _within(allowed: Sequence[str], hosts: Sequence[str]) -> list[str]:
    """What both lists allow: the narrower rule of every pair that meets."""
    wanted = [domain.lower() if "/" not in domain else domain for domain in allowed]
    kept = {domain for domain in wanted if any(_covers(host, _host(domain)) for host in hosts)}
    return sorted(kept | {host for host in hosts if any(_covers(domain, host) for domain in wanted)})


def _covers(domain: str, host: str) -> bool:
    """Whether a rule for this domain lets all of the host through; one with a path does for no host."""
    return host == domain or host.endswith(f".{domain}")


def _host(domain: str) -> str:
    return domain.partition("/")[0].lower()
