"""Spans of an agent's work, by OpenTelemetry's conventions for generative AI: invoke_agent, chat, execute_tool.

Above: `loop`, `asking`, `hands`. Below: `server.telemetry`. What was said is in no span, and no file's name: a trace
goes to other people than a transcript does. Where nothing exports, a span costs a test of a flag.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from server import telemetry
from server.providers import ModelResponse
from server.sessions.spec import Spec
from server.sessions.state import OpenCall

PROVIDER = "anthropic"
"""As the conventions name it; the scripted model speaks the same API."""


@contextmanager
def agent(session_id: str, spec: Spec) -> Iterator[None]:
    """Around a session at work, from what woke it until it rests."""
    with telemetry.work(
        f"invoke_agent {spec.agent_name}",
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.agent.id": str(spec.agent["id"]),
            "gen_ai.agent.name": spec.agent_name,
            "gen_ai.conversation.id": session_id,
            "gen_ai.request.model": spec.model,
        },
    ):
        yield


@contextmanager
def chat(session_id: str, spec: Spec) -> Iterator[telemetry.Work]:
    """Around a model request; `answered` says what came."""
    with telemetry.work(
        f"chat {spec.model}",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.conversation.id": session_id,
            "gen_ai.request.model": spec.model,
            "gen_ai.request.max_tokens": spec.max_tokens,
        },
    ) as span:
        yield span


def failed(span: telemetry.Work, spec: Spec, kind: str) -> None:
    """Say of a model request that it came to nothing, and count it."""
    span.fail(kind)
    telemetry.spent.failed(spec.model, kind)


def answered(span: telemetry.Work, response: ModelResponse, usd: Decimal | None) -> None:
    """Say of a model request what came of it, and count it. `usd` is its cost, where it is known."""
    usage = response.usage
    written = usage.cache_creation_5m_input_tokens + usage.cache_creation_1h_input_tokens
    cached = usage.cache_read_input_tokens + written
    tokens = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read": usage.cache_read_input_tokens,
        "cache_write": written,
    }
    telemetry.spent.answered(response.model, tokens, usd)
    span.say(
        {
            "gen_ai.response.model": response.model,
            "gen_ai.response.finish_reasons": [response.stop_reason],
            "gen_ai.usage.input_tokens": usage.input_tokens + cached,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_input_tokens,
        }
    )


@contextmanager
def tool(session_id: str, call: OpenCall) -> Iterator[telemetry.Work]:
    """Around a call in the sandbox."""
    with telemetry.work(
        f"execute_tool {call.name}",
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call.id,
            "gen_ai.conversation.id": session_id,
        },
    ) as span:
        yield span
