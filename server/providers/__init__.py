"""The boundary to the model: one verb, `stream`.

Above: `server.sessions.loop`, which decides about retries and stores what comes. Below: `anthropic.py` (the SDK) and
`scripted/` (deterministic, for demo and tests), which both read the wire's events through `accumulate.py`. A provider
keeps no state between requests and never retries.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

Block = Mapping[str, Any]
"""A content block exactly as the Messages API has it, private fields (thinking signatures) included."""


class Said(dict[str, Any]):
    """A message, a tool or a part of the system prompt that will not change any more. Its JSON is made once: most of a
    long conversation is sent again with every request."""

    @cached_property
    def json(self) -> str:
        """As it is sent."""
        return encode(self)


encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""JSON as requests hold it."""


@dataclass(frozen=True)
class ModelRequest:
    """One request, complete. `tools`, `system` and the head of `messages` are byte-stable from turn to turn, and
    carry the cache marks already; a provider adds nothing to them."""

    model: str
    system: Sequence[Block]
    tools: Sequence[Block]
    messages: Sequence[Mapping[str, Any]]
    """What is `Said` here and above is encoded once."""
    max_tokens: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the Messages API (thinking, output_config, metadata), passed on as they are."""


@dataclass(frozen=True)
class BlockStarted:
    """A content block begins: its index and type (`text`, `thinking`, `tool_use`, ...)."""

    index: int
    type: str


@dataclass(frozen=True)
class TextDelta:
    """More text of the text block at `index`."""

    index: int
    text: str


@dataclass(frozen=True)
class ModelUsage:
    """Tokens of one request, and the provider's own tool uses. `input_tokens` are the uncached ones only."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_5m_input_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0
    web_search_requests: int = 0
    web_fetch_requests: int = 0


@dataclass(frozen=True)
class UsageSoFar:
    """What the provider has counted of an answer that is still coming: what is owed if it breaks off here."""

    usage: ModelUsage
    model: str


@dataclass(frozen=True)
class ModelResponse:
    """The whole answer; always the last chunk of a stream that did not raise.

    `content` is the assistant's content array to be sent back verbatim. `stop_reason` is the Messages API's own:
    end_turn, tool_use, max_tokens, stop_sequence, pause_turn, refusal, model_context_window_exceeded.
    """

    content: Sequence[Block]
    stop_reason: str
    usage: ModelUsage
    model: str
    stop_details: Mapping[str, Any] | None = None
    invalid_tool_inputs: Mapping[int, str] = field(default_factory=dict)
    """What the model wrote as the input of the tool_use block at that index of `content`, where it was no JSON object.
    The block itself has `input: {}`, so that it can be sent back; the call is to be answered with an error result."""


Chunk = BlockStarted | TextDelta | UsageSoFar | ModelResponse


class ModelProvider(Protocol):
    """A source of model answers."""

    name: str

    async def warm_up(self) -> None:
        """Do what the first request would otherwise wait for. Raises SkiffError where a request would fail too."""

    def stream(self, request: ModelRequest) -> AsyncIterator[Chunk]:
        """Ask, and yield the answer as it comes; the last chunk is the ModelResponse.

        Raises a `server.errors.ModelError` leaf; a stream that ends early raises ModelUnavailable. Closing the
        iterator aborts the request at once.
        """

    async def close(self) -> None:
        """Give back connections."""
