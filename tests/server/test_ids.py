"""Identifiers and the clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from server import ids
from server.ids import Clock, ago, new_id, now
from tests.support.clocks import HOUR, Machine


def test_an_id_is_its_prefix_and_24_characters_that_nobody_mistakes() -> None:
    assert re.fullmatch(r"sevt_[0-9A-HJKMNP-TV-Z]{24}", new_id("sevt"))


def test_ids_do_not_repeat_and_sort_by_age() -> None:
    ids = [new_id("sevt") for _ in range(2_000)]
    clocks = [made[len("sevt_") :][:9] for made in ids]
    assert len(set(ids)) == len(ids)
    assert clocks == sorted(clocks)


def test_the_clock_writes_rfc_3339_in_utc_with_microseconds() -> None:
    written = now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", written)
    assert datetime.fromisoformat(written).tzinfo == UTC


def test_a_clock_that_is_set_back_goes_on_from_where_it_stood_until_the_wall_has_caught_up() -> None:
    machine = Machine()
    clock = machine.clock()
    start = clock.read()
    machine.set(-3 * HOUR)
    machine.passes(60)
    assert clock.read() - start == 60 * 10**9
    machine.passes(3 * HOUR)
    machine.set(3 * HOUR)
    machine.passes(1)
    assert clock.read() - start == (3 * HOUR + 61) * 10**9
    assert clock.ahead == 0


def test_a_step_ahead_is_followed_and_known_to_be_no_time_that_was_spent() -> None:
    machine = Machine()
    clock = machine.clock()
    start = clock.read()
    machine.set(2 * HOUR)
    machine.passes(30)
    assert clock.read() - start == (2 * HOUR + 30) * 10**9
    assert clock.ahead == 2 * HOUR
    machine.passes(5 * HOUR)
    clock.read()
    assert clock.ahead == 2 * HOUR, "a long quiet is no step"


def test_nothing_gets_older_by_a_step_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(ids, "CLOCK", machine.clock())
    before = now()
    machine.set(100 * HOUR)
    assert now() > before and ago(24 * HOUR) < before
    machine.passes(25 * HOUR)
    assert ago(24 * HOUR) > before


def test_ids_sort_by_age_although_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(ids, "CLOCK", machine.clock())
    first = new_id("sevt")
    machine.set(-5 * HOUR)
    machine.passes(1)
    assert new_id("sevt") > first


def test_what_keeps_clocks_right_by_and_by_is_no_step() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(100):
        machine.passes(10)
        machine.set(0.001)
        clock.read()
    assert clock.ahead == 0
    assert isinstance(clock, Clock)
