"""What may be asked for as an environment's packages: names and versions, and nothing else. Pure.

Above: whoever takes a request for packages, and the backend that installs them. Below: nothing. It knows no engine.

A path, an address or an option is refused: with names, what is fetched comes from the indexes that the machine's own
package managers are configured with, and from nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sandbox.errors import SpecRefused
from sandbox.protocol import Packages

MOST = 200
"""Names in all: far above what anybody lists by hand, far below what a command line holds."""
LONGEST = 200
"""Characters of one name with its version; the longest on the public indexes are below 100."""

_PIP_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>)[A-Za-z0-9][A-Za-z0-9.*+!_-]*"
SYNTAX: Mapping[str, tuple[re.Pattern[str], str]] = {
    # a last "-" would remove the package
    "apt": (
        re.compile(r"[a-z0-9](?:[a-z0-9+.-]*[a-z0-9+])?(?::[a-z0-9]+)?(?:=[A-Za-z0-9][A-Za-z0-9.+:~-]*\*?)?"),
        "`name` or `name=version`",
    ),
    # a ":" or a further "/" would make it an address, a repository or an alias
    "npm": (
        re.compile(
            r"(?:@[a-z0-9][a-z0-9._~-]*/)?[A-Za-z0-9][A-Za-z0-9._~-]*(?:@[A-Za-z0-9^~<>=*][A-Za-z0-9.^~<>=|*+-]*)?"
        ),
        "`name`, `@scope/name` or `name@version`",
    ),
    "pip": (
        re.compile(
            r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
            r"(?:\[[A-Za-z0-9][A-Za-z0-9._-]*(?:,[A-Za-z0-9][A-Za-z0-9._-]*)*\])?"
            rf"(?:{_PIP_VERSION}(?:,{_PIP_VERSION})*)?"
        ),
        "`name`, `name[extra]` or `name==version`",
    ),
}
"""Manager -> what a name must match, and that in words."""


def check(packages: Packages) -> None:
    """Raises SpecRefused, by name, for a manager that is not there or a name that is more than a name."""
    managers = [manager for manager, _ in packages]
    for manager in managers:
        if manager not in SYNTAX:
            raise SpecRefused(f"packages of {manager!r} are not supported; {', '.join(SYNTAX)} are")
    if len(set(managers)) != len(managers):
        raise SpecRefused("packages name a manager twice")
    if sum(len(names) for _, names in packages) > MOST:
        raise SpecRefused(f"more than {MOST} packages; make an image that has them")
    for manager, names in packages:
        pattern, form = SYNTAX[manager]
        for name in names:
            if len(name) > LONGEST or not pattern.fullmatch(name):
                raise SpecRefused(f"the {manager} package {name[:LONGEST]!r} is not a name and version: {form}")
