"""What a model's answer means for the log: `events_of(response) -> events`, pure.

One answer is appended in one transaction: the public events of its blocks, and span.model_request_end with the raw
content beside it. Until then nothing of it is in the log, so a lost or cut stream leaves nothing to undo.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from server import events
from server.events import NewEvent, Permission
from server.providers import Block, ModelResponse, ModelUsage

CUT_OFF = (
    "Your answer reached its length limit before this call was complete, so it was not run. Make the call again, in"
    " smaller pieces if its input is long."
)
INVALID = "The input of this call was not valid JSON, so it was not run. Make the call again with valid input."


@dataclass(frozen=True)
class Answer:
    """The events of one answer."""

    events: list[NewEvent]
    calls: list[NewEvent]
    """Those that are calls which somebody has to answer: the provider's own tools are answered already."""
    runnable: list[NewEvent]
    """Those calls that may run at once."""


@dataclass
class _Reading:
    thread: str
    permission: Callable[[str], Permission]
    custom: Collection[str]
    ids: Callable[[int], str]
    notes: Mapping[int, str]
    out: list[NewEvent]
    calls: list[NewEvent]
    runnable: list[NewEvent]
    model_ids: dict[str, str]
    server_calls: dict[str, str]


def read_answer(
    thread: str,
    start_id: str,
    response: ModelResponse,
    *,
    permission: Callable[[str], Permission],
    custom: Collection[str] = (),
    event_id: Callable[[int], str],
    cost: Decimal | None,
    earlier: Mapping[str, str] | None = None,
) -> Answer:
    """Turn an answer into events.

    `permission(name)` is the session's policy on a tool, `deny` for one that it does not have; `custom` are the names
    of the client's own tools. `event_id(index)` gives the id under which deltas of that block were
    published, or a new one; `cost` is the request's list price, None when the model has none;
    `earlier` are the provider's own calls that a paused answer left open (the model's id to the event's).
    """
    content = _keepable(response)
    notes = _notes(content, response)
    reading = _Reading(thread, permission, custom, event_id, notes, [], [], [], {}, dict(earlier or {}))
    for index, block in content:
        step = _READERS.get(block["type"], _ignore)
        step(reading, index, block)
    raw = {
        "content": [block for _, block in content],
        "stop_reason": response.stop_reason,
        "stop_details": dict(response.stop_details) if response.stop_details else None,
        "calls": reading.model_ids,
        "server_calls": reading.server_calls if response.stop_reason == "pause_turn" else {},
        "usage": dict(vars(response.usage)),
        "cost_usd": None if cost is None else str(cost),
        "model": response.model,
    }
    end = events.model_request_end(thread, start_id, wire_usage(response.usage), is_error=False, raw=raw)
    return Answer([*reading.out, end], reading.calls, reading.runnable)


def wire_usage(usage: ModelUsage) -> dict[str, Any]:
    """Usage of one request as span.model_request_end shows it."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_creation_5m_input_tokens + usage.cache_creation_1h_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "speed": "standard",
    }


def _keepable(response: ModelResponse) -> list[tuple[int, Block]]:
    """The blocks that may be sent back: the API refuses blank texts, and calls of a refused answer must not run."""
    kept = []
    for index, block in enumerate(response.content):
        empty = block["type"] == "text" and not (block.get("text") or "").strip()
        refused = response.stop_reason == "refusal" and block["type"] == "tool_use"
        if not empty and not refused:
            kept.append((index, block))
    return kept


def _notes(content: list[tuple[int, Block]], response: ModelResponse) -> dict[int, str]:
    """The calls that must not run, with the reason that answers them."""
    notes = dict.fromkeys(response.invalid_tool_inputs, INVALID)
    if response.stop_reason == "max_tokens" and content and content[-1][1]["type"] == "tool_use":
        notes[content[-1][0]] = CUT_OFF
    return notes


def _text(reading: _Reading, index: int, block: Block) -> None:
    reading.out.append(events.agent_message(reading.thread, block["text"], reading.ids(index)))


def _thinking(reading: _Reading, index: int, block: Block) -> None:
    reading.out.append(events.agent_thinking(reading.thread, reading.ids(index)))


def _tool_use(reading: _Reading, index: int, block: Block) -> None:
    arguments = block["input"] if isinstance(block.get("input"), Mapping) else {}
    note, name = reading.notes.get(index), block["name"]
    private = {"note": note} if note else None
    if name in reading.custom:
        call = events.custom_tool_use(reading.thread, name, arguments, private=private)
    else:
        permission = "deny" if note else reading.permission(name)
        call = events.tool_use(reading.thread, name, arguments, permission=permission, private=private)
        if permission == "allow":
            reading.runnable.append(call)
    reading.out.append(call)
    reading.calls.append(call)
    reading.model_ids[call.id] = block["id"]


def _server_tool_use(reading: _Reading, index: int, block: Block) -> None:
    call = events.tool_use(
        reading.thread, block["name"], block.get("input") or {}, permission="allow", private={"server_side": True}
    )
    reading.out.append(call)
    reading.server_calls[block["id"]] = call.id


def _server_tool_result(reading: _Reading, index: int, block: Block) -> None:
    call_id = reading.server_calls.pop(block.get("tool_use_id", ""), None)
    if call_id is None:
        return  # a result without a call: the model gets it back as it came, there is nothing to show it under
    content = block.get("content")
    failed = isinstance(content, Mapping) and "error_code" in content
    reading.out.append(events.tool_result(reading.thread, call_id, [events.text(_plain(content))], is_error=failed))


def _plain(content: Any) -> str:
    """A provider's tool result as text for people; the model gets the original."""
    if isinstance(content, Mapping) and "error_code" in content:
        return str(content["error_code"])
    if isinstance(content, list):
        content = [
            {key: item[key] for key in ("title", "url", "page_age") if item.get(key)}
            for item in content
            if isinstance(item, Mapping)
        ]
    return json.dumps(content, ensure_ascii=False)[:100_000] or "(no result)"


def _ignore(reading: _Reading, index: int, block: Block) -> None:
    """Blocks without a public event (compaction, fallback marks): they stay in the raw content."""


_READERS: Mapping[str, Callable[[_Reading, int, Block], None]] = {
    "text": _text,
    "thinking": _thinking,
    "redacted_thinking": _thinking,
    "tool_use": _tool_use,
    "server_tool_use": _server_tool_use,
    "web_search_tool_result": _server_tool_result,
    "web_fetch_tool_result": _server_tool_result,
}
