"""Bodies: what parses and still could not be stored is refused with a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import cast

import pytest
from starlette.requests import Request

from server.doors.rest import body
from server.doors.rest.body import DEEPEST, MOST_VALUES, json_object
from server.doors.rest.envelope import refusal
from server.errors import BodyTimeout, InvalidRequest

JSON = "application/json"


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def test_an_object_is_read_and_nothing_is_an_empty_one() -> None:
    assert json_object(b'{"a": ["\xc3\xa4", 1, null]}', "application/json; charset=utf-8") == {"a": ["ä", 1, None]}
    assert json_object(b"", "") == {}
    assert json_object(b"{}", "") == {}
    assert json_object(json.dumps({"face": "\U0001f600"}).encode(), JSON) == {"face": "\U0001f600"}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        (rb'{"a": "\ud800"}', "surrogate"),
        (rb'{"\udfff": 1}', "surrogate"),
        (nested(DEEPEST + 1), "nested too deeply"),
        (nested(100_000), "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_reason(raw: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        json_object(raw, JSON)


def test_nesting_has_a_bound_that_is_allowed() -> None:
    assert json_object(nested(DEEPEST), JSON)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_body_of_another_kind_is_refused(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="Content-Type must be application/json"):
        json_object(b"{}", kind)


def test_another_charset_is_refused_with_the_wires_code() -> None:
    with pytest.raises(InvalidRequest) as charset:
        json_object(b"{}", "application/json; charset=latin-1")
    assert charset.value.code == "unsupported_charset"


def test_values_are_counted_before_they_are_made_and_text_is_none() -> None:
    for many in (b"[]", b"{}", b"0", b'"a,b"'):
        with pytest.raises(InvalidRequest, match="more than 500,000 values"):
            json_object(b'{"a": [' + many + (b"," + many) * MOST_VALUES + b"]}", JSON)
    text = "[{," * MOST_VALUES + '\\"'
    assert json_object(json.dumps({"text": text}).encode(), JSON) == {"text": text}


class Dribbling:
    """A request whose body begins."""

    headers: Mapping[str, str] = {}

    async def stream(self) -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()


def test_a_body_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(BodyTimeout) as caught:
        asyncio.run(body.whole(cast(Request, Dribbling())))
    assert refusal(caught.value, "req_1").headers["connection"] == "close"
    assert (caught.value.status, caught.value.code) == (408, "request_body_timeout")
