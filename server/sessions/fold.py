"""What a session's log means: `fold(state, event) -> state`, pure, and the table of allowed transitions.

Above: whoever reads a log. Below: `state`, what comes of it; the conversation itself is another fold (`transcript.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from server.events import (
    COMPACTED,
    COMPACTION,
    INPUT_TYPES,
    PRIVATE_BUDGET,
    PRIVATE_CLEARED,
    PRIVATE_CLOCK,
    PRIVATE_DELIVERED,
    PRIVATE_DISPATCHED,
    StoredEvent,
)
from server.sessions.changed import changed
from server.sessions.conversation import context
from server.sessions.conversation.context import FULL
from server.sessions.money.budget import Budget, used_up
from server.sessions.state import OpenCall, QueuedInput, SessionState, Usage, seconds_between, size, spent

TRANSITIONS: Mapping[str, frozenset[str]] = {
    "idle": frozenset({"running", "terminated"}),
    "running": frozenset({"idle", "rescheduling", "terminated"}),
    "rescheduling": frozenset({"running", "idle", "terminated"}),
    "terminated": frozenset(),
}
"""Session status to the statuses that may follow it (reference: sessions, statuses and transitions)."""

REPLY_LIMIT = 200_000
"""Characters of the last reply that the state keeps: more than any model writes in one answer."""


CUT = ("max_tokens", FULL)
"""Reasons of the model's API for an answer that is not whole."""
GOES_ON = ("pause_turn", FULL)
"""Reasons for an answer that goes on: where the provider paused it, and where it has room again."""


class IllegalTransition(Exception):
    """The log says something that cannot follow. It names the status and the event."""


Fold = Callable[[SessionState, StoredEvent], SessionState]


def fold(state: SessionState, events: Iterable[StoredEvent]) -> SessionState:
    """The state after these events. Raises IllegalTransition for a log that cannot be."""
    for event in events:
        if event.seq <= state.seq:
            continue
        step = _STEPS.get(event.type)
        at = event.public.get("processed_at") if event.public else None
        state = changed(step(state, event) if step else state, seq=event.seq, at=at or state.at)
    return state


def _move(state: SessionState, to: str, event: StoredEvent) -> SessionState:
    if to != state.status and to not in TRANSITIONS[state.status]:
        raise IllegalTransition(f"{event.type} (number {event.seq}) while {state.status}")
    return changed(state, status=to)


def _input(state: SessionState, event: StoredEvent) -> SessionState:
    content = (event.private or event.public or {}).get("content", ())
    waits = QueuedInput(event.id, event.type, event.seq, size(content), context.estimate(content))
    return changed(state, queue=(*state.queue, waits))


def _delivered(state: SessionState, event: StoredEvent) -> SessionState:
    ids = set((event.private or {}).get("ids", ()))
    given = [item for item in state.queue if item.id in ids]
    rest = tuple(item for item in state.queue if item.id not in ids)
    if any(item.type == "user.interrupt" for item in given):
        return changed(state, queue=rest, owed=False, paused=False, ending="interrupted")
    return changed(
        state,
        queue=rest,
        owed=state.owed or any(item.type == "user.message" for item in given),
        context=context.came(state.context, sum(item.tokens for item in given)),
    )


def _running(state: SessionState, event: StoredEvent) -> SessionState:
    fresh = state.status == "idle"
    moved = _move(state, "running", event)
    if not fresh:
        return moved
    moved = changed(moved, active_since=(event.public or {}).get("processed_at"), stop_reason=None, held=False)
    if state.goes_on:
        return moved  # the turn that was parked goes on
    return changed(
        moved,
        turns=state.turns + 1,
        turn_requests=0,
        reply=None,
        reply_open=False,
        refusal=None,
        failures=0,
        hopeless=False,
        passing=False,
        failed_at=None,
        retry_wait=0.0,
        last_error=None,
        ending=None,
        turn_cost_usd="0",
        context=context.turn_begun(state.context),
        activity="starting",
    )


def _rescheduled(state: SessionState, event: StoredEvent) -> SessionState:
    words = f"waiting to try the model again ({state.failures} failed in a row)"
    return changed(_move(state, "rescheduling", event), activity=words)


