"""What a client sends, killed before it is stored, in the middle of it, and before the client hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.crash.row import DOCKER, SERVE, Point, append, only
from tests.crash.site import Site
from tests.crash.stories import turns

_CREATE = "server.store.sessions:SessionTable.create_session"
_TASK: Mapping[str, Any] = {"story": turns.TASK, "outcome": "sent again", **SERVE}

INPUTS = [
    Point(
        "task-before",
        "a session with its first task: before it is stored",
        Site(_CREATE, "before"),
        **_TASK,
        typed=True,
    ),
    Point(
        "task-within",
        "a session with its first task: rows written, not committed",
        Site("server.store.sessions:insert_events", "after"),
        **_TASK,
    ),
    Point("task-after", "a session with its first task: committed, not answered", Site(_CREATE, "after"), **_TASK),
    *append("message", "a message", turns.MESSAGE, only("user.message"), ("sent again", "sent again"), **SERVE),
    *append(
        "confirmation",
        "a confirmation",
        turns.ASKING,
        only("user.tool_confirmation"),
        ("sent again", "sent again"),
        **SERVE,
    ),
    *append(
        "custom-result",
        "a custom tool's result",
        turns.ASKING,
        only("user.custom_tool_result"),
        ("sent again", "sent again"),
        **SERVE,
    ),
    *append(
        "interrupt",
        "an interrupt, while a command runs",
        turns.INTERRUPTED,
        only("user.interrupt"),
        ("sent again", "sent again"),
        tools="bash",
        **SERVE,
        **DOCKER,
    ),
]
