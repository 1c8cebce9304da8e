"""The query string of a request, read by name and by kind; what the endpoint does not declare is refused.

Above: `app`, which makes one for every request, and the handlers. Below: nothing. It does not know which parameters an
endpoint has beyond their names: kinds and bounds are the handler's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from server.errors import InvalidRequest

ACCEPTED = ("beta",)
"""What older SDKs put on every request; it says nothing that the headers do not say."""
MOST_PARAMETERS = 1_000
"""More than any list of types; the parser's own guard against a million empty pairs."""
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SIDES = ("gt", "gte", "lt", "lte")


class Query:
    """The parameters that a request gave."""

    def __init__(self, given: Mapping[str, Sequence[str]]) -> None:
        self._given = given

    @classmethod
    def parse(cls, raw: bytes, known: Collection[str]) -> Query:
        """The parameters of a query string. Raises InvalidRequest naming one that is not `known`, or cannot be read."""
        try:
            pairs = parse_qsl(
                raw.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS
            )
        except ValueError:
            raise InvalidRequest("The query string cannot be read: it must be percent-encoded UTF-8.") from None
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            given.setdefault(name, []).append(value)
        unknown = sorted(name for name in given if name not in known and name not in ACCEPTED)
        if unknown:
            raise InvalidRequest(f"{unknown[0]}: unknown query parameter. Known here: {_listed(known)}.")
        twice = sorted(name for name, values in given.items() if len(values) > 1 and not name.endswith("[]"))
        if twice:
            raise InvalidRequest(f"{twice[0]}: given more than once.")
        return cls(given)

    def text(self, name: str) -> str | None:
        """The parameter as it is; None when it was not given."""
        values = self._given.get(name)
        return values[0] if values else None

    def flag(self, name: str) -> bool:
        """`true` or `false`; False when it was not given. Raises InvalidRequest."""
        return self.choice(name, ("true", "false"), "false") == "true"

    def number(self, name: str, least: int, most: int) -> int | None:
        """A whole number from `least` to `most`; None when it was not given. Raises InvalidRequest."""
        value = self.text(name)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value) or not least <= int(value) <= most:
            raise InvalidRequest(f"{name}: must be a whole number from {least} to {most}.")
        return int(value)

    def many(self, name: str) -> list[str]:
        """Every value of a repeated parameter such as `types[]`, in order."""
        return list(self._given.get(name, ()))

    def choice(self, name: str, options: Collection[str], default: str) -> str:
        """One of `options`. Raises InvalidRequest naming them."""
        value = self.text(name)
        if value is None:
            return default
        if value not in options:
            raise InvalidRequest(f"{name}: must be one of {_listed(options)}.")
        return value

    def times(self, name: str) -> dict[str, str]:
        """The bounds that were given as `name[gt]`, `name[gte]`, `name[lt]`, `name[lte]`, as times are stored.

        Times are normalised to UTC with microseconds, so that they compare as text. Raises InvalidRequest for one
        that is not RFC 3339.
        """
        found = {side: (f"{name}[{side}]", self.text(f"{name}[{side}]")) for side in _SIDES}
        return {side: _utc(parameter, value) for side, (parameter, value) in found.items() if value is not None}


def _utc(name: str, value: str) -> str:
    try:
        if not _TIME.fullmatch(value):
            raise ValueError(value)
        moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{name}: must be an RFC 3339 time such as 2026-01-31T12:00:00Z (a + is written %2B)."
        ) from None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
