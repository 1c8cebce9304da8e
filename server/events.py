"""The vocabulary of the log: the one place where events are made.

An event on the wire is a mapping with `id`, `type`, `processed_at` and its own fields (reference: Managed Agents API,
events). Here it is made once, as a plain dict, and never changed. The SDK's models are not imported at run time (that
costs seconds); the tests validate every event made here strictly against them.

A row of the log has a public part (what the doors show) or none, and a private part (what only the engine reads):

    delivered    {ids, at}                inputs that were given to the model, in this order
    budget       {budget}                 what the session may use up, where it was made with a bound
    dispatched   {call, incarnation}      a tool call is about to be sent to this life of the sandbox
    clock        {seconds}                the wall clock was set ahead by so much while the session worked
    raw          {content, calls, ...}    beside span.model_request_end: the assistant's content array, verbatim; of a
                                          failed request only what the provider had counted of it by then
    failure      {wait, passing, ending?} beside session.error: when the model is asked again, how the turn ended
    cleared      {keep, says, freed, tool}   old results gave way to words that say where they are
    compacted    {head, kept, then, ...}  beside agent.thread_context_compacted: the summary, and what stays after it

Above: `sessions` and the doors. Below: `ids`. Knows nothing of storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from server.ids import new_id, now

Body = Mapping[str, Any]

PRIVATE_DELIVERED = "private.delivered"
PRIVATE_DISPATCHED = "private.dispatched"
PRIVATE_CLOCK = "private.clock"
PRIVATE_BUDGET = "private.budget"
PRIVATE_CLEARED = "private.cleared"
COMPACTED = "agent.thread_context_compacted"
COMPACTION = "compaction"
"""The purpose of a model request whose answer is a summary, as its start and its end say in private."""
INPUT_TYPES = frozenset({"user.message", "user.interrupt"})
"""Events that a client sends and that wait in a queue until the engine delivers them."""
ANSWER_TYPES = frozenset({"user.tool_confirmation", "user.custom_tool_result"})
"""Events that a client sends about a call that waits for it; they are processed on receipt."""
CALL_TYPES = frozenset({"agent.tool_use", "agent.custom_tool_use"})

LISTED_TYPES = (
    *sorted(INPUT_TYPES | ANSWER_TYPES),
    *("user.define_outcome", "user.tool_result", "system.message"),
    *("agent.message", "agent.thinking", "agent.tool_use", "agent.tool_result", "agent.custom_tool_use"),
    *("agent.mcp_tool_use", "agent.mcp_tool_result", "agent.thread_message_received", "agent.thread_message_sent"),
    "agent.thread_context_compacted",
    *("session.status_running", "session.status_idle", "session.status_rescheduled", "session.status_terminated"),
    *("session.error", "session.updated", "session.usage", "session.thread_created"),
    *(f"session.thread_status_{status}" for status in ("running", "idle", "rescheduled", "terminated")),
    *("span.model_request_start", "span.model_request_end"),
    *(f"span.outcome_evaluation_{step}" for step in ("start", "ongoing", "end")),
    *(f"workflow_run.{step}" for step in ("created", "status_running", "status_idle", "status_ended", "error")),
    *("workflow_run.phase_started", "workflow_run.phase_ended"),
)
"""Every type of event that a history can hold on the wire; some of them are not made here yet."""

Permission = Literal["allow", "ask", "deny"]

_STATUSES = {
    "session.status_running": "running",
    "session.status_idle": "idle",
    "session.status_rescheduled": "rescheduling",
    "session.status_terminated": "terminated",
}


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


def user_message(thread: str, content: Sequence[Body], given: Sequence[Body] | None = None) -> NewEvent:
    """A message, queued: `processed_at` is null until a delivered row names it.

    `given` is its content as the model gets it, where that differs: files in the place of their ids.
    """
    event_id = new_id("sevt")
    body = {"id": event_id, "type": "user.message", "content": list(content), "processed_at": None}
    return NewEvent(event_id, "user.message", thread, body, None if given is None else {"content": list(given)})


def user_interrupt(thread: str) -> NewEvent:
    """Stop what runs; goes ahead of queued messages."""
    event_id = new_id("sevt")
    return NewEvent(
        event_id, "user.interrupt", thread, {"id": event_id, "type": "user.interrupt", "processed_at": None}
    )


def tool_confirmation(thread: str, call_id: str, *, allow: bool, deny_message: str | None = None) -> NewEvent:
    """Somebody's word on a call that asked for it. `deny_message` goes to the model, with a denial only."""
    reason: dict[str, Any] = {"deny_message": deny_message} if deny_message is not None else {}
    return _public("user.tool_confirmation", thread, tool_use_id=call_id, result="allow" if allow else "deny", **reason)


