"""Folds the events of a Messages API stream into chunks and one whole answer.

Above: the providers, which feed it parsed events. Below: plain dictionaries. It does not know where events come from,
and it keeps every field that it does not know, so that content can be sent back verbatim.

A content block is what `content_block_start` gave, plus its deltas:

    text_delta, thinking_delta   joined strings (kept as portions until the block stops: no quadratic joining)
    input_json_delta             parsed when the block stops
    citations_delta              appended to `citations`
    any other                    each field of the delta but `type` replaces the block's (signature, compaction, ...)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from server.providers import BlockStarted, Chunk, ModelResponse, ModelUsage, TextDelta, UsageSoFar

_CALLS = ("tool_use", "server_tool_use")
_JOINED = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class Accumulator:
    """One answer in the making. `feed` each event in order; `finished` once message_stop has come."""

    def __init__(self) -> None:
        self.finished = False
        self._blocks: dict[int, dict[str, Any]] = {}
        self._portions: dict[int, list[str]] = {}
        self._fields: dict[int, str] = {}
        self._invalid: dict[int, str] = {}
        self._usage: dict[str, Any] = {}
        self._message: dict[str, Any] = {}

    def feed(self, event: Mapping[str, Any]) -> Chunk | None:
        """Take one event; give what a follower should see of it, or None. Unknown events are passed over.

        Raises KeyError, TypeError or ValueError for an event that breaks the protocol.
        """
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event["index"], event["delta"])
        if kind == "content_block_start":
            index, block = event["index"], dict(event["content_block"])
            if block["type"] in _CALLS and not (isinstance(block["id"], str) and isinstance(block["name"], str)):
                raise TypeError("a call without a name or an id")
            self._blocks[index] = block
            return BlockStarted(index, block["type"])
        if kind == "content_block_stop":
            self._stop(event["index"])
        elif kind == "message_start":
            self._message = dict(event["message"])
            return self._count(self._message.get("usage"))
        elif kind == "message_delta":
            self._message.update({key: value for key, value in event["delta"].items() if value is not None})
            return self._count(event.get("usage"))
        elif kind == "message_stop":
            self.finished = True
        return None

    def response(self) -> ModelResponse:
        """The whole answer, its blocks in the order of their indices.

        Raises ValueError when the stream ended without a stop reason.
        """
        stop_reason = self._message.get("stop_reason")
        if not self.finished or not isinstance(stop_reason, str):
            raise ValueError("the stream ended before the answer was whole")
        for index in tuple(self._portions):
            self._stop(index)
        order = sorted(self._blocks)
        return ModelResponse(
            content=tuple(self._blocks[index] for index in order),
            stop_reason=stop_reason,
            usage=parse_usage(self._usage),
            model=str(self._message.get("model", "")),
            stop_details=self._message.get("stop_details"),
            invalid_tool_inputs={order.index(index): raw for index, raw in self._invalid.items()},
        )

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Chunk | None:
        kind = delta["type"]
        block = self._blocks[index]
        field = _JOINED.get(kind)
        if field is not None:
            text = delta[field]
            self._fields[index] = field
            self._portions.setdefault(index, []).append(text)
            return TextDelta(index, text) if kind == "text_delta" and text else None
        if kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        else:
            block.update({key: value for key, value in delta.items() if key != "type"})
        return None

    def _stop(self, index: int) -> None:
        portions = self._portions.pop(index, None)
        if portions is None:
            return
        block, field, joined = self._blocks[index], self._fields[index], "".join(portions)
        if field != "partial_json":
            block[field] = block.get(field, "") + joined
        elif joined.strip():
            value = _parse_object(joined)
            block["input"] = value or {}
            if value is None:
                self._invalid[index] = joined

    def _count(self, usage: Mapping[str, Any] | None) -> UsageSoFar:
        """Counts are cumulative totals; a null or missing one leaves what message_start said."""
        if usage:
            self._usage.update({key: value for key, value in usage.items() if value is not None})
        return UsageSoFar(parse_usage(self._usage), str(self._message.get("model", "")))


def _parse_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(word: str) -> float:
    """NaN and Infinity are Python's, not JSON's: the API would refuse every request that sends them back."""
    raise ValueError(word)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def parse_usage(usage: Mapping[str, Any]) -> ModelUsage:
    """The wire's usage object as ModelUsage. Cache writes without a split by lifetime count as 5-minute ones.

    What a summary of the provider's own took stands beside the request's tokens, and is added to them.
    """
    found = _counted(usage)
    for iteration in usage.get("iterations") or ():
        if iteration.get("type") == "compaction":
            more = vars(_counted(iteration))
            found = ModelUsage(**{name: count + more[name] for name, count in vars(found).items()})
    return found


def _counted(usage: Mapping[str, Any]) -> ModelUsage:
    split = usage.get("cache_creation") or {}
    one_hour = split.get("ephemeral_1h_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    tools = usage.get("server_tool_use") or {}
    return ModelUsage(
        input_tokens=usage.get("input_tokens") or 0,
        output_tokens=usage.get("output_tokens") or 0,
        cache_read_input_tokens=usage.get("cache_read_input_tokens") or 0,
        cache_creation_5m_input_tokens=max(written - one_hour, split.get("ephemeral_5m_input_tokens") or 0),
        cache_creation_1h_input_tokens=one_hour,
        web_search_requests=tools.get("web_search_requests") or 0,
        web_fetch_requests=tools.get("web_fetch_requests") or 0,
    )
