"""Pages: every element once, in order, forth and back; cursors that are not ours."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.doors.rest.endpoint import Call
from server.doors.rest.paging import Cursor, Position, page
from server.doors.rest.query import Query
from server.errors import InvalidRequest

KNOWN = ("limit", "page", "order", "created_at[gte]", "created_at[lt]")
ITEMS = [{"id": f"x_{n:02}", "created_at": f"2026-01-01T00:00:{n // 3:02}.000000Z"} for n in range(20)]


def walk(items: Sequence[Mapping[str, Any]], both: bool = False, since: str = "", **asked: Any) -> dict[str, Any]:
    """One page of the items, as a handler answers it."""

    async def fetch(limit: int, after: Position | None, order: str) -> Sequence[Mapping[str, Any]]:
        def place(item: Mapping[str, Any]) -> Position:
            return item["created_at"], item["id"]

        ordered = sorted(items, key=place, reverse=order == "desc")
        if after is not None:
            ordered = [x for x in ordered if (place(x) > after if order == "asc" else place(x) < after)]
        return ordered[:limit]

    if since:
        asked["created_at[gte]"] = since
    query = Query.parse(urlencode(asked).encode(), KNOWN)
    call = Call(None, {}, query, {}, None, None)  # type: ignore[arg-type]
    return asyncio.run(page(call, fetch, default=5, most=10, both=both))


@given(count=st.integers(0, 20), limit=st.integers(1, 10), order=st.sampled_from(["asc", "desc"]))
def test_pages_hold_every_element_once_and_in_order(count: int, limit: int, order: str) -> None:
    items, seen = ITEMS[:count], []
    answer = walk(items, limit=limit, order=order)
    while True:
        assert len(answer["data"]) <= limit
        seen += [item["id"] for item in answer["data"]]
        if answer["next_page"] is None:
            break
        answer = walk(items, limit=limit, order=order, page=answer["next_page"])
    assert seen == sorted((item["id"] for item in items), reverse=order == "desc")


@given(limit=st.integers(1, 7), order=st.sampled_from(["asc", "desc"]))
def test_the_way_back_shows_the_same_pages(limit: int, order: str) -> None:
    answer = walk(ITEMS, both=True, limit=limit, order=order)
    assert answer["prev_page"] is None
    forth = [answer["data"]]
    while answer["next_page"]:
        answer = walk(ITEMS, both=True, limit=limit, order=order, page=answer["next_page"])
        forth.append(answer["data"])
    back = [answer["data"]]
    while answer["prev_page"]:
        answer = walk(ITEMS, both=True, limit=limit, order=order, page=answer["prev_page"])
        back.append(answer["data"])
    assert back[::-1] == forth


def test_an_element_that_comes_meanwhile_is_shown_by_no_page_behind_it() -> None:
    first = walk(ITEMS[:10], order="desc")
    second = walk(ITEMS, order="desc", page=first["next_page"])
    assert [item["id"] for item in second["data"]] == [f"x_{n:02}" for n in (4, 3, 2, 1, 0)]


def test_the_limit_has_a_default_and_a_bound() -> None:
    assert len(walk(ITEMS)["data"]) == 5
    with pytest.raises(InvalidRequest, match="limit: must be a whole number from 1 to 10"):
        walk(ITEMS, limit=11)


def test_a_cursor_of_another_order_is_refused() -> None:
    cursor = walk(ITEMS, order="desc")["next_page"]
    with pytest.raises(InvalidRequest, match="page token order does not match request"):
        walk(ITEMS, order="asc", page=cursor)


def test_a_cursor_outside_the_time_bounds_is_refused() -> None:
    cursor = walk(ITEMS, order="asc")["next_page"]
    walk(ITEMS, order="asc", page=cursor, since="2026-01-01T00:00:00Z")
    with pytest.raises(InvalidRequest, match="outside the created_at filter"):
        walk(ITEMS, order="asc", page=cursor, since="2026-01-02T00:00:00Z")


def _forged(*parts: Any) -> str:
    return "page_" + base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "page_",
        "nonsense",
        "page_!!!!",
        "page_" + base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        _forged(),
        _forged("desc", "a"),
        _forged("up", "a", "b", 0),
        _forged("desc", 1, 2, 0),
        _forged("desc", "a" * 200, "b", 0),
        _forged("desc", "a\0", "b", 0),
        _forged(["desc"], "a", "b", 0),
        str(Cursor("desc", ("a", "b"), back=True)),
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^invalid page cursor$"):
        walk(ITEMS, page=cursor)
