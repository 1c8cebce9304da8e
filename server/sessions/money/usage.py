"""The session's usage as the wire shows it, folded from its requests. Pure."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from server.sessions.state import SessionState, active_seconds


def session_usage(state: SessionState, at: str | None = None) -> dict[str, Any]:
    """Tokens, cost and active time, that of a running turn up to `at`.

    `list_cost` (whole cents, as text) is absent when a price was unknown.
    `web_fetch_requests` is always 0, as on the hosted service: fetches are free, and so not counted.
    """
    usage = state.usage
    shown: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_creation_5m_input_tokens,
            "ephemeral_1h_input_tokens": usage.cache_creation_1h_input_tokens,
        },
        "active_seconds": active_seconds(state, at),
        "server_tool_use": {"web_search_requests": usage.web_search_requests, "web_fetch_requests": 0},
    }
    if usage.cost_usd is not None:
        cents = (Decimal(usage.cost_usd) * 100).quantize(Decimal(1), ROUND_HALF_UP)
        shown["list_cost"] = {"amount": str(cents), "currency": "USD"}
    return shown
