"""Calls and their results on their way into the log."""

from __future__ import annotations

from tests.crash.row import DOCKER, append, batch, only
from tests.crash.stories import turns

CALLS = [
    *append(
        "answer",
        "an answer with a call, no sandbox being there yet",
        turns.ROUND,
        batch("agent.tool_use", without=("private.dispatched",)),
        ("asked again", "started"),
        tools="bash",
        **DOCKER,
        typed=True,
    ),
    *append(
        "dispatch",
        "the dispatch of a call that waited for its sandbox",
        turns.ROUND,
        only("private.dispatched"),
        ("started", "started"),
        tools="bash",
        **DOCKER,
    ),
    *append(
        "answer-dispatched",
        "an answer with a call that is dispatched with it",
        turns.ROUND,
        batch("agent.tool_use", "private.dispatched"),
        ("asked again", "started"),
        tools="edit",
        **DOCKER,
    ),
    *append(
        "result",
        "the first result of calls side by side",
        turns.ROUND,
        only("agent.tool_result"),
        ("kept", "kept"),
        tools="bash, edit, bash",
        **DOCKER,
    ),
    *append(
        "result-and-request",
        "the last result, with the next request's start",
        turns.ROUND,
        batch("agent.tool_result", "span.model_request_start"),
        ("kept", "asked again"),
        tools="bash",
        **DOCKER,
    ),
]
