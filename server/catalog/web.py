"""The settings of the web tools: which domains, for whom, how much. Pure.

Above: `tools`. Below: `fields`. It knows the rules of the wire, not what a provider does with a setting.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from server.catalog import fields
from server.errors import InvalidRequest

FIELDS: Mapping[str, Sequence[str]] = {
    "web_search": ("allowed_domains", "blocked_domains", "user_location"),
    "web_fetch": ("allowed_domains", "blocked_domains", "max_content_tokens", "url_sources"),
}
"""The further settings of each."""
MOST_DOMAINS, LONGEST_DOMAIN = 64, 255
LONGEST_PLACE = 255
"""Characters of a part of a place; the longest real ones are below 100."""
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?", re.ASCII)
_PRIVATE = ("localhost", "local", "internal", "localdomain", "invalid")
_NUMERIC = re.compile(r"(0[xX][0-9A-Fa-f]*|[0-9]+)", re.ASCII)
_BAD_IN_PATH = re.compile(r"[\s?#$,|^!]")
_SUFFIXES = frozenset({
    "co.uk", "org.uk", "ac.uk", "gov.uk", "com.au", "net.au", "org.au", "co.jp", "co.nz", "co.za", "com.br", "com.cn",
    "com.mx", "co.in", "co.kr", "com.tr", "com.sg",
})  # fmt: skip
"""The registries' suffixes of two labels that people write; others name nobody's site and so match nothing."""
_COUNTRY = re.compile(r"[A-Z]{2}", re.ASCII)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)


def settings(name: str, config: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The further settings of this tool that were given. Raises InvalidRequest, or NotSupported for `url_sources`."""
    if name not in FIELDS:
        return {}
    allowed, blocked = config.get("allowed_domains"), config.get("blocked_domains")
    if allowed is not None and blocked is not None:
        raise InvalidRequest(f"{path}: Only one of allowed_domains or blocked_domains may be set.")
    found: dict[str, Any] = {}
    for key, given in (("allowed_domains", allowed), ("blocked_domains", blocked)):
        if given is not None:
            found[key] = _domains(given, f"{path}.{key}", paths=name == "web_search")
    if (most := config.get("max_content_tokens")) is not None:
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise InvalidRequest(f"{path}.max_content_tokens must be a positive whole number.")
        found["max_content_tokens"] = most
    if (place := config.get("user_location")) is not None:
        found["user_location"] = _place(place, f"{path}.user_location")
    if config.get("url_sources") is not None:
        raise fields.later(f"{path}.url_sources", "the choice of sources of addresses is")
    return found


def _domains(given: Any, path: str, *, paths: bool) -> list[str]:
    domains = fields.listed(given, path, MOST_DOMAINS)
    if not domains:
        raise InvalidRequest(f"{path}: Empty list of domains is ambiguous. Provide at least one domain or null.")
    seen = set()
    for number, domain in enumerate(domains):
        problem = _problem(domain, paths)
        if problem:
            raise InvalidRequest(f"{path}.{number}: {domain!r:.80} {problem}.")
        plain = domain.removesuffix("/").lower()
        if plain in seen:
            raise InvalidRequest(f"{path}.{number}: {domain!r} is there twice.")
        seen.add(plain)
    return list(domains)


def _problem(domain: Any, paths: bool) -> str:
    """What is wrong with a domain; "" for a good one."""
    if not isinstance(domain, str) or not 0 < len(domain) <= LONGEST_DOMAIN:
        return f"must be text of 1 to {LONGEST_DOMAIN} characters"
    if not domain.isascii():
        return "must be ASCII; write the xn-- form"
    host, slash, below = domain.removesuffix("/").partition("/")
    if slash and (not below or not paths or _BAD_IN_PATH.search(below)):
        return "must not have such a path"
    labels = host.split(".")
    if not all(len(label) <= 63 and _LABEL.fullmatch(label) for label in labels):
        return "must be a plain domain name, without scheme, port, wildcard or credentials"
    if labels[-1].lower() in _PRIVATE:
        return "is not a public name"
    if _is_address(host):
        return "must not be an IP address"
    if len(labels) < 2 or host.lower() in _SUFFIXES:
        return "must be a domain, not a registry's suffix or a single label"
    return ""


def _is_address(host: str) -> bool:
    """In any form that a resolver takes for one: also short, octal and hexadecimal numbers."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _NUMERIC.fullmatch(host.rpartition(".")[2]) is not None
    return True


def _place(given: Any, path: str) -> dict[str, Any]:
    place = fields.mapping(given, path)
    fields.known(place, ("type", "city", "region", "country", "timezone"), f"{path}.")
    fields.choice(place.get("type"), f"{path}.type", ("approximate",))
    for key, item in place.items():
        if item is not None:
            fields.text(item, f"{path}.{key}", LONGEST_PLACE, 1)
    country, zone = place.get("country"), place.get("timezone")
    if country is not None and not _COUNTRY.fullmatch(country):
        raise InvalidRequest(f"{path}.country must be two capital letters (ISO 3166-1), as in DE.")
    if zone is not None and not _ZONE.fullmatch(zone):
        raise InvalidRequest(f"{path}.timezone must be an IANA name, as in Europe/Berlin.")
    return {key: item for key, item in place.items() if item is not None}
