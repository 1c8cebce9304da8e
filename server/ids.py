"""Prefixed identifiers, and the clock. Both are injected where a test wants them fixed.

Prefixes are those of the wire (reference: Managed Agents API): agent_, env_, sesn_, sthr_, sevt_.
"""

from __future__ import annotations

import base64
import secrets
import time
from datetime import UTC, datetime, timedelta

_CROCKFORD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")
"""The digits of base32 to Crockford's, which sort as their values do and leave out I, L, O and U."""


def new_id(prefix: str) -> str:
    """`prefix_` and 24 characters: 9 of the clock (so that ids sort roughly by age), 15 random (75 bits)."""
    number = (time.time_ns() // 1_000_000) << 75 | secrets.randbits(75)
    return f"{prefix}_{base64.b32encode(number.to_bytes(15, 'big')).translate(_CROCKFORD).decode()}"


_latest = ""


def now() -> str:
    """The time as the wire writes it: RFC 3339, UTC, microseconds. It never runs backwards within a process: events
    are sorted by it."""
    global _latest
    _latest = max(_latest, datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"))
    return _latest


def ago(seconds: float) -> str:
    """The time so many seconds before now, written the same way."""
    then = datetime.now(UTC) - timedelta(seconds=seconds)
    return then.isoformat(timespec="microseconds").replace("+00:00", "Z")
