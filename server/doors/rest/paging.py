"""Pages of a list: opaque cursors that carry a place and an order.

Above: the handlers of lists. Below: what they fetch with. A cursor holds no secret and grants nothing: it is checked
for its form, not signed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.errors import InvalidRequest
from server.sessions.pages import Cut

if TYPE_CHECKING:
    from server.doors.rest.endpoint import Call

Position = tuple[str, str]
"""Of the last element that was seen: what the list is sorted by, mostly `created_at`, and its id."""
Fetch = Callable[[int, Position | None, str], Awaitable[Sequence[Any]]]
"""`(limit, after, order)` -> at most `limit` elements behind that position, in that order (asc, desc); a `Cut` of them
where there are more all the same."""

ORDERS = ("asc", "desc")
_OTHER = {"asc": "desc", "desc": "asc"}
_PLAIN = re.compile(r"[\x20-\x7e]{1,128}")
"""Times and ids are short and plain; anything else in a cursor is not of our making."""
_PREFIX = "page_"
_BAD = "invalid page cursor"


@dataclass(frozen=True)
class Cursor:
    """A place in a list, the order in which it is walked, and whether towards its beginning."""

    order: str
    position: Position
    back: bool = False

    def __str__(self) -> str:
        parts = [self.order, *self.position, int(self.back)]
        return _PREFIX + base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises InvalidRequest."""
        try:
            if not text.startswith(_PREFIX):
                raise ValueError(text)
            code = text.removeprefix(_PREFIX)
            order, first, second, back = json.loads(
                base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_", validate=True)
            )
            if order not in ORDERS or back not in (0, 1) or not (_PLAIN.fullmatch(first) and _PLAIN.fullmatch(second)):
                raise ValueError(text)
        except (ValueError, TypeError, binascii.Error, RecursionError):
            raise InvalidRequest(_BAD) from None
        return cls(order, (first, second), bool(back))


def created(item: Mapping[str, Any]) -> Position:
    """The position of most objects."""
    return str(item["created_at"]), str(item["id"])


async def page(
    call: Call,
    fetch: Fetch,
    *,
    default: int,
    most: int,
    order: str = "desc",
    at: Callable[[Any], Position] = created,
    body: Callable[[Any], Mapping[str, Any]] = lambda item: item,
    both: bool = False,
) -> dict[str, Any]:
    """One page: `{"data", "next_page"}`, as the parameters `limit`, `page` and `order` of the request say.

    default, most   elements of a page, when `limit` is not given and at most
    order           the list's order, unless the endpoint declares `order` and the request gives it
    at              the position of an element
    body            an element as the answer shows it
    both            there is a `prev_page` too, as sessions have; the elements keep their order on the way back
    Raises InvalidRequest for a bad limit, a bad cursor, one of another order, and one that the request's `created_at`
    bounds exclude.
    """
    limit = call.query.number("limit", 1, most) or default
    order = call.query.choice("order", ORDERS, order)
    cursor = _cursor(call, order, both)
    if cursor is not None:
        _check_bounds(call, cursor)
    back = cursor is not None and cursor.back
    found = await fetch(limit + 1, cursor.position if cursor else None, _OTHER[order] if back else order)
    more, data = len(found) > limit or isinstance(found, Cut), list(found[:limit])
    if back:
        data.reverse()
    after = Cursor(order, at(data[-1])) if data and (more or back) else None
    answer: dict[str, Any] = {"data": [body(item) for item in data], "next_page": str(after) if after else None}
    if both:
        before = Cursor(order, at(data[0]), back=True) if data and cursor and (more or not back) else None
        answer["prev_page"] = str(before) if before else None
    return answer


def _cursor(call: Call, order: str, both: bool) -> Cursor | None:
    text = call.query.text("page")
    if text is None:
        return None
    cursor = Cursor.parse(text)
    if cursor.order != order:
        raise InvalidRequest("page token order does not match request")
    if cursor.back and not both:
        raise InvalidRequest(_BAD)
    return cursor


def _check_bounds(call: Call, cursor: Cursor) -> None:
    seen = cursor.position[0]
    inside = {"gt": str.__gt__, "gte": str.__ge__, "lt": str.__lt__, "lte": str.__le__}
    if not all(inside[side](seen, bound) for side, bound in call.query.times("created_at").items()):
        raise InvalidRequest("page token lies outside the created_at filter of this request")
