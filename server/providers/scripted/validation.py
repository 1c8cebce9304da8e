"""What the Messages API refuses, in its own words.

Above: `model.py`. Below: nothing. One pure function, `refusal`, over a parsed request body; the text of the first
fault, or None. It checks what a client can get wrong about the conversation's form (order, pairing, ids, shapes,
cache marks, signatures), not what depends on the model chosen.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from server.providers.scripted import thoughts
from server.providers.scripted.usage import as_blocks

MAX_CACHE_MARKS = 4
SUMMARY_BETA = "compact-2026-09-04"
_TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
_TOOL_ID = re.compile(r"^[a-zA-Z0-9_-]+$")

_BODY_FIELDS = frozenset(
    (
        "max_tokens",
        "messages",
        "model",
        "cache_control",
        "container",
        "diagnostics",
        "inference_geo",
        "metadata",
        "output_config",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    )
)
_BETA_FIELDS = {"context_management": None, "mcp_servers": None, "fallbacks": None, "compaction": SUMMARY_BETA}
"""Each with the beta that it needs; None: any."""
_MARK = "cache_control"
_CALLED = ("tool_use_id", "content", "caller", _MARK)
_BLOCK_FIELDS: dict[str, frozenset[str]] = {
    "text": frozenset({"text", "citations", _MARK}),
    "image": frozenset({"source", "transformations", _MARK}),
    "document": frozenset({"source", "citations", "context", "title", _MARK}),
    "search_result": frozenset({"content", "source", "title", "citations", _MARK}),
    "thinking": frozenset({"thinking", "signature"}),
    "redacted_thinking": frozenset({"data"}),
    "tool_use": frozenset({"id", "name", "input", "caller", "toolset_name", _MARK}),
    "tool_result": frozenset({"tool_use_id", "content", "is_error", "toolset_name", _MARK}),
    "server_tool_use": frozenset({"id", "name", "input", "caller", _MARK}),
    "web_search_tool_result": frozenset(_CALLED),
    "web_fetch_tool_result": frozenset(_CALLED),
    "tool_reference": frozenset({"tool_name", _MARK}),
    "compaction": frozenset({"content", "encrypted_content", "signature", "tool_changes", _MARK}),
}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("source",),
    "document": ("source",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "server_tool_use": ("id", "name", "input"),
    "web_search_tool_result": ("tool_use_id", "content"),
    "web_fetch_tool_result": ("tool_use_id", "content"),
}
_IMAGE_MAGIC = {
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
_ASSISTANT_BLOCKS = frozenset(_BLOCK_FIELDS) - {"image", "document", "search_result", "tool_result", "tool_reference"}
_USER_BLOCKS = frozenset({"text", "image", "document", "search_result", "tool_result", "compaction"})


class _Refused(Exception):
    pass


def refusal(body: Any, *, betas: Collection[str] = ()) -> str | None:
    """The invalid_request_error message for a request body, or None. `betas` are those of its anthropic-beta header."""
    try:
        _body(body, betas)
        _tools(body.get("tools") or [])
        if "system" in body:
            _blocks("system", body["system"], frozenset({"text"}))
        _messages(body["messages"])
        _summaries(body, betas)
        _cache_marks(body)
        _need(not (fault := thoughts.fault(body)), str(fault))
    except _Refused as fault:
        return str(fault)
    return None


def _need(condition: object, message: str) -> None:
    if not condition:
        raise _Refused(message)


def _body(body: Any, betas: Collection[str]) -> None:
    _need(isinstance(body, Mapping), "The request body is not valid JSON: an object is needed.")
    for name in ("model", "max_tokens", "messages"):
        _need(name in body, f"{name}: Field required")
    known = _BODY_FIELDS | {name for name, needs in _BETA_FIELDS.items() if betas and needs in (None, *betas)}
    for name in body:
        _need(name in known, f"{name}: Extra inputs are not permitted")
    _need(isinstance(body["model"], str) and body["model"], "model: String should have at least 1 character")
    limit = body["max_tokens"]
    _need(type(limit) is int, "max_tokens: Input should be a valid integer")
    _need(limit >= 1, "max_tokens: Input should be greater than or equal to 1")
    messages = body["messages"]
    _need(isinstance(messages, Sequence) and not isinstance(messages, str), "messages: Input should be a valid list")
    _need(messages, "messages: at least one message is required")
    choice = body.get("tool_choice")
    _need(choice is None or body.get("tools"), "tool_choice may only be specified while providing tools.")


def _tools(tools: Sequence[Any]) -> None:
    names = set()
    for n, tool in enumerate(tools):
        _need(isinstance(tool, Mapping), f"tools.{n}: Input should be a valid dictionary")
        name = tool.get("name")
        if tool.get("type", "custom") in (None, "custom"):
            where = f"tools.{n}.custom"
            _need(isinstance(name, str), f"{where}.name: Field required")
            _need(_TOOL_NAME.match(str(name)), f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
            schema = tool.get("input_schema")
            _need(isinstance(schema, Mapping), f"{where}.input_schema: Field required")
            _need(
                isinstance(schema, Mapping) and schema.get("type") == "object",
                f"{where}.input_schema.type: Input should be 'object'",
            )
        _need(name not in names, "tools: Tool names must be unique.")
        names.add(name)


# --- messages --------------------------------------------------------------------------------------------------------


def _messages(messages: Sequence[Any]) -> None:
    last = len(messages) - 1
    for n, message in enumerate(messages):
        where = f"messages.{n}"
        _need(isinstance(message, Mapping), f"{where}: Input should be a valid dictionary")
        for name in message:
            _need(name in ("role", "content"), f"{where}.{name}: Extra inputs are not permitted")
        role, content = message.get("role"), message.get("content")
        _need(role in ("user", "assistant", "system"), f"{where}.role: Input should be 'user' or 'assistant'")
        _need(content is not None, f"{where}.content: Field required")
        _need(
            content or (n == last and role == "assistant"),
            f"{where}: all messages must have non-empty content except for the optional final assistant message",
        )
        allowed = _ASSISTANT_BLOCKS if role == "assistant" else _USER_BLOCKS
        _blocks(f"{where}.content", content, allowed)
    first = as_blocks(messages[0]["content"])
    summary = bool(first) and first[0]["type"] == "compaction"
    _need(messages[0]["role"] == "user" or summary, 'messages: first message must use the "user" role')
    _final(messages[-1])
    _pairing(messages)


def _summaries(body: Mapping[str, Any], betas: Collection[str]) -> None:
    """A request for a summary, and the signed block that an earlier one gave."""
    asked = body.get("compaction")
    if asked is not None:
        _need(
            isinstance(asked, Mapping) and asked.get("type") == "summarize",
            "compaction.type: Input should be 'summarize'",
        )
        for name in ("context_management", "stop_sequences", "tool_choice"):
            _need(not body.get(name), f"compaction: cannot be combined with `{name}`")
    places = [
        (n, m, block)
        for n, message in enumerate(body["messages"])
        for m, block in enumerate(as_blocks(message["content"]))
        if block["type"] == "compaction"
    ]
    for n, m, block in places:
        where = f"messages.{n}.content.{m}"
        _need(SUMMARY_BETA in betas, f"{where}: compaction blocks need the beta header {SUMMARY_BETA}")
        _need(n == m == 0, f"{where}: compaction_block_misplaced: the block must come first in `messages`")
        text = block.get("content")
        _need(isinstance(text, str) and text, f"{where}.compaction.content: must not be empty")
        signed = block.get("signature") == thoughts.sign_summary(str(text))
        _need(signed, f"{where}: Invalid `signature` in `compaction` block")


def _final(message: Mapping[str, Any]) -> None:
    blocks = as_blocks(message["content"])
    if message["role"] == "assistant" and blocks and blocks[-1]["type"] == "text":
        text = blocks[-1]["text"]
        _need(text == text.rstrip(), "messages: final assistant content cannot end with trailing whitespace")


def _turns(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str, list[Mapping[str, Any]]]]:
    """Messages with consecutive ones of one role merged, as the API merges them: (first index, role, blocks)."""
    at, role, blocks = 0, "", list[Mapping[str, Any]]()
    for n, message in enumerate(messages):
        if message["role"] != role:
            if role:
                yield at, role, blocks
            at, role, blocks = n, message["role"], []
        blocks.extend(as_blocks(message["content"]))
    yield at, role, blocks


def _pairing(messages: Sequence[Mapping[str, Any]]) -> None:
    """Every tool_use is answered at the start of the next user turn, once; nothing else is answered."""
    seen: set[str] = set()
    asked_at, asked = 0, list[str]()
    for at, role, blocks in _turns(messages):
        if asked or role == "user":
            _answers(asked_at, asked, at, blocks if role == "user" else [])
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"] if role == "assistant" else []
        asked_at = at
        for name in asked:
            _need(name not in seen, "messages: `tool_use` ids must be unique")
            seen.add(name)
    _unanswered(asked_at, asked)


def _unanswered(at: int, missing: Iterable[str]) -> None:
    missing = list(missing)
    _need(
        not missing,
        f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message.",
    )


def _answers(asked_at: int, asked: Sequence[str], at: int, blocks: Sequence[Mapping[str, Any]]) -> None:
    leading = 0
    while leading < len(blocks) and blocks[leading]["type"] == "tool_result":
        leading += 1
    given = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    for n, name in enumerate(given):
        _need(
            name in asked,
            f"messages.{at}.content.{n}: unexpected `tool_use_id` found in `tool_result` blocks: {name}. Each "
            "`tool_result` block must have a corresponding `tool_use` block in the previous message.",
        )
        _need(
            name not in given[:n],
            f"messages.{at}.content.{n}: each tool_use must have a single result. Found multiple `tool_result` "
            f"blocks with id: {name}",
        )
    _unanswered(asked_at, [name for name in asked if name not in given[:leading]])


# --- blocks ----------------------------------------------------------------------------------------------------------


def _blocks(where: str, content: Any, allowed: frozenset[str]) -> None:
    if isinstance(content, str):
        return
    _need(isinstance(content, Sequence), f"{where}: Input should be a valid list")
    for n, block in enumerate(content):
        _block(f"{where}.{n}", block, allowed)


def _block(where: str, block: Any, allowed: frozenset[str]) -> None:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind not in allowed:
        tags = ", ".join(f"'{name}'" for name in sorted(allowed))
        raise _Refused(
            f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags: {tags}"
        )
    where = f"{where}.{kind}"
    for name in _REQUIRED.get(str(kind), ()):
        _need(name in block, f"{where}.{name}: Field required")
    extra = block.keys() - _BLOCK_FIELDS[str(kind)]
    extra.discard("type")
    if extra:
        raise _Refused(f"{where}.{min(extra)}: Extra inputs are not permitted")
    check = _CHECKS.get(str(kind))
    if check is not None:
        check(where, block)


def _text(where: str, block: Mapping[str, Any]) -> None:
    text = block["text"]
    _need(isinstance(text, str), f"{where}.text: Input should be a valid string")
    _need(text, "messages: text content blocks must be non-empty")
    _need(text.strip(), "messages: text content blocks must contain non-whitespace text")


def _tool_use(where: str, block: Mapping[str, Any]) -> None:
    _need(_TOOL_ID.match(str(block["id"])), f"{where}.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    _need(
        isinstance(block["name"], str) and 0 < len(block["name"]) <= 200,
        f"{where}.name: String should have at least 1 character and at most 200",
    )
    _need(isinstance(block["input"], Mapping), f"{where}.input: Input should be a valid dictionary")


def _tool_result(where: str, block: Mapping[str, Any]) -> None:
    content = block.get("content") or ()
    failed = block.get("is_error", False)
    _need(isinstance(failed, bool), f"{where}.is_error: Input should be a valid boolean")
    _need(content or not failed, f"{where}: content cannot be empty if `is_error` is true")
    _blocks(f"{where}.content", content, frozenset({"text", "image", "document", "search_result", "tool_reference"}))
    plain = isinstance(content, str) or all(part["type"] == "text" for part in content)
    _need(plain or not failed, f'{where}: all content must be type "text" if `is_error` is true')


def _image(where: str, block: Mapping[str, Any]) -> None:
    source = _source(where, block, ("base64", "url", "file"))
    if source["type"] != "base64":
        return
    kinds = ", ".join(f"'{name}'" for name in _IMAGE_MAGIC)
    kind = source.get("media_type")
    _need(kind in _IMAGE_MAGIC, f"{where}.source.base64.media_type: Input should be {kinds}")
    data = _base64(f"{where}.source.base64", source.get("data"))
    fits = data.startswith(_IMAGE_MAGIC[str(kind)])
    _need(fits, f"{where}.source.base64: The image does not appear to be of the provided media type {kind}")


def _document(where: str, block: Mapping[str, Any]) -> None:
    source = _source(where, block, ("base64", "text", "content", "url", "file"))
    if source["type"] == "base64":
        kind = source.get("media_type")
        _need(kind == "application/pdf", f"{where}.source.base64.media_type: Input should be 'application/pdf'")
        data = _base64(f"{where}.source.base64", source.get("data"))
        _need(data.startswith(b"%PDF-"), f"{where}.source.base64: The PDF specified was not valid.")
    if source["type"] == "text":
        kind = source.get("media_type")
        _need(kind == "text/plain", f"{where}.source.text.media_type: Input should be 'text/plain'")
        _need(isinstance(source.get("data"), str), f"{where}.source.text.data: Field required")


def _source(where: str, block: Mapping[str, Any], kinds: Sequence[str]) -> Mapping[str, Any]:
    source = block["source"]
    kind = source.get("type") if isinstance(source, Mapping) else None
    expected = ", ".join(f"'{name}'" for name in kinds)
    _need(kind in kinds, f"{where}.source: Input tag '{kind}' does not match any of the expected tags: {expected}")
    return dict(source)


def _base64(where: str, data: Any) -> bytes:
    _need(isinstance(data, str) and data, f"{where}.data: Field required")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _Refused(f"{where}: invalid base64 data") from None


_CHECKS = {
    "text": _text,
    "tool_use": _tool_use,
    "server_tool_use": _tool_use,
    "tool_result": _tool_result,
    "image": _image,
    "document": _document,
}


# --- cache marks -----------------------------------------------------------------------------------------------------


def _cache_marks(body: Mapping[str, Any]) -> None:
    ttls = []
    for where, block in _marked(body):
        mark = block[_MARK]
        _need(isinstance(mark, Mapping), f"{where}.cache_control: Input should be a valid dictionary")
        _need(mark.get("type") == "ephemeral", f"{where}.cache_control.type: Input should be 'ephemeral'")
        ttl = mark.get("ttl", "5m")
        _need(ttl in ("5m", "1h"), f"{where}.cache_control.ttl: Input should be '5m' or '1h'")
        _need(
            not (ttl == "1h" and "5m" in ttls),
            f"{where}.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control "
            "block. Note that blocks are processed in the following order: `tools`, `system`, `messages`.",
        )
        ttls.append(ttl)
    _need(
        len(ttls) <= MAX_CACHE_MARKS,
        f"A maximum of {MAX_CACHE_MARKS} blocks with cache_control may be provided. Found {len(ttls)}.",
    )


def _marked(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    places: list[tuple[str, Any]] = [("tools", body.get("tools") or ()), ("system", body.get("system") or ())]
    places += [(f"messages.{n}.content", message["content"]) for n, message in enumerate(body["messages"])]
    for where, content in places:
        for n, block in enumerate(as_blocks(content)):
            if block.get(_MARK) is not None:
                yield f"{where}.{n}", block
            inner = block.get("content") if block.get("type") == "tool_result" else None
            for m, part in enumerate(inner or ()):
                if isinstance(part, Mapping) and part.get(_MARK) is not None:
                    yield f"{where}.{n}.content.{m}", part
