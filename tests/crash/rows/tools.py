"""Tools: before a call is sent, while it runs, when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.wire import Bash, Edit
from tests.crash.row import APPEND, CALL, DOCKER, OPEN, OUTPUT, RESULT, SERVE, SETTLE, Point, of, only
from tests.crash.site import Site
from tests.crash.stories import tools, turns

BASH: Mapping[str, Any] = {"tools": "bash"}
_ELECTED = Site("server.store.meta:MetaTable.next_epoch", "after")

TOOLS = [
    Point(
        "bash-unsent",
        "a command before it is sent",
        Site(CALL, "before", of(Bash, "gate")),
        tools.GATED,
        "started",
        **DOCKER,
        **BASH,
    ),
    Point(
        "bash-running",
        "a command that has said something",
        Site(OUTPUT, "before"),
        tools.GATED,
        "re-attached",
        **DOCKER,
        **BASH,
        typed=True,
    ),
    Point(
        "bash-running-host",
        "the same, and a host starts its server",
        Site(OUTPUT, "before"),
        tools.GATED,
        "re-attached",
        **DOCKER,
        **BASH,
        again="mcp",
        typed=True,
    ),
    Point(
        "bash-finished",
        "a command that ends while nobody is there",
        Site(OUTPUT, "before"),
        tools.FINISHED,
        "kept",
        **DOCKER,
        **BASH,
    ),
    Point(
        "bash-result",
        "a command's result is in the pipe",
        Site(RESULT, "before"),
        turns.ROUND,
        "kept",
        **DOCKER,
        **BASH,
    ),
    Point(
        "bash-unsettled",
        "its result is stored, the runner does not know",
        Site(SETTLE, "before"),
        turns.UNSETTLED,
        "asked again",
        **DOCKER,
        **BASH,
    ),
    Point(
        "bash-twice",
        "re-attached to a command, and killed again",
        Site(OUTPUT, "before"),
        tools.GATED,
        "re-attached",
        **DOCKER,
        **BASH,
        second=Site(OPEN, "after"),
    ),
    Point(
        "bash-elected",
        "killed again as soon as it was elected",
        Site(OUTPUT, "before"),
        tools.GATED,
        "re-attached",
        **DOCKER,
        **BASH,
        second=_ELECTED,
    ),
    Point(
        "bash-leaving",
        "asked to leave while a command runs",
        Site("server.sessions.sandboxing.sandboxes:Sandboxes.close", "before"),
        tools.LEAVING,
        "re-attached",
        **DOCKER,
        **BASH,
    ),
    Point(
        "edit-unsent",
        "an edit before it is sent",
        Site(CALL, "before", of(Edit)),
        turns.ROUND,
        "started",
        **DOCKER,
        tools="edit",
    ),
    Point(
        "edit-result",
        "an edit's result is in the pipe",
        Site(RESULT, "before", nth=2),
        turns.ROUND,
        "kept",
        **DOCKER,
        tools="edit",
    ),
    Point(
        "parallel-running",
        "a command runs, the edit beside it is answered",
        Site(APPEND, "after", only("agent.tool_result")),
        tools.BESIDE,
        "re-attached",
        **DOCKER,
        tools="bash, edit",
    ),
    Point(
        "local-bash-unsent",
        "a command before it is sent",
        Site(CALL, "before", of(Bash, "gate")),
        tools.STUCK,
        "unknowable",
        **BASH,
        typed=True,
    ),
    Point(
        "local-bash-running",
        "a command that has said something",
        Site(OUTPUT, "before"),
        tools.STUCK,
        "unknowable",
        **BASH,
    ),
    Point(
        "local-edit-unsent",
        "an edit before it is sent",
        Site(CALL, "before", of(Edit)),
        turns.ROUND,
        "unknowable",
        tools="edit",
    ),
    Point(
        "local-edit-result",
        "an edit's result is in the pipe",
        Site(RESULT, "before", nth=2),
        turns.ROUND,
        "unknowable",
        tools="edit",
    ),
    Point(
        "asked-unsent",
        "an allowed command before it is sent",
        Site(CALL, "before", of(Bash)),
        turns.ASKING,
        "started",
        **SERVE,
        **DOCKER,
        **BASH,
    ),
]
