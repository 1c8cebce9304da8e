"""The vocabulary of the log: the one place where events are made.

An event on the wire is a mapping with `id`, `type`, `processed_at` and its own fields (reference: Managed Agents API,
events). Here it is made once, as a plain dict, and never changed. The SDK's models are not imported at run time (that
costs seconds); the tests validate every event made here strictly against them.

A row of the log has a public part (what the doors show) or none, and a private part (what only the engine reads):

    delivered    {ids, at}                inputs that were given to the model, in this order
    dispatched   {call, incarnation}      a tool call is about to be sent to this life of the sandbox
    raw          {content, calls, ...}    beside span.model_request_end: the assistant's content array, verbatim

Above: `sessions` and the doors. Below: `ids`. Knows nothing of storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.ids import new_id, now

Body = Mapping[str, Any]

PRIVATE_DELIVERED = "private.delivered"
PRIVATE_DISPATCHED = "private.dispatched"
INPUT_TYPES = frozenset({"user.message", "user.interrupt"})
"""Events that a client sends and that wait in a queue until the engine delivers them."""


@dataclass(frozen=True)
class NewEvent:
    """An event on its way into the log."""

    id: str
    type: str
    thread_id: str
    public: Body | None = None
    private: Body | None = None


@dataclass(frozen=True)
class StoredEvent:
    """An event in the log. `seq` is dense per session, from 1; rows are never updated."""

    seq: int
    session_id: str
    thread_id: str
    id: str
    type: str
    public: Body | None
    private: Body | None


def _public(kind: str, thread: str, private: Body | None = None, event_id: str = "", **fields: Any) -> NewEvent:
    event_id = event_id or new_id("sevt")
    return NewEvent(event_id, kind, thread, {"id": event_id, "type": kind, "processed_at": now(), **fields}, private)


def _private(kind: str, thread: str, **fields: Any) -> NewEvent:
    return NewEvent(new_id("sevt"), kind, thread, None, fields)


# --- what a client sends ---------------------------------------------------------------------------------------------


def user_message(thread: str, content: Sequence[Body]) -> NewEvent:
    """A message, queued: `processed_at` is null until a delivered row names it."""
    event_id = new_id("sevt")
    body = {"id": event_id, "type": "user.message", "content": list(content), "processed_at": None}
    return NewEvent(event_id, "user.message", thread, body)


def user_interrupt(thread: str) -> NewEvent:
    """Stop what runs; goes ahead of queued messages."""
    event_id = new_id("sevt")
    return NewEvent(
        event_id, "user.interrupt", thread, {"id": event_id, "type": "user.interrupt", "processed_at": None}
    )


def delivered(thread: str, ids: Sequence[str]) -> NewEvent:
    """These inputs reach the model now, in this order."""
    return _private(PRIVATE_DELIVERED, thread, ids=list(ids), at=now())


# --- status ----------------------------------------------------------------------------------------------------------


def turn_started(thread: str, agent_name: str) -> list[NewEvent]:
    return [
        _public("session.status_running", thread),
        _public("session.thread_status_running", thread, session_thread_id=thread, agent_name=agent_name),
    ]


def turn_rescheduled(thread: str, agent_name: str) -> list[NewEvent]:
    return [
        _public("session.thread_status_rescheduled", thread, session_thread_id=thread, agent_name=agent_name),
        _public("session.status_rescheduled", thread),
    ]


def turn_ended(
    thread: str, agent_name: str, stop_reason: Body, usage: Body, stop_details: Body | None = None
) -> list[NewEvent]:
    """The end of a turn; `session.status_idle` is its last event."""
    stop: dict[str, Any] = {"stop_reason": stop_reason, "stop_details": stop_details}
    return [
        _public("session.thread_status_idle", thread, session_thread_id=thread, agent_name=agent_name, **stop),
        _public("session.usage", thread, usage=usage, budget=None),
        _public("session.status_idle", thread, **stop),
    ]


def terminated(thread: str, agent_name: str) -> list[NewEvent]:
    return [
        _public("session.thread_status_terminated", thread, session_thread_id=thread, agent_name=agent_name),
        _public("session.status_terminated", thread),
    ]


def session_error(thread: str, error_type: str, message: str, retry: str) -> NewEvent:
    """`retry` is `retrying`, `exhausted` or `terminal`."""
    error = {"type": error_type, "message": message, "retry_status": {"type": retry}}
    return _public("session.error", thread, error=error)


# --- the model -------------------------------------------------------------------------------------------------------


def model_request_start(thread: str) -> NewEvent:
    return _public("span.model_request_start", thread)


def model_request_end(thread: str, start_id: str, usage: Body, *, is_error: bool, raw: Body | None = None) -> NewEvent:
    """`raw` is the private part: the content array as the provider gave it, and what is needed to go on from it."""
    return _public(
        "span.model_request_end",
        thread,
        raw,
        model_request_start_id=start_id,
        is_error=is_error,
        model_usage=usage,
    )


def agent_message(thread: str, text: str, event_id: str = "") -> NewEvent:
    return _public("agent.message", thread, None, event_id, content=[{"type": "text", "text": text}])


def agent_thinking(thread: str, event_id: str = "") -> NewEvent:
    return _public("agent.thinking", thread, None, event_id)


# --- tools -----------------------------------------------------------------------------------------------------------


def tool_use(thread: str, name: str, arguments: Body, *, allowed: bool, private: Body | None = None) -> NewEvent:
    """A call of a tool. Its event id is the call's only name, and the sandbox's operation id.

    A tool that is not enabled in the session is refused before any policy applies: `deny`, without `evaluation`.
    """
    if allowed:
        verdict: dict[str, Any] = {"evaluated_permission": "allow", "evaluation": {"type": "always_allow"}}
    else:
        verdict = {"evaluated_permission": "deny"}
    return _public("agent.tool_use", thread, private, name=name, input=dict(arguments), **verdict)


def dispatched(thread: str, call_id: str, incarnation: str) -> NewEvent:
    """Written before the call is sent, so that after a crash it is known which life of the sandbox may have run it."""
    return _private(PRIVATE_DISPATCHED, thread, call=call_id, incarnation=incarnation)


def tool_result(thread: str, call_id: str, content: Sequence[Body], *, is_error: bool) -> NewEvent:
    return _public("agent.tool_result", thread, tool_use_id=call_id, content=list(content), is_error=is_error)


def text(value: str) -> Body:
    """A text block of an event or message."""
    return {"type": "text", "text": value}
