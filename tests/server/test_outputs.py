"""What a runner says of outputs is hostile input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.sessions.sandboxing.outputs import EARLIEST, read

NOW = "2026-11-22T12:00:00.000000Z"
AT = 1_700_000_000_123_456_789


def entry(**changes: Any) -> dict[str, Any]:
    return {"path": "a/b.csv", "size": 3, "changed": AT, **changes}


def test_a_file_is_as_old_as_its_last_change() -> None:
    (seen,) = read(json.dumps([entry()]).encode(), NOW)
    assert (seen.path, seen.filename, seen.mime_type, seen.size_bytes) == ("a/b.csv", "a/b.csv", "text/csv", 3)
    assert (seen.created_at, seen.changed) == ("2023-11-14T22:13:20.123456Z", str(AT))


@pytest.mark.parametrize("changed", [10**30, -(10**30), -(10**18), 10**19])
def test_an_impossible_time_becomes_a_possible_one(changed: int) -> None:
    (seen,) = read(json.dumps([entry(changed=changed)]).encode(), NOW)
    assert EARLIEST <= seen.created_at <= NOW


@pytest.mark.parametrize(
    "wrong",
    [
        *(entry(path=path) for path in ("/etc/passwd", "../x", "a/../b", "", "a//b", "x\n", "\ud800", "a" * 3000)),
        *(entry(path=path) for path in (7, None)),
        *(entry(size=size) for size in (-1, 1 << 60, "3", True, None, 1.5)),
        *(entry(changed=changed) for changed in ("x", None, 1.5)),
        {},
        [],
        7,
    ],
)  # fmt: skip
def test_what_is_malformed_is_left_out(wrong: Any) -> None:
    assert [seen.path for seen in read(json.dumps([wrong, entry(path="ok")]).encode(), NOW)] == ["ok"]


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[" * 5000, b"null", b"[" + b"9" * 5000 + b"]"])
def test_an_answer_that_is_no_list_holds_nothing(body: bytes) -> None:
    assert read(body, NOW) == []


def test_the_same_path_twice_is_one_file() -> None:
    assert len(read(json.dumps([entry(), entry(size=4)]).encode(), NOW)) == 1
