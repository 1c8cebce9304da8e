"""Results of the sandbox as content blocks; the sandbox is not to be trusted."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sandbox.wire import Result
from server.providers.scripted.validation import refusal
from server.tools.render import MAX_TEXT, render


def text(ok: bool, body: bytes = b"", **meta: Any) -> str:
    content, is_error = render(Result("op", ok, body, meta))
    assert is_error is not ok
    (block,) = content
    assert block["type"] == "text"
    return str(block["text"])


@pytest.mark.parametrize(
    ("body", "meta", "shown"),
    [
        (b"hi\n", {}, "hi\n"),
        (b"", {}, "(no output)"),
        (b"\n \n", {}, "(no output)"),
        (b"hi\n", {"exit_code": 0}, "hi\n"),
        (b"hi\n", {"exit_code": 2}, "hi\n[exit code 2]"),
        (b"", {"exit_code": 1}, "[exit code 1]"),
        (b"hi", {"notes": ["cut"]}, "hi\n[cut]"),
        (b"a\0\xff", {}, "a\ufffd\ufffd"),
        (b"hi", {"notes": "no list", "exit_code": "no number", "media_type": ["x"]}, "hi"),
        (b"hi", {"notes": [5, None]}, "hi"),
    ],
)
def test_output_as_text(body: bytes, meta: dict[str, Any], shown: str) -> None:
    assert text(True, body, **meta) == shown


def test_a_runner_that_does_not_cut_is_cut() -> None:
    assert len(text(True, b"x" * (MAX_TEXT * 2), notes=["y"] * 50)) < MAX_TEXT + 200


@pytest.mark.parametrize(("media", "kind"), [("image/png", "image"), ("application/pdf", "document")])
def test_pictures_and_documents_are_blocks_of_their_own(media: str, kind: str) -> None:
    data = b"\x89PNG\r\n\x1a\n" if kind == "image" else b"%PDF-1.7"
    content, is_error = render(Result("op", True, data, {"media_type": media}))
    assert not is_error
    assert content == [
        {
            "type": kind,
            "source": {"type": "base64", "media_type": media, "data": base64.b64encode(data).decode()},
        }
    ]


def test_an_error_is_text_whatever_it_says_it_is_because_the_api_takes_nothing_else() -> None:
    assert text(False, b"no", media_type="image/png") == "no"


@pytest.mark.parametrize("body", [b"", b"\n", b"x", b"\0"])
@pytest.mark.parametrize("ok", [True, False])
def test_every_result_is_one_that_the_api_takes(ok: bool, body: bytes) -> None:
    content, is_error = render(Result("op", ok, body))
    use = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, "is_error": is_error}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    tool = {"name": "bash", "description": "d", "input_schema": {"type": "object"}}
    assert refusal({"model": "m", "max_tokens": 1, "messages": messages, "tools": [tool]}) is None
