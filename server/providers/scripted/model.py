"""The scripted model: from a request body to an answer or an error, with the real rules of form and accounting.

Above: `provider.py` (in this process) and the tests' HTTP server. Below: `validation.py`, `script.py`,
`demonstration.py`, `usage.py`. It knows the Messages API's bodies and events as plain dictionaries; it does no waiting
and no I/O: how an answer is to come (`wait`, `stream`, `cut`, `hang`) is data in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from server.providers import ModelUsage
from server.providers.scripted.demonstration import next_step
from server.providers.scripted.script import Place, ScriptError, Step, fill, place, summary
from server.providers.scripted.thoughts import sign, sign_summary
from server.providers.scripted.usage import (
    BYTES_PER_TOKEN,
    PromptCache,
    as_blocks,
    canonical,
    count_tokens,
    prompt_tokens,
)
from server.providers.scripted.validation import refusal
from server.providers.summary import SUMMARIZE

Event = dict[str, Any]
WORDS_PER_DELTA = 8
_PORTION = re.compile(rf"\s*(?:\S+\s*){{1,{WORDS_PER_DELTA}}}|\s+")
_MAX_COUNTERS = 10_000
"""Bounds the memory that `times` and `cut` may take."""
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Failure:
    """An error answer: HTTP status, error type and message, and the seconds of its retry-after header."""

    status: int
    type: str
    message: str
    retry_after: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        error = {"type": self.type, "message": self.message}
        return {"type": "error", "error": error, "request_id": "req_scripted"}


@dataclass(frozen=True)
class Answer:
    """A whole answer, and the manner in which it is to come."""

    id: str
    model: str
    content: Sequence[Mapping[str, Any]]
    stop_reason: str
    usage: ModelUsage
    raw_inputs: Mapping[int, str] = field(default_factory=dict)
    wait: float = 0.0
    stream: float = 0.0
    hang: bool = False
    cut: int | None = None
    error: Failure | None = None
    error_after: int = 0

    def events(self) -> Iterator[Event]:
        """The events of the wire, in order, from message_start to message_stop."""
        usage = self._wire_usage(replace(self.usage, output_tokens=1))  # nobody knows yet how long it will be
        yield {
            "type": "message_start",
            "message": {**self.message(), "content": [], "stop_reason": None, "usage": usage},
        }
        yield {"type": "ping"}
        for index, block in enumerate(self.content):
            yield from _block_events(index, block, self.raw_inputs.get(index))
        delta = {"stop_reason": self.stop_reason, "stop_sequence": None, "stop_details": _stop_details(self)}
        counts = {name: count for name, count in self._wire_usage(self.usage).items() if name != "cache_creation"}
        yield {"type": "message_delta", "delta": delta, "usage": counts}
        yield {"type": "message_stop"}

    def message(self) -> dict[str, Any]:
        """The answer as one Message object."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": list(self.content),
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": self._wire_usage(self.usage),
        }

    def _wire_usage(self, usage: ModelUsage) -> dict[str, Any]:
        """What a summary took stands beside the request's own tokens, of which there are none."""
        if self.stop_reason != "compaction":
            return wire_usage(usage)
        return {**wire_usage(ModelUsage()), "iterations": [{"type": "compaction", **wire_usage(usage)}]}


class ScriptedModel:
    """Answers requests. Stateless but for the prompt cache and the counters of `fail` and `cut` (see `script.py`).

    `clock` gives the seconds by which cache entries expire, `window` the tokens that a prompt may have.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, window: int | None = None) -> None:
        self.window = window
        self._cache = PromptCache(clock)
        self._counts: Counter[bytes] = Counter()

    def answer(self, body: Any, *, betas: Collection[str] = ()) -> Answer | Failure:
        """Answer a request body, or refuse it as the API would. `betas` are those of its anthropic-beta header."""
        fault = refusal(body, betas=betas) or self._too_long(body)
        if fault is not None:
            return Failure(400, "invalid_request_error", fault)
        messages = body["messages"]
        offered = [str(tool.get("name", "")) for tool in body.get("tools") or ()]
        try:
            here = place(messages)
            step = summary(messages) if _wants_summary(body) else here.step
        except ScriptError as error:
            return Failure(400, "invalid_request_error", str(error))
        if here.script is None and not _wants_summary(body):
            step = next_step(messages, offered)
        seed = _seed(messages, here)
        failure, after = self._failure(step, seed)
        if failure is not None and after is None:
            return failure
        content, raw_inputs = _content(step, body, offered, seed)
        content, cut_short = _held_to(content, body["max_tokens"])
        calls = any(block["type"] == "tool_use" for block in content)
        return Answer(
            id=f"msg_{_name(seed, 'message')}",
            model=body["model"],
            content=content,
            stop_reason="max_tokens" if cut_short else step.get("stop") or _stop_reason(body, calls=calls),
            usage=self._cache.account(body, sum(count_tokens(block) for block in content) or 1),
            raw_inputs=raw_inputs,
            wait=float(step.get("wait", 0)),
            stream=float(step.get("stream", 0)),
            hang=bool(step.get("hang", False)),
            cut=step["cut"] if "cut" in step and self._count(b"cut" + seed) <= 1 else None,
            error=failure,
            error_after=after or 0,
        )

    def _too_long(self, body: Mapping[str, Any]) -> str | None:
        if self.window is None or (tokens := prompt_tokens(body)) <= self.window:
            return None
        return f"prompt is too long: {tokens} tokens > {self.window} maximum"

    def _failure(self, step: Step, seed: bytes) -> tuple[Failure | None, int | None]:
        fail = step.get("fail")
        if fail is None or self._count(b"fail" + seed) > fail.get("times", 1):
            return None, None
        status = fail["status"]
        kind = fail.get("type") or ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        message = fail.get("message") or kind.removesuffix("_error").replace("_", " ").capitalize()
        return Failure(status, kind, message, fail.get("retry_after")), fail.get("after")

    def _count(self, key: bytes) -> int:
        if len(self._counts) >= _MAX_COUNTERS:
            self._counts.clear()
        self._counts[key] += 1
        return self._counts[key]


# --- content ---------------------------------------------------------------------------------------------------------


def _seed(messages: Sequence[Mapping[str, Any]], here: Place) -> bytes:
    """Names the state of a conversation: equal states give equal ids, on any machine."""
    text = canonical([len(messages), here.position, messages[0], messages[-1]])
    return hashlib.blake2b(text, digest_size=16).digest()


def _name(seed: bytes, what: str) -> str:
    digest = hashlib.blake2b(seed + what.encode(), digest_size=15).digest()
    return base64.b32encode(digest).decode().lower()


def _wants_summary(body: Mapping[str, Any]) -> bool:
    """By the API's own parameter, or by the instruction at its end."""
    last = as_blocks(body["messages"][-1]["content"])
    return bool(body.get("compaction")) or any(block.get("text") == SUMMARIZE for block in last)


