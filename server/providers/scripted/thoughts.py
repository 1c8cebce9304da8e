"""Signatures of what the scripted model leaves in a conversation for later: thoughts and summaries. Pure.

Above: `model.py` (signs) and `validation.py` (checks). Below: nothing. As the newer models have it, a thinking block is
bound to what came before it: tools, system prompt and every message, cache marks and other thoughts left out. It also
names the thought before it: those at the front of a conversation may be left out, none in its middle.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.providers.scripted.usage import as_blocks, canonical

Body = Mapping[str, Any]
THOUGHTS = ("thinking", "redacted_thinking")
FORGED = "Invalid `signature` in `thinking` block"
MOVED = (
    f"{FORGED}. The block is bound to a different conversation. Remove the block, or set"
    ' `thinking.block_binding.prefix_mismatch_behavior` to "drop_block".'
)


def sign(thinking: str, body: Body) -> str:
    """The signature of what is thought in answer to this request."""
    *_, (prefix, before) = _walk(body)
    return _signature(thinking, prefix, before)


def fault(body: Body) -> str | None:
    """What is wrong with the thinking blocks of a request; None when nothing is."""
    if not any(block["type"] == "thinking" for message in body["messages"] for block in as_blocks(message["content"])):
        return None
    return next((found for found in _faults(body) if found), None)


def _faults(body: Body) -> Iterator[str | None]:
    walk = _walk(body)
    for n, message in enumerate(body["messages"]):
        for m, block in enumerate(as_blocks(message["content"])):
            prefix, before = next(walk)
            if block["type"] != "thinking":
                continue
            own, named, bound = [*str(block["signature"]).split("."), "", ""][:3]
            if own != _mac("thought", block["thinking"]):
                yield f"messages.{n}.content.{m}: {FORGED}"
            elif bound != _mac("bound", own, prefix, named) or (before and before != named):
                yield f"messages.{n}.content.{m}: {MOVED}"


def _walk(body: Body) -> Iterator[tuple[str, str]]:
    """Before each block, and at the end: the digest of what came until then, and the thought before."""
    digest = hashlib.blake2b(_plain([body.get("tools") or [], as_blocks(body.get("system") or [])]), digest_size=16)
    before = ""
    for message in body["messages"]:
        for block in as_blocks(message["content"]):
            yield digest.hexdigest(), before
            if block["type"] == "thinking":
                before = str(block["signature"]).rpartition(".")[2]
            elif block["type"] not in THOUGHTS:
                digest.update(message["role"].encode() + _plain(block))
    yield digest.hexdigest(), before


def _plain(value: Any) -> bytes:
    return canonical(_unmarked(value))


def _unmarked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unmarked(item) for key, item in value.items() if key != "cache_control"}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_unmarked(item) for item in value]
    return value


def _signature(thinking: str, prefix: str, before: str) -> str:
    own = _mac("thought", thinking)
    return f"{own}.{before}.{_mac('bound', own, prefix, before)}"


def sign_summary(text: str) -> str:
    """The signature of a compaction block."""
    return _mac("summary", text)


def _mac(*parts: str) -> str:
    text = "\n".join(parts).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, key=b"scripted", digest_size=12).digest()
    return base64.urlsafe_b64encode(digest).decode()