def custom_tool_result(
    thread: str, call_id: str, content: Sequence[Body], *, is_error: bool, given: Sequence[Body] | None = None
) -> NewEvent:
    """What a client's own tool gave. `given` as in `user_message`."""
    private = None if given is None else {"content": list(given)}
    fields: dict[str, Any] = {"custom_tool_use_id": call_id, "content": list(content), "is_error": is_error}
    return _public("user.custom_tool_result", thread, private, **fields)


def clock_set_ahead(thread: str, seconds: float) -> NewEvent:
    """The wall clock went ahead by so many seconds that were never spent: what comes after is by its new time."""
    return _private(PRIVATE_CLOCK, thread, seconds=round(seconds, 6))


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
    thread: str,
    agent_name: str,
    stop_reason: Body,
    usage: Body,
    stop_details: Body | None = None,
    *,
    budget: Body | None = None,
    reached: bool = False,
) -> list[NewEvent]:
    """The end of a turn; `session.status_idle` is its last event.

    `budget` is the wire's; `reached`: it is used up, which the session says whatever ended the thread's turn.
    """
    stop: dict[str, Any] = {"stop_reason": stop_reason, "stop_details": stop_details}
    whole = {**stop, "stop_reason": {"type": "budget_reached"}} if reached else stop
    return [
        _public("session.thread_status_idle", thread, session_thread_id=thread, agent_name=agent_name, **stop),
        _public("session.usage", thread, usage=usage, budget=budget),
        _public("session.status_idle", thread, **whole),
    ]


def terminated(thread: str, agent_name: str) -> list[NewEvent]:
    return [
        _public("session.thread_status_terminated", thread, session_thread_id=thread, agent_name=agent_name),
        _public("session.status_terminated", thread),
    ]


def status_after(new: Sequence[NewEvent]) -> str | None:
    """The status that a session has after these events; None when they say nothing of it."""
    return next((_STATUSES[event.type] for event in reversed(new) if event.type in _STATUSES), None)


def spent_in(new: Sequence[NewEvent]) -> list[tuple[str, str | None, int]]:
    """What the model requests among these events cost: (day, US dollars, tokens) of each that was answered. The
    dollars are an exact decimal, None where the price is not known; the day is UTC's."""
    spent = []
    for event in new:
        if event.type == "span.model_request_end" and event.private is not None and event.public is not None:
            raw = event.private
            tokens = sum(int(count) for name, count in raw.get("usage", {}).items() if name.endswith("_tokens"))
            spent.append((str(event.public["processed_at"])[:10], raw.get("cost_usd"), tokens))
    return spent


def session_updated(thread: str, changed: Body, spec: Body | None = None, budget: Body | None = None) -> NewEvent:
    """A client changed the session: only what was changed. `spec` is what the agent is made of from the next turn,
    `budget` the whole of what the session may use up from now on."""
    private = {name: value for name, value in (("spec", spec), ("budget", budget)) if value is not None}
    return _public("session.updated", thread, private or None, **changed)


def budget_set(thread: str, budget: Body) -> NewEvent:
    """What a session may use up from its beginning."""
    return _private(PRIVATE_BUDGET, thread, budget=budget)


