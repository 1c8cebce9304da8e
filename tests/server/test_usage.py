"""The session's usage as the wire shows it."""

from __future__ import annotations

import pytest

from server import events
from server.ids import now
from server.sessions.fold import fold
from server.sessions.money.usage import session_usage
from server.sessions.state import SessionState, Usage
from tests.support.factories import THREAD, LogBuilder


def test_a_new_session_has_used_nothing_rather_than_nothing_known() -> None:
    shown = session_usage(SessionState())
    assert shown["input_tokens"] == shown["output_tokens"] == 0
    assert shown["list_cost"] == {"amount": "0", "currency": "USD"}


def test_tokens_are_the_sum_of_the_requests_by_kind() -> None:
    shown = session_usage(SessionState(usage=Usage(1, 2, 3, 4, 5, 6)))
    assert (shown["input_tokens"], shown["output_tokens"], shown["cache_read_input_tokens"]) == (1, 2, 3)
    assert shown["cache_creation"] == {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5}
    assert shown["server_tool_use"]["web_search_requests"] == 6


@pytest.mark.parametrize(("cost", "cents"), [("0.004", "0"), ("0.005", "1"), ("12.344", "1234")])
def test_cost_is_whole_cents_rounded_as_people_round(cost: str, cents: str) -> None:
    assert session_usage(SessionState(usage=Usage(cost_usd=cost)))["list_cost"]["amount"] == cents


def test_an_unknown_price_is_left_out_rather_than_guessed() -> None:
    assert "list_cost" not in session_usage(SessionState(usage=Usage(cost_usd=None)))


def test_the_time_of_the_turn_that_runs_is_counted() -> None:
    log = LogBuilder()
    log.add(events.turn_started(THREAD, "agent"))
    state = fold(SessionState(), log.events)
    assert session_usage(state, now())["active_seconds"] > 0
