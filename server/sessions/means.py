"""What every loop of this process works with."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from server.providers import ModelProvider
from server.providers.pricing import Prices
from server.providers.summary import How
from server.room import Room
from server.sessions.conversation.context import Window
from server.sessions.decide import Limits
from server.sessions.line import Line
from server.sessions.log import Log
from server.sessions.money.budget import Tariff
from server.sessions.money.spending import Spending
from server.sessions.sandboxing.sandboxes import Sandboxes
from server.sessions.spec import Spec


@dataclass(frozen=True)
class Pace:
    """How a loop waits between two tries; tests bring their own, and need not wait."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random


REAL_TIME = Pace()


@dataclass(frozen=True)
class Means:
    """The log, the model, the sandboxes, and the bounds."""

    log: Log
    provider: Callable[[str], ModelProvider]
    """The provider for a model's name."""
    sandboxes: Sandboxes
    prices: Prices
    limits: Limits
    spending: Spending
    room: Room
    turns: Line
    """The sessions that may be at work at the same time."""
    models: Line
    """The model requests that may be under way at the same time, of all sessions."""
    window: Callable[[str], Window]
    """How much the model of this name can take in."""
    summaries: Callable[[str], How]
    """How the model of this name is asked for a summary."""
    pace: Pace = REAL_TIME

    def tariff(self, spec: Spec) -> Tariff:
        """What the requests of a session of this kind take."""
        return Tariff(self.prices.rates(spec.model), spec.max_tokens, spec.head)
