"""How objects are written into columns: as JSON, without what databases refuse. Pure.

Above: the stores. Below: nothing. It does not know what the objects are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from server.errors import StoreError

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What databases refuse in text: NUL, and halves of surrogate pairs. One would wedge a session for ever."""


def storable(value: Any) -> Any:
    """The value with U+FFFD in the place of every unstorable character."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def dump(value: Mapping[str, Any] | None) -> str | None:
    """The value as JSON."""
    return None if value is None else _encode(value)


def encoded(value: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, str | None]:
    """The value as it will be read again, and its JSON."""
    text = dump(value)
    if text is None or not ("\\u0000" in text or _UNSTORABLE.search(text)):
        return value, text
    kept: Mapping[str, Any] = storable(value)
    return kept, dump(kept)


def load(text: str) -> dict[str, Any]:
    """The object that was stored. Raises StoreError when it is none."""
    body = json.loads(text)
    if not isinstance(body, dict):
        raise StoreError("A stored object is not a mapping; the database was changed by another program.")
    return body
