"""The byte budget of a result: what is too long is shown as head and tail with a pointer to the rest. Pure.

Above: `results`, `tools`. It knows bytes of JSON, not what they mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

BUDGET = 20_000
"""Bytes of one result. Hosts warn at 10,000 tokens and cut or divert to a file at 25,000; text has three to four bytes
a token and code as few as two, so that 20,000 bytes stay below the warning."""


def weight(value: Any) -> int:
    """Bytes of the value as JSON in UTF-8, indented as the SDK indents the text that it makes of a result."""
    return len(json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass"))


def fitting(text: str, most: int) -> int:
    """How many of the text's first characters fit into `most` bytes of JSON; at least 1 of a text that has any."""
    if weight(text) <= most:
        return len(text)
    low, high = min(1, len(text)), min(len(text), most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if weight(text[:middle]) <= most else (low, middle - 1)
    return low


def head_and_tail(text: str, most: int, pointer: str) -> str:
    """The text if it fits into `most` bytes of JSON; else two thirds of that from its head and one from its tail.

    `pointer` says how to read the rest; `{offset}` in it becomes the number of characters that the head has.
    """
    if weight(text) <= most:
        return text
    head = text[: fitting(text, most * 2 // 3)]
    rest = text[len(head) :]
    tail = rest[len(rest) - fitting(rest[::-1], most // 3) :]
    left_out = len(text) - len(head) - len(tail)
    where = pointer.replace("{offset}", str(len(head)))
    return f"{head}\n[... {left_out:,} of {len(text):,} characters are left out here; {where} ...]\n{tail}"


def without_data(value: Any) -> Any:
    """The same JSON with base64 sources (images, documents) described instead of dumped."""
    if isinstance(value, Mapping):
        if value.get("type") == "base64" and isinstance(value.get("data"), str):
            size = len(value["data"]) * 3 // 4
            return {**value, "data": f"[about {size:,} bytes, not shown]"}
        return {key: without_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_data(item) for item in value]
    return value


def shortened(value: Any, most: int, pointer: str) -> Any:
    """The same JSON with each of its texts held to `most` bytes by `head_and_tail`."""
    if isinstance(value, str):
        return head_and_tail(value, most, pointer)
    if isinstance(value, Mapping):
        return {key: shortened(item, most, pointer) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(item, most, pointer) for item in value]
    return value
