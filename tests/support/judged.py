"""What the wire says, judged by the official SDK's types: strictly, and with nothing that they do not know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel, TypeAdapter


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def judged(model: Any, body: str | Mapping[str, Any]) -> Any:
    """The JSON as this type of the SDK. Raises for a wrong type, a missing field, and a field that the SDK lacks."""
    raw = body if isinstance(body, str) else json.dumps(body)
    value = _adapter(model).validate_json(raw, strict=True)
    nothing_more(value)
    return value


def nothing_more(value: Any, where: str = "") -> None:
    """Raises AssertionError where a model of the SDK holds a field that it does not know, at any depth."""
    if isinstance(value, BaseModel):
        where = where or type(value).__name__
        assert not value.model_extra, f"{where}: the SDK does not know {sorted(value.model_extra)}"
        for name in type(value).model_fields:
            nothing_more(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            nothing_more(item, f"{where}[{place}]")


def refused(status: int, act: Any, *words: str, kind: str = "invalid_request_error", retry: str | None = None) -> Any:
    """The error with which an act is refused. Its status, type, words, envelope and x-should-retry must be these."""
    with pytest.raises(anthropic.APIStatusError) as caught:
        act()
    error, body = caught.value, caught.value.response.json()
    assert (error.status_code, body["type"], body["error"]["type"]) == (status, "error", kind), body
    assert body["request_id"] == error.response.headers["request-id"]
    assert error.response.headers.get("x-should-retry") == retry
    for word in words:
        assert word in body["error"]["message"], body
    return body["error"]
