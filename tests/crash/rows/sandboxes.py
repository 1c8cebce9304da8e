"""Sandboxes: made, filled, frozen, stopped, removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.wire import Bash, Put
from tests.crash.row import CALL, DOCKER, OPEN, SERVE, Point, action, of, row
from tests.crash.site import Site
from tests.crash.stories import sandboxes

_ENGINE, _FINISH = "sandbox.docker.engine:Engine.call", "sandbox.docker.engine:Engine.finish"
_PUT = "server.store.sandboxes:SandboxTable.put_sandbox"
_UNSTAGE = "server.store.staged:StagedFileTable.unstage_files"
MARK = "server.store.resources:ResourceTable.mark"
_MADE: Mapping[str, Any] = {"story": sandboxes.STAGED, "tools": "bash", **DOCKER}

SANDBOXES = [
    Point(
        "make-intent",
        "the intent to make a sandbox is stored",
        Site(_PUT, "after", row("making")),
        outcome="made",
        **_MADE,
    ),
    Point(
        "make-create",
        "before the engine is asked for a container",
        Site(_FINISH, "before", action("create the sandbox")),
        outcome="made",
        **_MADE,
    ),
    Point(
        "make-created",
        "the container exists",
        Site(_FINISH, "after", action("create the sandbox")),
        outcome="made",
        **_MADE,
        typed=True,
    ),
    Point(
        "make-started",
        "the container runs",
        Site(_FINISH, "after", action("start the sandbox")),
        outcome="made",
        **_MADE,
    ),
    Point("make-hello", "its runner has said hello", Site(OPEN, "after"), outcome="made", **_MADE),
    Point("make-live", "before the row says live", Site(_PUT, "before", row("live")), outcome="made", **_MADE),
    Point("make-lived", "the row says live", Site(_PUT, "after", row("live")), outcome="made", **_MADE),
    Point("stage-half", "one of two staged files is placed", Site(CALL, "after", of(Put)), outcome="made", **_MADE),
    Point("stage-whole", "both are placed, and still staged", Site(_UNSTAGE, "before"), outcome="made", **_MADE),
    Point("stage-done", "they are no longer staged", Site(_UNSTAGE, "after"), outcome="made", **_MADE),
    Point(
        "mount-placed",
        "a given file is placed, and not marked",
        Site(MARK, "before"),
        sandboxes.MOUNTED,
        "made",
        **DOCKER,
        tools="bash",
    ),
    Point(
        "mount-marked",
        "a given file is placed and marked",
        Site(MARK, "after"),
        sandboxes.MOUNTED,
        "made",
        **DOCKER,
        tools="bash",
    ),
    Point(
        "checkout-sent",
        "a repository is fetched, its checkout about to be sent",
        Site(CALL, "before", of(Bash, "git fetch")),
        sandboxes.CHECKED_OUT,
        "made",
        **DOCKER,
        tools="bash",
    ),
    Point(
        "checkout-done",
        "a repository is checked out, and not marked",
        Site(MARK, "before"),
        sandboxes.CHECKED_OUT,
        "made",
        **DOCKER,
        tools="bash",
    ),
    Point(
        "pool-making",
        "a pooled container exists, and is nobody's",
        Site(_FINISH, "after", action("create the sandbox")),
        sandboxes.POOLED,
        "made",
        **DOCKER,
        tools="bash",
    ),
    Point(
        "pool-claimed",
        "a pooled container is claimed, and in no row",
        Site(_PUT, "before", row("live")),
        sandboxes.POOLED,
        "made",
        **DOCKER,
        tools="bash",
    ),
    Point(
        "local-make-intent",
        "the intent to make a sandbox is stored",
        Site(_PUT, "after", row("making")),
        sandboxes.STAGED,
        "made",
        tools="bash",
    ),
    Point(
        "local-make-folder",
        "its folder exists",
        Site("sandbox.local.workspace:Workspaces.make", "after"),
        sandboxes.STAGED,
        "made",
        tools="bash",
    ),
    Point("local-make-hello", "its runner has said hello", Site(OPEN, "after"), sandboxes.STAGED, "made", tools="bash"),
    Point(
        "local-stage-half",
        "one of two staged files is placed",
        Site(CALL, "after", of(Put)),
        sandboxes.STAGED,
        "made",
        tools="bash",
    ),
    Point(
        "freeze-before",
        "before an idle container is frozen",
        Site(_ENGINE, "before", action("pause the sandbox")),
        sandboxes.FROZEN,
        "went on",
        **SERVE,
        **DOCKER,
    ),
    Point(
        "freeze-after",
        "an idle container is frozen",
        Site(_ENGINE, "after", action("pause the sandbox")),
        sandboxes.FROZEN,
        "went on",
        **SERVE,
        **DOCKER,
    ),
    Point(
        "stop-before",
        "before an idle container is stopped",
        Site(_FINISH, "before", action("stop the sandbox")),
        sandboxes.STOPPING,
        "went on",
        **SERVE,
        **DOCKER,
    ),
    Point(
        "stop-after",
        "an idle container is stopped",
        Site(_FINISH, "after", action("stop the sandbox")),
        sandboxes.STOPPED,
        "went on",
        **SERVE,
        **DOCKER,
    ),
    Point(
        "delete-row",
        "a session is deleted, its sandbox is not",
        Site("server.store.sessions:SessionTable.delete_session", "after"),
        sandboxes.DELETED,
        "went on",
        **DOCKER,
        typed=True,
    ),
    Point(
        "delete-container",
        "its container is removed",
        Site(_ENGINE, "after", action("remove the sandbox")),
        sandboxes.DELETED,
        "went on",
        **DOCKER,
    ),
    Point(
        "delete-volume",
        "one of its volumes is removed",
        Site(_ENGINE, "after", action("remove the workspace")),
        sandboxes.DELETED,
        "went on",
        **DOCKER,
    ),
    Point(
        "delete-all",
        "all of it is removed, the intent still stored",
        Site("server.store.sandboxes:SandboxTable.forget_sandbox", "before"),
        sandboxes.DELETED,
        "went on",
        **DOCKER,
    ),
    Point(
        "local-delete",
        "before a workspace is removed",
        Site("sandbox.local.workspace:Workspaces.remove", "before"),
        sandboxes.DELETED,
        "went on",
    ),
]
