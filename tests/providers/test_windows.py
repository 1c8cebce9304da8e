"""Context windows: by any name of a model, what an operator says before the table, careful where nothing is known."""

from __future__ import annotations

import pytest

from server.providers.pricing import list_prices
from server.providers.windows import Windows


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("claude-opus-5-5", 1_000_000),
        ("claude-haiku-4-5-20251001", 200_000),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000),
        ("claude-sonnet-4-6@20260217", 1_000_000),
        ("invented", 50_000),
        ("mine", 9_000),
        ("claude-opus-4-5-latest", 100_000),
    ],
)
def test_a_window_is_found_by_any_name_of_its_model(model: str, tokens: int) -> None:
    windows = Windows({"mine": 9_000, "claude-opus-4-5": 100_000}, unknown=50_000)
    assert windows.tokens(model) == tokens


def test_every_model_with_a_price_has_a_window() -> None:
    unknown = Windows(unknown=1)
    assert [model for model in list_prices().models if unknown.tokens(model) == 1] == []


def test_only_some_models_summarize_by_themselves() -> None:
    windows = Windows()
    assert windows.summarizes("claude-opus-5") and windows.summarizes("claude-opus-4-6")
    assert not windows.summarizes("claude-haiku-4-5") and not windows.summarizes("invented")
