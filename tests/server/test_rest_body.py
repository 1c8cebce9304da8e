"""Bodies: what parses and still could not be stored is refused with a reason."""

from __future__ import annotations

import json

import pytest

from server.doors.rest.body import DEEPEST, json_object
from server.errors import InvalidRequest

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


def test_another_charset_or_encoding_is_refused_with_the_wires_code() -> None:
    with pytest.raises(InvalidRequest) as charset:
        json_object(b"{}", "application/json; charset=latin-1")
    with pytest.raises(InvalidRequest) as encoding:
        json_object(b"{}", JSON, "gzip")
    assert (charset.value.code, encoding.value.code) == ("unsupported_charset", "request_body_encoding_unsupported")
