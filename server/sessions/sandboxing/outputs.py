"""What a runner says of the files that its agent hands out, read as the hostile input that it is. Pure.

Above: `workspace`. Below: the rows of files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from server.files.wire import mime_of
from server.store.files import Seen

MAX_PATH = 2_048
"""Bytes of a path; the runner fetches no longer ones."""
EARLIEST = "1970-01-01T00:00:00.000000Z"


def read(body: bytes, at: str) -> list[Seen]:
    """The files of an answer to `wire.Outputs`. What is malformed, or cannot be stored, is left out.

    A file is as old as the agent says, but not newer than `at`, the time now: pages are sorted by it.
    """
    try:
        listed = json.loads(body)
    except (ValueError, RecursionError):
        return []
    entries = listed if isinstance(listed, list) else []
    found = {seen.path: seen for entry in entries if isinstance(entry, dict) and (seen := _seen(entry, at))}
    return list(found.values())


def _seen(entry: Mapping[str, Any], at: str) -> Seen | None:
    path, size, changed = entry.get("path"), entry.get("size"), entry.get("changed")
    if not (isinstance(path, str) and type(size) is int and type(changed) is int):
        return None
    parts = path.split("/")
    if not 0 <= size < 1 << 53 or not path.isprintable() or any(part in ("", ".", "..") for part in parts):
        return None
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH:
        return None
    return Seen(path, path, mime_of(path), size, _time(changed, at), str(changed)[:40])


def _time(nanoseconds: int, at: str) -> str:
    try:
        moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return at
    micro = moment.replace(microsecond=nanoseconds // 1_000 % 1_000_000)
    text = micro.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return min(max(text, EARLIEST), at)