def session_deleted(thread: str) -> NewEvent:
    """The last event of a stream. It is never stored: there is nothing left to store it in."""
    return _public("session.deleted", thread)


def session_error(
    thread: str,
    error_type: str,
    message: str,
    retry: str,
    *,
    repository_url: str | None = None,
    private: Body | None = None,
) -> NewEvent:
    """`retry` is `retrying`, `exhausted` or `terminal`; `repository_url` belongs to the repository_ errors.

    `private`, of a failed model request: `wait` in seconds until the next try, `passing` when a later one may succeed.
    """
    error: dict[str, Any] = {"type": error_type, "message": message, "retry_status": {"type": retry}}
    if repository_url is not None:
        error["repository_url"] = repository_url
    return _public("session.error", thread, private, error=error)


# --- the model -------------------------------------------------------------------------------------------------------


def model_request_start(thread: str, purpose: str | None = None) -> NewEvent:
    return _public("span.model_request_start", thread, None if purpose is None else {"purpose": purpose})


def model_request_end(thread: str, start_id: str, usage: Body, *, is_error: bool, raw: Body | None = None) -> NewEvent:
    """`raw` is the private part: the content array as the provider gave it, and what is needed to go on from it; of a
    failed request its usage, cost and model alone."""
    return _public(
        "span.model_request_end",
        thread,
        raw,
        model_request_start_id=start_id,
        is_error=is_error,
        model_usage=usage,
    )


def results_cleared(thread: str, *, keep: int, says: str, freed: int, tool: Body | None) -> NewEvent:
    """The results of all but the newest `keep` rounds are replaced by `says` from here on. `freed`: tokens, estimated;
    `tool` is what the model is offered from now on, so that it can see them again; None where it has it already."""
    return _private(PRIVATE_CLEARED, thread, keep=keep, says=says, freed=freed, tool=tool)


def context_compacted(thread: str, private: Body) -> NewEvent:
    """The conversation gave way to a summary, but for its newest messages. The wire shows only that it happened."""
    return _public(COMPACTED, thread, private)


def agent_message(thread: str, text: str, event_id: str = "") -> NewEvent:
    return _public("agent.message", thread, None, event_id, content=[{"type": "text", "text": text}])


def agent_thinking(thread: str, event_id: str = "") -> NewEvent:
    return _public("agent.thinking", thread, None, event_id)


# --- tools -----------------------------------------------------------------------------------------------------------


def tool_use(
    thread: str, name: str, arguments: Body, *, permission: Permission, private: Body | None = None
) -> NewEvent:
    """A call of a tool. Its event id is the call's only name, and the sandbox's operation id.

    A tool that is not enabled in the session is refused before any policy applies: `deny`, without `evaluation`.
    """
    verdict: dict[str, Any] = {"evaluated_permission": permission}
    if permission != "deny":
        verdict["evaluation"] = {"type": f"always_{permission}"}
    return _public("agent.tool_use", thread, private, name=name, input=dict(arguments), **verdict)


def custom_tool_use(thread: str, name: str, arguments: Body, *, private: Body | None = None) -> NewEvent:
    """A call of a tool that the client runs. No permission policy applies to it."""
    return _public("agent.custom_tool_use", thread, private, name=name, input=dict(arguments))


def dispatched(thread: str, call_id: str, incarnation: str) -> NewEvent:
    """Written before the call is sent, so that after a crash it is known which life of the sandbox may have run it."""
    return _private(PRIVATE_DISPATCHED, thread, call=call_id, incarnation=incarnation)


def tool_result(thread: str, call_id: str, content: Sequence[Body], *, is_error: bool) -> NewEvent:
    return _public("agent.tool_result", thread, tool_use_id=call_id, content=list(content), is_error=is_error)


def text(value: str) -> Body:
    """A text block of an event or message."""
    return {"type": "text", "text": value}
