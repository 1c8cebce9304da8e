"""The query string: kinds, bounds, and names that nobody declared."""

from __future__ import annotations

import pytest

from server.doors.rest.query import Query
from server.errors import InvalidRequest

KNOWN = ("limit", "order", "types[]", "archived", "created_at[gte]", "created_at[lt]", "name")


def query(raw: str | bytes) -> Query:
    return Query.parse(raw.encode() if isinstance(raw, str) else raw, KNOWN)


def test_parameters_are_read_by_kind() -> None:
    asked = query("limit=20&archived=true&types%5B%5D=a&types[]=b&name=a%20b+c&order=asc")
    assert asked.number("limit", 1, 100) == 20
    assert asked.flag("archived") and asked.many("types[]") == ["a", "b"]
    assert asked.text("name") == "a b c" and asked.choice("order", ("asc", "desc"), "desc") == "asc"


def test_what_was_not_given_has_its_default() -> None:
    asked = query("")
    assert asked.number("limit", 1, 100) is None and asked.text("name") is None
    assert not asked.flag("archived") and asked.many("types[]") == [] and asked.times("created_at") == {}
    assert asked.choice("order", ("asc", "desc"), "desc") == "desc"


def test_the_beta_flag_of_older_clients_is_accepted() -> None:
    assert query("beta=true&limit=1").number("limit", 1, 2) == 1


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ("limti=3", "limti"),
        ("types=a", "types"),
        ("limit=1&limit=2", "limit"),
        ("name=%ff", "percent-encoded"),
        (b"name=\xff", "percent-encoded"),
        ("&".join(["types[]=a"] * 1001), "query string"),
    ],
)
def test_a_query_that_cannot_be_honoured_is_refused_by_name(raw: str | bytes, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        query(raw)


@pytest.mark.parametrize("given", ["0", "101", "-1", "1.5", "", "ten", "\u0661", "9" * 30])
def test_numbers_outside_their_bounds_are_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match="limit: must be a whole number from 1 to 100"):
        query(f"limit={given}").number("limit", 1, 100)


def test_flags_and_choices_name_what_they_take() -> None:
    with pytest.raises(InvalidRequest, match="archived: must be one of false, true"):
        query("archived=yes").flag("archived")
    with pytest.raises(InvalidRequest, match="order: must be one of asc, desc"):
        query("order=up").choice("order", ("asc", "desc"), "desc")


def test_times_come_as_they_are_stored() -> None:
    asked = query("created_at[gte]=2026-01-31T13:00:00%2B01:00&created_at[lt]=2026-02-01t00:00:00.5z")
    assert asked.times("created_at") == {"gte": "2026-01-31T12:00:00.000000Z", "lt": "2026-02-01T00:00:00.500000Z"}


@pytest.mark.parametrize(
    "given", ["2026-01-31", "2026-W05-1T00:00:00Z", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00%2B01:00", "now", ""]
)
def test_what_is_no_time_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest, match=r"created_at\[gte\]: must be an RFC 3339 time"):
        query(f"created_at[gte]={given}").times("created_at")