def _idle(state: SessionState, event: StoredEvent) -> SessionState:
    body = event.public or {}
    moved = _move(state, "idle", event)
    active = state.active_seconds + seconds_between(state.active_since, body.get("processed_at"))
    held = (body.get("stop_reason") or {}).get("type") == "budget_reached"
    return changed(
        moved,
        stop_reason=body.get("stop_reason"),
        held=held,
        # A parked turn has answers that the model is still to hear of; one at its budget goes on where it was.
        owed=state.owed and (held or bool(state.calls)),
        paused=state.paused and held,
        context=context.turn_over(state.context),
        activity="idle",
        active_since=None,
        active_seconds=round(active, 6),
    )


def _terminated(state: SessionState, event: StoredEvent) -> SessionState:
    return changed(_move(state, "terminated", event), activity="terminated")


def _request_start(state: SessionState, event: StoredEvent) -> SessionState:
    return changed(
        state,
        open_request=event.id,
        requests=state.requests + 1,
        turn_requests=state.turn_requests + 1,
        reply_open=False,
        activity="summarizing" if (event.private or {}).get("purpose") == COMPACTION else "thinking",
    )


def _request_end(state: SessionState, event: StoredEvent) -> SessionState:
    body, raw = event.public or {}, event.private or {}
    state = changed(state, open_request=None)
    stop, usage, cost = raw.get("stop_reason"), raw.get("usage", {}), raw.get("cost_usd")
    if "usage" in raw:  # a request that was refused as too long took nothing
        turn = _sum(state.turn_cost_usd, cost)
        state = changed(state, usage=_add_usage(state.usage, usage, cost), turn_cost_usd=turn)
    if body.get("is_error"):
        return changed(state, context=context.refused(state.context)) if raw.get("too_long") else state
    state = changed(state, failures=0, hopeless=False)
    if raw.get("purpose") == COMPACTION:
        return changed(state, context=context.counted_usage(state.context, usage))
    goes_on = stop in GOES_ON
    return changed(
        state,
        owed=goes_on,
        paused=stop == "pause_turn",
        ending=stop if stop in CUT else None,
        refusal=raw.get("stop_details") or {} if stop == "refusal" else None,
        context=context.answered(state.context, usage, stop=stop, calls=bool(state.calls)),
    )


def _cleared(state: SessionState, event: StoredEvent) -> SessionState:
    now = context.cleared(state.context, event.private or {})
    return changed(state, context=now, activity="making room")


def _compacted(state: SessionState, event: StoredEvent) -> SessionState:
    if event.private is None:
        return state
    now = context.compacted(state.context, event.private)
    return changed(state, context=now, paused=False)


def _add_usage(usage: Usage, more: Mapping[str, Any], cost: str | None) -> Usage:
    counters = {
        name: getattr(usage, name) + int(more.get(name, 0)) for name in usage.__dataclass_fields__ if name != "cost_usd"
    }
    return Usage(**counters, cost_usd=_sum(usage.cost_usd, cost))


def _sum(total: str | None, cost: str | None) -> str | None:
    """Exact; None once one of them is unknown."""
    return None if cost is None or total is None else str(Decimal(total) + Decimal(cost))


def _tool_use(state: SessionState, event: StoredEvent) -> SessionState:
    body, raw = event.public or {}, event.private or {}
    state = changed(state, reply_open=False)
    if raw.get("server_side"):
        return changed(state, tool_calls=state.tool_calls + 1, activity=f"used {body['name']}")
    permission, note = body.get("evaluated_permission"), raw.get("note")
    asks: Literal["confirmation"] | None = "confirmation" if permission == "ask" and note is None else None
    call = OpenCall(event.id, body["name"], body["input"], permission != "deny", note, awaits=asks)
    return _call(state, call)


def _custom_tool_use(state: SessionState, event: StoredEvent) -> SessionState:
    body, note = event.public or {}, (event.private or {}).get("note")
    awaits: Literal["result"] | None = "result" if note is None else None
    call = OpenCall(event.id, body["name"], body["input"], True, note, awaits=awaits)
    return _call(changed(state, reply_open=False), call)


def _call(state: SessionState, call: OpenCall) -> SessionState:
    return changed(
        state, calls=(*state.calls, call), tool_calls=state.tool_calls + 1, activity=_describe(call.name, call.input)
    )


def _clock(state: SessionState, event: StoredEvent) -> SessionState:
    """The turn began by the old time; by the new one it began so much later."""
    if state.active_since is None:
        return state
    began = datetime.fromisoformat(state.active_since) + timedelta(seconds=(event.private or {})["seconds"])
    return changed(state, active_since=began.isoformat(timespec="microseconds").replace("+00:00", "Z"))


