"""What a model request costs, by the public list prices in `prices.json`.

Above: the session's budget and usage folds. Below: nothing but the price file. It does not know discounts, batch or
fast mode, regional surcharges, or what an operator really pays: `Prices.load(path)` takes the operator's own file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from server.errors import InvalidRequest
from server.providers import ModelUsage
from server.providers.names import look_up

MILLION = Decimal(1_000_000)
_RATES = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")


@dataclass(frozen=True)
class Rates:
    """USD per million tokens; `long_prompt` holds the rates of requests whose prompt is over `over_tokens`."""

    input: Decimal
    output: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    cache_read: Decimal
    over_tokens: int = 0
    long_prompt: Rates | None = None

    def cost(self, usage: ModelUsage) -> Decimal:
        """USD for the tokens of one request. A long prompt's rates apply to the whole request."""
        writes = usage.cache_creation_5m_input_tokens, usage.cache_creation_1h_input_tokens
        prompt = usage.input_tokens + usage.cache_read_input_tokens + sum(writes)
        if self.long_prompt is not None and prompt > self.over_tokens:
            return self.long_prompt.cost(usage)
        total = (
            self.input * usage.input_tokens
            + self.output * usage.output_tokens
            + self.cache_write_5m * writes[0]
            + self.cache_write_1h * writes[1]
            + self.cache_read * usage.cache_read_input_tokens
        )
        return total / MILLION

    def uncached(self, prompt: int) -> tuple[Decimal, Decimal]:
        """USD of a prompt of so many tokens that no cache holds any of, and of each token of its answer.

        Its marked part is written to the cache for five minutes, which is how requests are marked here.
        """
        if self.long_prompt is not None and prompt > self.over_tokens:
            return self.long_prompt.uncached(prompt)
        return max(self.input, self.cache_write_5m) * prompt / MILLION, self.output / MILLION


@dataclass(frozen=True)
class Prices:
    """A price list: rates by model name, the price of one web search, and the day it was read."""

    as_of: str
    models: Mapping[str, Rates]
    web_search: Decimal

    @classmethod
    def load(cls, path: Path) -> Prices:
        """Read a price file of the shape of `prices.json`. Raises InvalidRequest that names what is wrong with it."""
        try:
            document = json.loads(path.read_text("utf-8"))
            models = {name: _rates(row) for name, row in document["models"].items()}
            return cls(str(document["as_of"]), models, Decimal(document["web_search_per_use"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
            raise InvalidRequest(
                f"The price file {path} cannot be used ({type(error).__name__}: {error}). It must have the shape of "
                "the built-in prices.json: as_of, web_search_per_use and models with " + ", ".join(_RATES) + "."
            ) from error

    def rates(self, model: str) -> Rates | None:
        """The rates of a model name, alias, dated or platform id; None when the list does not have it."""
        return look_up(model, self.models)

    def cost_usd(self, model: str, usage: ModelUsage) -> Decimal | None:
        """USD of one request, exact; None for a model without a known price."""
        rates = self.rates(model)
        if rates is None:
            return None
        return rates.cost(usage) + self.web_search * usage.web_search_requests


def _rates(row: Mapping[str, Any]) -> Rates:
    amount = {name: Decimal(row[name]) for name in _RATES}
    plain = Rates(
        amount["input"],
        amount["output"],
        amount["cache_write_5m"],
        amount["cache_write_1h"],
        amount["cache_read"],
    )
    long_prompt = row.get("long_prompt")
    if long_prompt is None:
        return plain
    return replace(plain, over_tokens=int(long_prompt["over_tokens"]), long_prompt=_rates(long_prompt))


@cache
def list_prices() -> Prices:
    """The built-in list."""
    return Prices.load(Path(__file__).with_name("prices.json"))


def cost_usd(model: str, usage: ModelUsage, prices: Path | None = None) -> Decimal | None:
    """USD of one request by the built-in list, or by the price file `prices`; None for a model without a price.

    Reads the file anew each time: a caller with many requests keeps a `Prices` of its own.
    """
    return (list_prices() if prices is None else Prices.load(prices)).cost_usd(model, usage)
