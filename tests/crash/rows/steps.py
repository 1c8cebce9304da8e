"""The steps of a turn that are neither a model request nor a call: its start, its parking, its end."""

from __future__ import annotations

from tests.crash.row import DOCKER, SERVE, append, batch
from tests.crash.stories import turns

STEPS = [
    *append(
        "turn-start",
        "the turn's start, the delivered task, the first request's start",
        turns.ROUND,
        batch("session.status_running", "private.delivered", "span.model_request_start"),
        ("went on", "asked again"),
        typed=True,
    ),
    *append(
        "steer",
        "a message delivered in mid-turn, with the next request's start",
        turns.STEERED,
        batch("private.delivered", "span.model_request_start", without=("session.status_running",)),
        ("went on", "asked again"),
    ),
    *append(
        "failure",
        "a failed request, and that it is tried again",
        turns.FAILING,
        batch("session.error", "session.status_rescheduled"),
        ("asked again", "went on"),
    ),
    *append(
        "end",
        "the end of the turn",
        turns.ROUND,
        batch("session.status_idle", "session.usage"),
        ("went on", "went on"),
        **DOCKER,
        typed=True,
    ),
    *append(
        "park",
        "the turn parked, for two calls that somebody else answers",
        turns.ASKING,
        batch("session.status_idle"),
        ("went on", "went on"),
        again="serve",
        typed=True,
    ),
    *append(
        "park-again",
        "parked again, one of the two being answered",
        turns.ASKING,
        batch("session.status_idle"),
        ("started", "started"),
        nth=2,
        tools="bash",
        **SERVE,
    ),
    *append(
        "resume",
        "the parked turn's going on",
        turns.ASKING,
        batch("session.status_running", without=("span.model_request_start",)),
        ("started", "started"),
        tools="bash",
        **SERVE,
    ),
    *append(
        "interrupt-closing",
        "an interrupted command's result, the interrupt's delivery, the end of the turn",
        turns.INTERRUPTED,
        batch("private.delivered", "session.status_idle"),
        ("went on", "went on"),
        tools="bash",
        **SERVE,
        **DOCKER,
    ),
]