def _stop_reason(body: Mapping[str, Any], *, calls: bool) -> str:
    if body.get("compaction"):
        return "compaction"
    return "tool_use" if calls else "end_turn"


def _content(
    step: Step, body: Mapping[str, Any], offered: Sequence[str], seed: bytes
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The blocks of an answer, and the raw text of inputs that are to be malformed, by index."""
    messages = body["messages"]
    if body.get("compaction"):
        text = fill(str(step["say"]), messages)
        return [{"type": "compaction", "content": text, "signature": sign_summary(text)}], {}
    content: list[dict[str, Any]] = []
    if step.get("think"):
        text = fill(str(step["think"]), messages)
        content.append({"type": "thinking", "thinking": text, "signature": sign(text, body)})
    calls = list(step.get("call", ()))
    if "garbled" in step:
        calls.append({"tool": step.get("tool", "bash"), "garbled": step["garbled"]})
    missing = [call["tool"] for call in calls if call["tool"] not in offered and not call.get("force")]
    said = [fill(str(step["say"]), messages)] if step.get("say") else []
    said += [f"The tool `{name}` is not offered; offered: {', '.join(offered) or 'none'}." for name in missing]
    if "".join(said).strip():
        content.append({"type": "text", "text": "\n".join(said)})
    content.extend(step.get("blocks", ()))
    raw_inputs = {}
    for n, call in enumerate(calls):
        if call["tool"] in missing:
            continue
        if "garbled" in call:
            raw_inputs[len(content)] = str(call["garbled"])
        name = f"toolu_{_name(seed, str(n))}"
        content.append({"type": "tool_use", "id": name, "name": call["tool"], "input": call.get("input", {})})
    return content, raw_inputs


def _held_to(content: list[dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], bool]:
    """The blocks as an answer of at most so many tokens has them, and whether some are missing.

    The block that goes beyond is cut where it is text, and left out where it is not; what follows is left out.
    """
    room = most
    for index, block in enumerate(content):
        tokens = count_tokens(block)
        if tokens > room:
            keep = len(block.get("text", "")) - (tokens - room + 1) * BYTES_PER_TOKEN
            said = block["text"][: max(0, keep)] if block["type"] == "text" else ""
            return [*content[:index], *([{**block, "text": said}] if said.strip() else [])], True
        room -= tokens
    return content, False


def _stop_details(answer: Answer) -> dict[str, Any] | None:
    if answer.stop_reason != "refusal":
        return None
    return {"type": "refusal", "category": None, "explanation": "The script says so."}


def wire_usage(usage: ModelUsage) -> dict[str, Any]:
    """ModelUsage as the wire's usage object."""
    five, hour = usage.cache_creation_5m_input_tokens, usage.cache_creation_1h_input_tokens
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": five + hour,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "output_tokens": usage.output_tokens,
    }


# --- events ----------------------------------------------------------------------------------------------------------


def _block_events(index: int, block: Mapping[str, Any], raw_input: str | None) -> Iterator[Event]:
    start, deltas = _deltas(block, raw_input)
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _deltas(block: Mapping[str, Any], raw_input: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a block starts as, and the deltas that complete it. Results and unknown blocks come whole."""
    kind = block["type"]
    if kind == "text":
        cited = [{"type": "citations_delta", "citation": citation} for citation in block.get("citations") or ()]
        texts = [{"type": "text_delta", "text": text} for text in portions(block["text"])]
        return {**block, "text": "", **({"citations": []} if cited else {})}, texts + cited
    if kind == "thinking":
        thoughts = [{"type": "thinking_delta", "thinking": text} for text in portions(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*thoughts, signed]
    if kind in ("tool_use", "server_tool_use"):
        text = raw_input if raw_input is not None else json.dumps(block["input"], ensure_ascii=False)
        half = len(text) // 2
        parts = ("", text[:half], text[half:])
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return dict(block), []


def portions(text: str) -> list[str]:
    """The text in portions of WORDS_PER_DELTA words, whitespace kept: joined, they are the text."""
    return _PORTION.findall(text)
