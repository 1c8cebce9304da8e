"""A session is given a budget, and its budget is raised, lowered or removed: what may be asked, and the events that say
so. Pure.

Above: `lifecycle` and `service`. Below: `budget`, which says what fits within one. The wire's rules for the bound in
dollars are kept through both doors; those of our own measures can be set at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from server import events
from server.errors import Refused, coded
from server.events import NewEvent
from server.ids import now
from server.sessions.money import budget
from server.sessions.money.budget import Budget, Spent
from server.sessions.state import spent
from server.sessions.view import SessionView
from server.store.store import SessionRow

Priced = Callable[[str], bool]
"""Whether the list price of a model is known."""


def given(row: SessionRow, bounds: Mapping[str, Any], priced: Priced) -> list[NewEvent]:
    """The event with which a new session's log begins, where it has bounds. Raises Refused."""
    asked, model = Budget(**bounds), str(row.spec["agent"]["model"]["id"])
    if asked.usd is not None and not priced(model):
        raise _unpriced(model)
    return [] if asked == Budget() else [events.budget_set(row.thread_id, budget.stored(asked))]


def bounded(view: SessionView, patch: Mapping[str, Any], priced: Priced) -> Budget | None:
    """The session's budget after this patch, in which None takes a bound away; None when it changes nothing.

    Raises Refused, with the wire's code, for a bound in dollars where there was none or the price is unknown, and for
    one that is not above what was used.
    """
    old = view.state.budget or Budget()
    changes = {name: value for name, value in patch.items() if value != getattr(old, name)}
    used = spent(view.state, now())
    for name, value in changes.items():
        if name == "usd" and value is not None:
            _check_dollars(old, value, used, view.spec.model, priced)
        elif value is not None and value <= getattr(used, name):
            problem = f"budget.{name} must be greater than what the session has used ({getattr(used, name):,})."
            raise coded(Refused(problem), "budget_not_raised")
    return replace(old, **changes) if changes else None


def _check_dollars(old: Budget, value: str, used: Spent, model: str, priced: Priced) -> None:
    if old.usd is None:
        problem = "budget: this session has none, and one can only be given when a session is created."
        raise coded(Refused(problem), "budget_create_only")
    if used.usd is None or not priced(model):
        raise _unpriced(model)
    if Decimal(value) <= used.usd:
        problem = "budget.max_list_cost must be greater than the session's consumed list cost"
        raise coded(Refused(f"{problem} ({used.usd} USD)."), "budget_not_raised")


def updated(
    view: SessionView, shown: Mapping[str, Any], spec: Mapping[str, Any] | None, bounds: Budget | None
) -> NewEvent:
    """The event that tells of a change: what clients are shown of it, and what the engine goes by from now on."""
    if bounds is None:
        return events.session_updated(view.row.thread_id, shown, spec)
    old = view.state.budget or Budget()
    if bounds.usd != old.usd:
        shown = {**shown, "budget": budget.on_the_wire(bounds)}
    if budget.own(bounds) != budget.own(old):
        shown = {**shown, "skiff": {"budget": budget.own(bounds)}}
    return events.session_updated(view.row.thread_id, shown, spec, budget.stored(bounds))


def _unpriced(model: str) -> Refused:
    problem = (
        f"budget: {model} has no known list price, so no bound in US dollars can be kept. Bound tokens instead, or add"
        " the price to a price file (setting SKIFF_PRICES)."
    )
    return coded(Refused(problem), "model_not_budgetable")
