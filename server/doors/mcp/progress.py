"""What to tell a host that waits, and when. Pure.

Above: `waiting`, which has the clock and the connection. The value told is the number of the newest event, so that two
tellings can be compared across requests; between events it creeps, because the protocol wants it to grow each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.sessions.service import SessionView
    from server.sessions.state import SessionState

MIN_INTERVAL = 0.25
"""Seconds between two tellings: a fast agent makes dozens of events a second, more than anybody can read."""
MAX_SILENCE = 10.0
"""Seconds after which something is told although nothing happened. Hosts give up after 60 s of silence at the least;
six chances leave room for a slow machine."""
MAX_MESSAGE = 200
"""Characters: what hosts show on one line."""
_CREEP = 0.01
"""A hundred tellings between two events: 1,000 s of silence, more than four times the longest wait."""


def value_after(last: float | None, number: int) -> float:
    """The next value: the event's number where that is news, else a little more than the last value."""
    if last is None or number > last:
        return float(number)
    return round(last + _CREEP, 2)


def message(view: SessionView, seconds: float, name: str = "") -> str:
    """Such as "turn 1, call 3: bash: pytest -q (45 s)"; `seconds` is how long the activity has been seen to last.

    `name` goes ahead where several sessions are waited for.
    """
    state = view.state
    where = f"turn {state.turns + _queued(state)}" + (f", call {state.tool_calls}" if state.tool_calls else "")
    age = f" ({seconds:.0f} s)" if seconds >= 1 else ""
    start = f"{name}: " if name else ""
    line = f"{start}{where}: {' '.join(activity(view).split())}"
    return line[: MAX_MESSAGE - len(age)] + age


def activity(view: SessionView) -> str:
    """What the agent does now, or did last, or what it waits for."""
    return view.waiting or ("queued" if _queued(view.state) else view.state.activity or "idle")


def _queued(state: SessionState) -> bool:
    """Whether a turn is about to start."""
    return state.status == "idle" and bool(state.queue) and not state.parked


def pause(since_last: float | None, news: bool) -> float:
    """Seconds until the next telling is due, given the seconds since the last one (None: nothing was told yet)."""
    if since_last is None:
        return 0.0
    return max(0.0, (MIN_INTERVAL if news else MAX_SILENCE) - since_last)
