"""Prefixed identifiers, and the clock. Both are injected where a test wants them fixed.

Prefixes are those of the wire (reference: Managed Agents API): agent_, env_, sesn_, sthr_, sevt_.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford base32: no I, L, O, U


def new_id(prefix: str) -> str:
    """`prefix_` and 24 characters: 9 of the clock (so that ids sort roughly by age), 15 random (75 bits)."""
    number = (time.time_ns() // 1_000_000) << 75 | secrets.randbits(75)
    digits = []
    for _ in range(24):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"


_latest = ""


def now() -> str:
    """The time as the wire writes it: RFC 3339, UTC, microseconds. It never runs backwards within a process: events
    are sorted by it."""
    global _latest
    _latest = max(_latest, datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"))
    return _latest
