"""Identifiers and the clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from server.ids import new_id, now


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
