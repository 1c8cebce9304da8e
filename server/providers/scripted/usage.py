"""Token counts of the scripted model, by the real rules of prompt caching.

Above: `model.py`. Below: nothing. A token is four bytes of canonical JSON. The prompt is the tools, the system blocks
and the message blocks, in this order; a prefix is known by the hash of its bytes, cache marks left out.

    write   at each mark whose prefix has MINIMUM_TOKENS; the tokens since the last mark (or since what was read)
    read    the longest prefix known, looked for at each mark and at the LOOKBACK_BLOCKS blocks before it
    expiry  5 minutes or 1 hour by the mark's ttl, counted anew at each read
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.providers import ModelUsage

MINIMUM_TOKENS = 1024
"""The shortest prefix that the API caches for most models."""
LOOKBACK_BLOCKS = 20
"""How many blocks before a mark the API looks for an older entry."""
BYTES_PER_TOKEN = 4
_SECONDS = {"5m": 300.0, "1h": 3600.0}
_MAX_ENTRIES = 10_000
"""Bounds the memory of a long-lived server; the oldest entries are forgotten first."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def canonical(value: Any) -> bytes:
    """JSON in one fixed spelling; the order of keys is the sender's, as prefixes are matched by bytes."""
    return _encode(value).encode("utf-8", "surrogatepass")


def count_tokens(value: Any) -> int:
    """Tokens of anything that JSON can spell; at least one."""
    return max(1, len(canonical(value)) // BYTES_PER_TOKEN)


@dataclass(frozen=True)
class _Prefix:
    key: bytes
    tokens: int
    ttl: str | None


class PromptCache:
    """What the provider remembers of prompts. `clock` gives seconds and may be a test's own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[bytes, tuple[float, str]] = {}

    def account(self, body: Mapping[str, Any], output_tokens: int) -> ModelUsage:
        """The usage of one valid request, and remember its marked prefixes."""
        prefixes = list(_prefixes(body))
        total = prefixes[-1].tokens if prefixes else 0
        marks = [n for n, prefix in enumerate(prefixes) if prefix.ttl and prefix.tokens >= MINIMUM_TOKENS]
        read = self._read(prefixes, marks)
        written = {"5m": 0, "1h": 0}
        position = read
        for n in marks:
            prefix = prefixes[n]
            if prefix.tokens > position:
                written[prefix.ttl or "5m"] += prefix.tokens - position
                position = prefix.tokens
            self._remember(prefix.key, prefix.ttl or "5m")
        return ModelUsage(
            input_tokens=total - position,
            output_tokens=output_tokens,
            cache_read_input_tokens=read,
            cache_creation_5m_input_tokens=written["5m"],
            cache_creation_1h_input_tokens=written["1h"],
        )

    def _read(self, prefixes: Sequence[_Prefix], marks: Sequence[int]) -> int:
        """Tokens of the longest live prefix within reach of a mark; its life begins anew."""
        now = self._clock()
        for mark in reversed(marks):
            for n in range(mark, max(-1, mark - LOOKBACK_BLOCKS - 1), -1):
                entry = self._entries.get(prefixes[n].key)
                if entry is not None and entry[0] > now:
                    self._remember(prefixes[n].key, entry[1])
                    return prefixes[n].tokens
        return 0

    def _remember(self, key: bytes, ttl: str) -> None:
        self._entries.pop(key, None)
        self._entries[key] = (self._clock() + _SECONDS[ttl], ttl)
        if len(self._entries) > _MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of a request's prompt."""
    size = sum(len(canonical(block)) for _, block in _blocks(body))
    return max(1, size // BYTES_PER_TOKEN)


def _prefixes(body: Mapping[str, Any]) -> Iterator[_Prefix]:
    """One prefix for each block of the prompt. A change of thinking or tool_choice spoils the messages' part only."""
    digest = hashlib.blake2b(canonical(body.get("model")), digest_size=16)
    size = 0
    for place, block in _blocks(body):
        mark = block.get("cache_control")
        text = canonical({key: value for key, value in block.items() if key != "cache_control"} if mark else block)
        digest.update(place)
        digest.update(text)
        size += len(text)
        ttl = mark.get("ttl", "5m") if mark else None
        yield _Prefix(digest.copy().digest(), max(1, size // BYTES_PER_TOKEN), ttl)


def _blocks(body: Mapping[str, Any]) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    for tool in body.get("tools") or ():
        yield b"\ntool ", tool
    for block in as_blocks(body.get("system") or ()):
        yield b"\nsystem ", block
    place = canonical([body.get("thinking"), body.get("tool_choice")])
    for message in body["messages"]:
        place += b"\n" + message["role"].encode() + b" "
        for block in as_blocks(message["content"]):
            yield place, block
            place = b"\n"


def as_blocks(content: str | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Content as blocks: the API takes a plain string for one text block."""
    return ({"type": "text", "text": content},) if isinstance(content, str) else content
