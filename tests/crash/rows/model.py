"""The model's stream, killed at its events, and the closing of a request that was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.providers import BlockStarted, ModelResponse, TextDelta
from tests.crash.row import APPEND, INSERT, Outcome, Point, batch, chunk
from tests.crash.site import Site
from tests.crash.stories import turns

_STREAM = "server.providers.anthropic:AnthropicProvider.stream"
_ASK = "server.providers.anthropic:AnthropicProvider._ask"
_CLOSING = batch("span.model_request_end", without=("session.error", "agent.message", "agent.tool_use"))
_CLOSINGS: tuple[tuple[str, str, Site, Outcome], ...] = (
    ("before", "before the append", Site(APPEND, "before", _CLOSING), "asked again"),
    ("within", "rows written, not committed", Site(INSERT, "after", _CLOSING), "asked again"),
    ("after", "committed", Site(APPEND, "after", _CLOSING), "went on"),
)
_BEGUN = Site(_STREAM, "item", chunk(TextDelta))
_TALK: Mapping[str, Any] = {"story": turns.TALK, "outcome": "asked again"}

MODEL = [
    Point("stream-unsent", "a model request before it is sent", Site(_ASK, "before"), **_TALK, again="mcp", typed=True),
    Point("stream-begun", "its head is there, no event yet", Site(_ASK, "after"), **_TALK),
    Point("stream-block", "its first block begins", Site(_STREAM, "item", chunk(BlockStarted)), **_TALK),
    Point("stream-text", "its first words", _BEGUN, **_TALK),
    Point("stream-words", "its last words", Site(_STREAM, "item", chunk(TextDelta), 5), **_TALK),
    Point("stream-call", "its tool call begins", Site(_STREAM, "item", chunk(BlockStarted, type="tool_use")), **_TALK),
    Point("stream-whole", "all of it is there", Site(_STREAM, "item", chunk(ModelResponse)), **_TALK),
    *(
        Point(
            f"closing-{when}",
            f"a lost request is closed after a start: {says}",
            _BEGUN,
            turns.TALK,
            outcome,
            second=second,
        )
        for when, says, second, outcome in _CLOSINGS
    ),
]
