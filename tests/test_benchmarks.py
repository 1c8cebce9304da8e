"""What the benchmarks say about their samples, and when: no measurement."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.__main__ import GROUPS, PARTLY, measure
from benchmarks.bench import Bench
from benchmarks.fake import Fake, calls, script
from benchmarks.row import Figure, Hold, Row, figure
from benchmarks.site import Follower
from benchmarks.soak.gauges import Reading
from benchmarks.soak.verdict import compare, left_behind
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


def test_a_bound_from_below_is_held_by_more() -> None:
    three = Hold(3, least=True)
    assert three.describe("rounds/s") == "≥ floor x 3"
    assert (_row(30.0, 10.0, three).holds, _row(29.9, 10.0, three).holds) == (True, False)
    assert Hold(1 / 50).describe("ms") == "≤ floor / 50"


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


# --- when it is said -------------------------------------------------------------------------------------------------


def _bench(folder: Path, engine: str = "29.0") -> Bench:
    return Bench(Fake(0), True, folder, engine)


def _group(*rows: Row, error: str = "", needs_engine: bool = False) -> Any:
    async def measured(bench: Bench) -> list[Row]:
        if error:
            raise RuntimeError(error)
        return list(rows)

    return SimpleNamespace(measure=measured, NEEDS_ENGINE=needs_engine)


def test_a_group_is_kept_before_the_next_one_is_measured(tmp_path: Path) -> None:
    groups = {"one": _group(_row(1.0, 1.0, None)), "broken": _group(error="[no] luck"), "two": _group()}
    kept = report.Kept(tmp_path, {"cores": 2})
    after = []
    for measured in measure(_bench(tmp_path), groups, ""):
        kept.add(measured)
        stored = json.loads(kept.path.read_text("utf-8"))
        after.append((measured.group, len(stored["rows"]), stored["left_out"]))
    failed = {"broken": "failed: RuntimeError: [no] luck"}
    assert after == [("one", 1, {}), ("broken", 1, failed), ("two", 1, failed)]
    assert [path.name for path in tmp_path.iterdir()] == [kept.path.name]


def test_without_an_engine_a_group_says_what_it_goes_without(tmp_path: Path) -> None:
    groups = {"rounds": _group(needs_engine=True), "memory": _group(_row(1.0, None, None)), "send": _group()}
    found = {each.group: each for each in measure(_bench(tmp_path, engine=""), groups, "no engine")}
    assert found["rounds"].left_out == {"rounds": "no engine"} and not found["rounds"].rows
    assert found["memory"].left_out == {PARTLY["memory"]: "no engine"} and found["memory"].rows
    assert not found["send"].left_out


def test_what_is_left_out_is_printed_with_its_reason_word_for_word() -> None:
    said = io.StringIO()
    row = Row("a figure", "ms", Figure(1, 2, 3), None, "a floor", notes=("a note",))
    report.show(Console(file=said, width=150), report.Measured("one", [row], {"x": "failed: [no] luck"}))
    assert "one: medians (p95)" in said.getvalue()
    assert "left out: x: failed: [no] luck" in said.getvalue()
    assert "a figure: a note" in said.getvalue()


def test_every_group_can_be_measured_and_what_is_partly_left_out_is_a_group() -> None:
    assert all(callable(group.measure) for group in GROUPS.values())
    assert set(PARTLY) <= set(GROUPS)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_follower_counts_what_comes_in_pieces(size: int) -> None:
    stream = b"event: a\ndata: event: b\n\nevent: a\n\n" * 3

    async def feed(reader: asyncio.StreamReader) -> None:
        for start in range(0, len(stream), size):
            reader.feed_data(stream[start : start + size])
            await asyncio.sleep(0)  # whoever reads takes this piece before the next is there
        reader.feed_eof()

    async def count() -> None:
        reader = asyncio.StreamReader()
        follower = Follower(reader, None)  # type: ignore[arg-type]
        feeding = asyncio.create_task(feed(reader))
        await follower.until(b"event: a\n", 6)
        with pytest.raises(RuntimeError, match="ended after 0 of 1"):
            await follower.until(b"event: a\n", 1)
        await feeding

    asyncio.run(count())


# --- the soak --------------------------------------------------------------------------------------------------------


def _reading(seconds: float, **found: Any) -> Reading:
    zero = dict.fromkeys(("fds", "threads", "tasks", "processes", "containers", "sandboxes"), 0)
    return Reading(**{"seconds": seconds, "rss_mb": 100.0, "pss_mb": 100.0, "database_mb": 5.0, **zero, **found})


def test_a_soak_finds_what_grew_between_its_second_fifth_and_its_last() -> None:
    readings = [_reading(float(at), pss_mb=100.0 + at, fds=20) for at in range(0, 1000, 50)]
    found = {each.name: each for each in compare(readings, [(300.0, 5.0), (900.0, 25.0)], 1000.0)}
    assert not found["pss_mb"].holds and found["fds"].holds and found["rss_mb"].holds
    assert (found["pss_mb"].start, found["pss_mb"].end) == (375.0, 975.0)
    assert not found["p50_ms"].holds
    assert compare(readings[:3], [], 1000.0) == [], "too short to say anything"


def test_a_soak_names_what_an_idle_server_still_has() -> None:
    before, after = _reading(0, fds=20, tasks=10), _reading(0, fds=25, tasks=11, containers=1)
    assert left_behind(before, after) == [
        "tasks: 10 before, 11 after everything was deleted",
        "containers: 0 before, 1 after everything was deleted",
    ]
