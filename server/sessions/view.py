"""A session as it is at one moment: its row, what it is made of, and the fold of its log.

Above: the use-cases and the doors. Below: rows and folds. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from server.events import NewEvent, StoredEvent
from server.sessions.decide import Limits, Rest, next_work
from server.sessions.fold import fold
from server.sessions.money.budget import left
from server.sessions.spec import Spec, thaw
from server.sessions.state import SessionState, load, spent
from server.store.store import SessionRow

_NO_MATTER = Limits()
"""A session at rest is at rest under any limits: they bound turns that run."""


@dataclass(frozen=True)
class SessionView:
    """A session as a door shows it."""

    row: SessionRow
    spec: Spec
    state: SessionState
    waiting: str = ""
    """What it waits for because others have it, in words; filled in by `Service.with_waiting` alone."""

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def settled(self) -> bool:
        """Nothing will happen until somebody sends something."""
        return isinstance(next_work(self.state, _NO_MATTER), Rest)

    @property
    def status(self) -> str:
        """The status that the wire shows: what was sent to an idle session has begun its turn."""
        return "running" if self.state.status == "idle" and self.row.attention else self.state.status

    @property
    def at_work(self) -> bool:
        """It runs, or is about to: too early to archive it, to delete it, or to give it other tools."""
        return self.status in ("running", "rescheduling")

    @property
    def closed(self) -> bool:
        """It can be read, and takes nothing new."""
        return self.row.archived_at is not None or self.state.status == "terminated"

    @property
    def budget_left(self) -> dict[str, dict[str, Any]]:
        """`limit`, `used` and `left` of each measure that is bounded; a running turn counts up to its newest event."""
        bounds = self.state.budget
        return {} if bounds is None else left(bounds, spent(self.state, self.state.at))

    def after(self, new: Sequence[NewEvent]) -> SessionView:
        """The session if these events came next."""
        seq = self.state.seq
        numbered = [
            StoredEvent(seq + n, self.id, event.thread_id, event.id, event.type, event.public, event.private)
            for n, event in enumerate(new, 1)
        ]
        return replace(self, state=fold(self.state, numbered))

    def at_rest_after(self, input_id: str) -> bool:
        """This input was taken, and the turn that it met is over."""
        return self.state.status != "running" and all(item.id != input_id for item in self.state.queue)


def cached(row: SessionRow) -> SessionState:
    """The state that is kept beside the session; the empty one where there is none."""
    if row.fold is None:
        return SessionState()
    try:
        return load(row.fold)
    except (TypeError, KeyError):  # written by another version: the log itself is the truth
        return SessionState()


def view_of(row: SessionRow, state: SessionState, tail: Sequence[StoredEvent]) -> SessionView:
    """`tail`: the events that `state` does not cover."""
    return SessionView(row, thaw(row.spec), fold(state, tail))
