"""Prices: exact sums, every spelling of a model's name, and None rather than a guess."""

from __future__ import annotations

import json
import typing
from decimal import Decimal
from pathlib import Path

import pytest
from anthropic.types.model import Model

from server.errors import InvalidRequest
from server.providers import ModelUsage
from server.providers.pricing import cost_usd, list_prices

USAGE = ModelUsage(
    input_tokens=1_000_000,
    output_tokens=1_000_000,
    cache_read_input_tokens=1_000_000,
    cache_creation_5m_input_tokens=1_000_000,
    cache_creation_1h_input_tokens=1_000_000,
    web_search_requests=100,
    web_fetch_requests=100,
)


def test_each_kind_of_token_and_each_search_has_its_price() -> None:
    assert cost_usd("claude-opus-5-5", USAGE) == Decimal("4") + 20 + Decimal("0.2") + 5 + 8 + 1


def test_small_amounts_are_exact() -> None:
    assert cost_usd("claude-sonnet-5-5", ModelUsage(input_tokens=1, output_tokens=1)) == Decimal("0.000012")


@pytest.mark.parametrize(
    "name",
    [
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
        "claude-haiku-4-5@20251001",
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        "anthropic/claude-haiku-4-5",
        "claude-haiku-4-5-latest",
        "claude-haiku-4-5[1m]",
    ],
)
def test_every_spelling_of_a_model_has_its_price(name: str) -> None:
    assert cost_usd(name, ModelUsage(output_tokens=1_000_000)) == 5


def test_a_long_prompt_of_a_banded_model_costs_the_higher_rates_throughout() -> None:
    short = ModelUsage(input_tokens=100_000, output_tokens=1_000_000)
    long = ModelUsage(input_tokens=1, cache_read_input_tokens=100_000, output_tokens=1_000_000)
    assert cost_usd("claude-haiku-5-5", short) == Decimal("0.51")
    assert cost_usd("claude-haiku-5-5", long) == Decimal("2.5") + Decimal("0.005") + Decimal("0.0000005")


def test_an_unknown_model_has_no_price() -> None:
    assert cost_usd("claude-opus-99", USAGE) is None
    assert cost_usd("gpt", USAGE) is None


def test_every_model_that_the_sdk_names_is_priced_or_known_not_to_be() -> None:
    names = {name for part in typing.get_args(Model) for name in typing.get_args(part)}
    missing = {name for name in names if list_prices().rates(name) is None}
    assert missing == {"claude-mythos-5-2", "claude-mythos-preview"}


def test_the_operator_may_bring_a_list(tmp_path: Path) -> None:
    rates = {"input": "1", "output": "2", "cache_write_5m": "0", "cache_write_1h": "0", "cache_read": "0"}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"as_of": "today", "web_search_per_use": "0", "models": {"mine": rates}}))
    assert cost_usd("mine", ModelUsage(input_tokens=1_000_000), path) == 1
    assert cost_usd("claude-opus-5", USAGE, path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"models": {"m": {}}}', '{"as_of": 1, "models": {}}'])
def test_a_price_file_that_cannot_be_used_says_so(content: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match="must have the shape"):
        cost_usd("m", USAGE, path)