def _dispatched(state: SessionState, event: StoredEvent) -> SessionState:
    raw = event.private or {}
    calls = tuple(
        changed(call, incarnation=raw["incarnation"]) if call.id == raw["call"] else call for call in state.calls
    )
    return changed(state, calls=calls)


def _tool_result(state: SessionState, event: StoredEvent) -> SessionState:
    body = event.public or {}
    calls = tuple(call for call in state.calls if call.id != body.get("tool_use_id"))
    if len(calls) == len(state.calls):
        return state  # a result of a call that the provider made itself
    return _answered_call(state, calls, event)


def _answered_call(state: SessionState, calls: tuple[OpenCall, ...], event: StoredEvent) -> SessionState:
    content = (event.private or event.public or {}).get("content", ())
    return changed(
        state,
        calls=calls,
        owed=True,
        context=context.result_came(state.context, content),
    )


def _confirmation(state: SessionState, event: StoredEvent) -> SessionState:
    """Somebody's word on a call; a second one, or one on a call that asked nobody, changes nothing."""
    body = event.public or {}
    calls = tuple(
        _confirmed(call, body) if call.id == body["tool_use_id"] and call.awaits == "confirmation" else call
        for call in state.calls
    )
    return changed(state, calls=calls)


def _confirmed(call: OpenCall, body: Mapping[str, Any]) -> OpenCall:
    if body["result"] == "allow":
        return changed(call, awaits=None)
    why = f" {body['deny_message']}" if body.get("deny_message") else ""
    return changed(call, awaits=None, note=f"Permission to use {call.name} has been denied.{why}")


def _custom_result(state: SessionState, event: StoredEvent) -> SessionState:
    done = (event.public or {}).get("custom_tool_use_id")
    calls = tuple(call for call in state.calls if call.id != done or call.awaits != "result")
    return state if len(calls) == len(state.calls) else _answered_call(state, calls, event)


def _message(state: SessionState, event: StoredEvent) -> SessionState:
    blocks = (event.public or {}).get("content", ())
    before = state.reply or "" if state.reply_open else ""
    text = before + "".join(block.get("text", "") for block in blocks)
    return changed(state, reply=text[:REPLY_LIMIT], reply_open=True, activity="writing")


def _error(state: SessionState, event: StoredEvent) -> SessionState:
    body, raw = event.public or {}, event.private or {}
    error = body.get("error", {})
    if str(error.get("type")).startswith(("repository_", "unknown_")):
        return state  # of something that the session was given: it goes on without it
    again = error.get("retry_status", {}).get("type") == "retrying"
    return changed(
        state,
        failures=state.failures + 1,
        hopeless=not again,
        passing=raw.get("passing", again),
        failed_at=body.get("processed_at"),
        retry_wait=raw.get("wait", 0.0),
        last_error=error.get("message"),
        ending=raw.get("ending") or state.ending,
    )


def _budget(state: SessionState, event: StoredEvent) -> SessionState:
    """The budget as it is from now on; what it held goes on, if it may now."""
    given = (event.private or {}).get("budget")
    if given is None:
        return state
    budget = Budget(**given)
    return changed(state, budget=budget, held=state.held and used_up(budget, spent(state)))


def _describe(name: str, arguments: Mapping[str, Any]) -> str:
    """A few words on a call: its name and the argument that tells most."""
    for key in ("command", "file_path", "pattern", "query", "url"):
        if isinstance(value := arguments.get(key), str):
            line = value.strip().splitlines()[0] if value.strip() else ""
            return f"{name}: {line[:100]}"
    return name


_STEPS: Mapping[str, Fold] = {
    **dict.fromkeys(INPUT_TYPES, _input),
    PRIVATE_DELIVERED: _delivered,
    PRIVATE_DISPATCHED: _dispatched,
    PRIVATE_CLOCK: _clock,
    PRIVATE_BUDGET: _budget,
    "session.updated": _budget,
    PRIVATE_CLEARED: _cleared,
    COMPACTED: _compacted,
    "session.status_running": _running,
    "session.status_rescheduled": _rescheduled,
    "session.status_idle": _idle,
    "session.status_terminated": _terminated,
    "session.error": _error,
    "span.model_request_start": _request_start,
    "span.model_request_end": _request_end,
    "agent.tool_use": _tool_use,
    "agent.custom_tool_use": _custom_tool_use,
    "user.tool_confirmation": _confirmation,
    "user.custom_tool_result": _custom_result,
    "agent.tool_result": _tool_result,
    "agent.message": _message,
}
