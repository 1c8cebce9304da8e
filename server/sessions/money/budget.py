"""What a session may use up, and whether its next model request still fits. Pure.

Above: `decide` and `asking` for a session's own budget, `spending` for the whole server's. Below: the rates of the
price list. It does not know the log: how much was used, and how long a prompt is, is told to it.

A request is judged by the worst that it can take (`Need`): its prompt as if no cache held any of it, and an answer as
long as it may become. Where that is too much a shorter answer is allowed, down to LEAST tokens; `max_tokens` is no part
of what a provider caches, so the prefix of the prompt stays as it is. Where not even that fits, nothing is asked. What
is spent beyond a bound is therefore at most what the prompt was guessed too short, and never more than one answer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.providers.pricing import Rates

LEAST = 1024
"""Tokens: a shorter answer holds hardly a tool call. An agent whose `max_tokens` are fewer is asked for those."""
MEASURES = ("usd", "tokens", "turns", "seconds")


@dataclass(frozen=True)
class Budget:
    """Bounds on all that a session does. None leaves a measure open."""

    usd: str | None = None
    """List price of its model requests: exact US dollars as text."""
    tokens: int | None = None
    """Of all kinds and all requests: read from a cache, written to one, neither, and answered."""
    turns: int | None = None
    seconds: float | None = None
    """In which it worked."""


@dataclass(frozen=True)
class Spent:
    """What was used up so far. `usd` is None once a request had no known price."""

    usd: Decimal | None = Decimal(0)
    tokens: int = 0
    turns: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Amount:
    """What requests cost, or are reserved to cost."""

    usd: Decimal = Decimal(0)
    tokens: int = 0

    def __add__(self, more: Amount) -> Amount:
        return Amount(self.usd + more.usd, self.tokens + more.tokens)

    def __sub__(self, less: Amount) -> Amount:
        return Amount(self.usd - less.usd, self.tokens - less.tokens)


@dataclass(frozen=True)
class Caps:
    """Bounds on what all sessions together may cost; None is none."""

    usd: Decimal | None = None
    tokens: int | None = None

    def hold(self, amount: Amount) -> bool:
        """Whether so much is within them."""
        within = self.usd is None or amount.usd <= self.usd
        return within and (self.tokens is None or amount.tokens <= self.tokens)


@dataclass(frozen=True)
class Tariff:
    """What is known of a session's requests before any is made."""

    rates: Rates | None
    """None: its model has no known price."""
    max_tokens: int
    head: int
    """Tokens of the system prompt and the tools, estimated."""


@dataclass(frozen=True)
class Need:
    """One request at its worst: tokens of the prompt, and the most of the answer."""

    prompt: int
    answer: int
    rates: Rates | None

    @property
    def least(self) -> int:
        """The shortest answer that is worth asking for."""
        return min(LEAST, self.answer)

    def worst(self, answer: int) -> Amount:
        """What it costs with an answer of so many tokens; no dollars where the price is unknown."""
        prompt, token = (Decimal(0), Decimal(0)) if self.rates is None else self.rates.uncached(self.prompt)
        return Amount(prompt + token * answer, self.prompt + answer)


def fitting(usd: Decimal | None, tokens: int | None, request: Need) -> int:
    """Tokens that the answer to this request may have, where so much is left (None: no bound). 0: too little."""
    most = request.answer
    if tokens is not None:
        most = min(most, tokens - request.prompt)
    if usd is not None:
        if request.rates is None:
            return 0
        prompt, token = request.rates.uncached(request.prompt)
        if prompt > usd:
            return 0
        if token:
            most = min(most, int((usd - prompt) / token))
    return most if most >= request.least else 0


def allowance(budget: Budget, spent: Spent, request: Need, *, begins: bool) -> int:
    """Tokens that the answer to this request may have within the budget; 0 when it must not be made.

    `begins`: it would be the first of a turn.
    """
    if (begins and at_end(budget.turns, spent.turns)) or at_end(budget.seconds, spent.seconds):
        return 0
    usd = None if budget.usd is None else Decimal(budget.usd) - spent.usd if spent.usd is not None else Decimal(-1)
    return fitting(usd, None if budget.tokens is None else budget.tokens - spent.tokens, request)


def admitted(caps: Caps, spent: Amount, reserved: Amount, request: Need) -> int | None:
    """Tokens that the answer to this request may have beside those that are under way.

    0: it does not fit what is left, whatever becomes of them. None: it does, but not while so much is reserved.
    """
    usd = None if caps.usd is None else caps.usd - spent.usd
    tokens = None if caps.tokens is None else caps.tokens - spent.tokens
    answer = fitting(usd, tokens, request)
    return None if answer and not caps.hold(spent + reserved + request.worst(answer)) else answer


def at_end(limit: float | None, used: float) -> bool:
    """Whether a measure has reached its bound."""
    return limit is not None and used >= limit


def used_up(budget: Budget, spent: Spent) -> bool:
    """Whether nothing is left of some measure: the next request or turn would be too much, however small."""
    unpriced = budget.usd is not None and spent.usd is None
    return unpriced or any(entry["left"] <= 0 for entry in left(budget, spent).values())


def left(budget: Budget, spent: Spent) -> dict[str, dict[str, Any]]:
    """`limit`, `used` and `left` of each measure that has a bound and a known use; dollars as decimals."""
    shown = {}
    for name in MEASURES:
        limit, used = getattr(budget, name), getattr(spent, name)
        if limit is not None and used is not None:
            limit = Decimal(limit) if name == "usd" else limit
            shown[name] = {"limit": limit, "used": used, "left": max(limit - used, type(limit)(0))}
    return shown


# --- as it is written and shown --------------------------------------------------------------------------------------


def stored(budget: Budget) -> dict[str, Any]:
    """As JSON-able data: the measures that have a bound."""
    return {name: value for name, value in asdict(budget).items() if value is not None}


def on_the_wire(budget: Budget | None) -> dict[str, Any] | None:
    """The wire's `budget`: the bound in dollars, in whole cents (rounded up, as the wire has none below one)."""
    if budget is None or budget.usd is None:
        return None
    cents = (Decimal(budget.usd) * 100).quantize(Decimal(1), ROUND_UP)
    return {"type": "limit", "max_list_cost": {"amount": str(cents), "currency": "USD"}}


def own(budget: Budget | None) -> dict[str, Any]:
    """The measures that the wire has no words for."""
    return {} if budget is None else {name: value for name, value in stored(budget).items() if name != "usd"}
