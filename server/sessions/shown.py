"""A session and its primary thread as the wire shows them. Pure.

Above: the REST door. Below: views. Times of what is still running are counted up to `at`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.catalog import agents
from server.sessions.money import budget
from server.sessions.money.usage import session_usage
from server.sessions.state import active_seconds, seconds_between
from server.sessions.view import SessionView


def session_object(view: SessionView, resources: Sequence[Mapping[str, Any]], at: str) -> dict[str, Any]:
    """The wire's `session`. `resources` are those that it was given; `skiff` is there where the budget has measures of
    our own."""
    row, own = view.row, budget.own(view.state.budget)
    return {
        "id": row.id,
        "type": "session",
        "agent": agents.snapshot(view.spec.agent),
        "status": view.status,
        "environment_id": view.spec.environment["id"],
        "title": row.title,
        "metadata": dict(row.metadata),
        "vault_ids": [],
        "deployment_id": None,
        "resources": list(resources),
        "budget": budget.on_the_wire(view.state.budget),
        "outcome_evaluations": [],
        "stats": _stats(view, at),
        "usage": session_usage(view.state, at),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "archived_at": row.archived_at,
        **({"skiff": {"budget": own}} if own else {}),
    }


def thread_object(view: SessionView, at: str) -> dict[str, Any]:
    """The session's primary thread, the wire's `session_thread`.

    `stats` is null until the thread first runs, `usage` until it first comes to rest; `startup_seconds` is not kept.
    """
    row, state = view.row, view.state
    agent = agents.snapshot(view.spec.agent)
    agent.pop("multiagent", None)
    rested = state.turns > 1 or (state.turns == 1 and state.status in ("idle", "terminated"))
    return {
        "id": row.thread_id,
        "type": "session_thread",
        "session_id": row.id,
        "agent": agent,
        "parent_thread_id": None,
        "workflow_run_id": None,
        "status": view.status,
        "stats": {**_stats(view, at), "startup_seconds": None} if state.turns else None,
        "usage": session_usage(state, at) if rested else None,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "archived_at": row.archived_at,
    }


def _stats(view: SessionView, at: str) -> dict[str, Any]:
    """`duration_seconds` stands still once the session has ended."""
    end = view.row.updated_at if view.closed else at
    return {
        "active_seconds": active_seconds(view.state, at),
        "duration_seconds": round(seconds_between(view.row.created_at, end), 6),
    }
