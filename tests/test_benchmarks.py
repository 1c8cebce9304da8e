"""What the benchmarks say about their samples: pure arithmetic, no measurement."""

from __future__ import annotations

import pytest

from benchmarks.fake import calls, script
from benchmarks.row import Figure, Hold, Row, figure
from server.providers.scripted.script import parse


def _row(ours: float, floor: float | None, hold: Hold | None) -> Row:
    beside = None if floor is None else Figure(floor, floor, 1)
    return Row("a figure", "ms", Figure(ours, ours, 1), beside, "a floor", hold)


def test_a_figure_is_the_median_and_a_95th_percentile_that_was_really_seen() -> None:
    assert figure([5.0, 1.0, 3.0]) == Figure(3.0, 5.0, 3)
    assert figure([float(n) for n in range(1, 101)]) == Figure(50.5, 95.0, 100)


def test_a_figure_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        figure([])


@pytest.mark.parametrize(
    ("hold", "limit", "words"),
    [
        (Hold(1, 5), 15.0, "≤ floor + 5 ms"),
        (Hold(1.2), 12.0, "≤ floor x 1.2"),
        (Hold(plus=20), 20.0, "≤ 20 ms"),
        (Hold(), 0.0, "≤ 0"),
    ],
)
def test_a_bound_says_in_words_what_it_computes(hold: Hold, limit: float, words: str) -> None:
    assert hold.limit(10.0) == pytest.approx(limit)
    assert hold.describe("ms") == words


def test_a_row_holds_up_to_its_bound_and_not_beyond() -> None:
    assert _row(15.0, 10.0, Hold(1, 5)).holds is True
    assert _row(15.1, 10.0, Hold(1, 5)).holds is False


def test_a_bound_on_a_floor_that_was_not_measured_is_neither_held_nor_missed() -> None:
    row = _row(15.0, None, Hold(1, 5))
    assert (row.ratio, row.limit, row.holds) == (None, None, None)


def test_an_absolute_bound_needs_no_floor() -> None:
    assert _row(15.0, None, Hold(plus=20)).holds is True


def test_a_ratio_to_a_floor_that_noise_has_eaten_is_not_given() -> None:
    assert _row(15.0, -0.6, Hold(plus=14)).ratio is None


def test_the_double_understands_the_scripts_of_the_benchmarks() -> None:
    text = script([*calls(2, "bash", {"command": "true"}), {"say": "Done."}])
    steps = parse(text.removeprefix("```script\n").removesuffix("```"))
    assert [sorted(step) for step in steps] == [["call"], ["call"], ["say"]]
