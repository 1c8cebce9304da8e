"""Whose sandbox is stopped for one that is needed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandbox.protocol import Sandbox
from server.errors import StaleWriter, StoreBlocked
from server.sessions.sandboxing.berths import SLICE, whom_to_stop
from server.sessions.sandboxing.place import Place
from server.sessions.sandboxing.sandboxes import Sandboxes
from server.sessions.sandboxing.tending import IdleRules, _for_ever

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


def sandboxes() -> Sandboxes:
    """Those of an engine that is asked for none."""
    none: Any = None
    return Sandboxes(none, none, IdleRules(60.0, 0.0, 1), none, none)


@pytest.mark.parametrize(
    ("error", "works_on"), [(StoreBlocked("full"), True), (OSError(), True), (StaleWriter("old"), False)], ids=repr
)
def test_a_turn_that_is_tried_again_is_at_work_until_then(error: Exception, works_on: bool) -> None:
    found = sandboxes()
    with suppress(type(error)), found.turn("one"):
        raise error
    assert [place.at_work for place in found._places.values()] == [True] * works_on


def test_whatever_goes_wrong_with_one_look_at_idle_sandboxes_there_is_another() -> None:
    async def story() -> None:
        looks: list[int] = []
        second = asyncio.Event()

        async def look() -> None:
            looks.append(len(looks))
            if len(looks) == 1:
                raise ValueError("a surprise")
            second.set()

        tending = asyncio.create_task(_for_ever(0.001, look))
        async with asyncio.timeout(30):
            await second.wait()
        tending.cancel()
        await asyncio.wait({tending})

    asyncio.run(story())


def test_a_sandbox_whose_calls_came_to_nothing_may_be_had_while_the_model_thinks() -> None:
    found, spec = sandboxes(), cast(Any, None)
    with found.turn("one"):
        mine = found._places.at("one")
        mine.sandbox = cast(Sandbox, SimpleNamespace(alive=True, incarnation="life"))
        assert found.incarnation("one") == "life" and not mine.unused, "a call is on its way"
        found.prepare("one", spec)
        assert mine.unused
