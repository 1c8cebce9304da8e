"""What the provider tests share: a key for the SDK, the strict API over HTTP, and short ways to ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from server.providers import Chunk, ModelProvider, ModelRequest, ModelResponse
from tests.support.messages_api import MessagesAPI, messages_api

BASH = {"name": "bash", "description": "Run a command.", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test")
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)


@pytest.fixture
def api() -> Iterator[MessagesAPI]:
    with messages_api() as api:
        yield api


def script(*steps: dict[str, Any]) -> str:
    """A user text that holds a script of these steps."""
    return f"Do it.\n```script\n{json.dumps(steps)}\n```"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def request(*messages: dict[str, Any], **fields: Any) -> ModelRequest:
    given = {"model": "claude-opus-5-5", "system": (), "tools": (BASH,), "max_tokens": 1000, **fields}
    return ModelRequest(messages=messages, **given)


async def chunks(provider: ModelProvider, asked: ModelRequest) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(asked)]


async def ask(provider: ModelProvider, asked: ModelRequest) -> ModelResponse:
    last = (await chunks(provider, asked))[-1]
    assert isinstance(last, ModelResponse)
    return last
