"""Whose sandbox is stopped for one that is needed."""

from __future__ import annotations

from typing import Any

from server.sessions.berths import SLICE, whom_to_stop
from server.sessions.place import Place

NOW = 1_000.0


def place(name: str, **fields: Any) -> Place:
    """A place whose sandbox lives; what kind of one does not matter here."""
    return Place(name, **{"sandbox": object(), "idle_since": NOW, "since": NOW, **fields})


def test_the_longest_idle_one_of_a_session_at_rest_comes_first() -> None:
    turn = place("turn", at_work=True, since=0.0, idle_since=0.0)
    early, late = place("early", idle_since=NOW - 9), place("late", idle_since=NOW - 1)
    assert whom_to_stop([turn, late, early], NOW) == (early, None)


def test_in_the_middle_of_a_turn_each_keeps_its_own_for_a_while() -> None:
    first, second = place("first", at_work=True, since=NOW - SLICE + 3), place("second", at_work=True)
    assert whom_to_stop([second, first], NOW) == (None, 3.0)
    assert whom_to_stop([second, first], NOW + 3) == (first, None)


def test_one_that_is_used_or_that_a_call_is_on_its_way_to_is_left_alone() -> None:
    used, promised, making = place("used", users=1), place("promised", promised=True), place("making", sandbox=None)
    assert whom_to_stop([used, promised, making], NOW) == (None, None)
