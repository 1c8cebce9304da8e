"""How a turn ends: the events that say so. Pure.

Above: `loop`. Below: the fold, and `budget`, which says whether something is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server import events
from server.events import NewEvent
from server.sessions.money import budget
from server.sessions.money.usage import session_usage
from server.sessions.state import SessionState, spent


def turn_end(state: SessionState, thread: str, agent_name: str, reason: Mapping[str, Any], at: str) -> list[NewEvent]:
    """The end of the thread's turn for this reason (a stop reason of the wire) at this time.

    A turn that ended well with the last of its budget did so: only the session says that the budget is reached.
    """
    details, bounds = None, state.budget
    if reason["type"] == "refusal":
        refusal = state.refusal or {}
        category, explanation = refusal.get("category"), refusal.get("explanation")
        details = {"type": "refusal", "category": category, "explanation": explanation}
    over = bounds is not None and reason["type"] == "end_turn" and budget.used_up(bounds, spent(state, at))
    return events.turn_ended(
        thread,
        agent_name,
        reason,
        session_usage(state, at),
        details,
        budget=budget.on_the_wire(bounds),
        reached=over,
    )
