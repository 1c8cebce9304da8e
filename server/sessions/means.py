"""What every loop of this process works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.providers import ModelProvider
from server.providers.pricing import Prices
from server.sessions.decide import Limits
from server.sessions.log import Log
from server.sessions.sandboxes import Sandboxes


@dataclass(frozen=True)
class Means:
    """The log, the model, the sandboxes, and the bounds."""

    log: Log
    provider: Callable[[str], ModelProvider]
    """The provider for a model's name."""
    sandboxes: Sandboxes
    prices: Prices
    limits: Limits
