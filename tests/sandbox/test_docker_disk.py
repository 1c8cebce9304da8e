"""When the workspace is measured and what is said about it."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.docker.disk import DiskBound, explain, is_due, judge
from sandbox.wire import Result

MB = 1 << 20


@pytest.mark.parametrize(
    ("used", "before", "verdict"),
    [(10, 0, "fine"), (100, 0, "fine"), (101, 0, "growing"), (150, 200, "over"), (150, 150, "over")],
)
def test_only_growth_over_the_bound_stops_commands(used: int, before: int, verdict: str) -> None:
    assert judge(used, before, 100) == verdict


@pytest.mark.parametrize(
    ("since", "lasted", "used", "due"), [(9, 0, 0, True), (1, 0, 0, False), (1, 2, 0, True), (1, 0, 90, True)]
)
def test_a_quick_operation_far_from_the_bound_is_not_measured_twice(
    since: float, lasted: float, used: int, due: bool
) -> None:
    assert is_due(since, lasted, used, 100) is due


def test_a_result_over_the_bound_keeps_its_notes_and_says_what_to_do() -> None:
    result = explain(Result("op", True, b"x", {"notes": ["first"]}), 30 * MB, 20 * MB, stopped=True)
    assert not result.ok
    assert result.meta["notes"][0] == "first"
    assert "holds 30 MB, its bound is 20 MB" in result.meta["notes"][1]
    assert result.body == b"x"


def test_measurements_are_shared_within_the_interval() -> None:
    async def story() -> None:
        sizes = iter([50, 500])

        async def measure() -> int:
            return next(sizes)

        bound = DiskBound(100, measure)
        assert await bound.check() == "fine"
        assert bound.used == 0
        assert await bound.after(lasted=3.0) == "fine"
        assert await bound.check() == "fine"
        assert await bound.after(lasted=3.0) == "growing"
        assert await bound.check() == "growing"
        assert bound.used == 500

    asyncio.run(story())
