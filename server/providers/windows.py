"""How much a model can take in at once, by `windows.json`: its context window, and whether its API summarizes.

Above: `app`, which gives it to the sessions. Below: nothing but the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from server.providers.names import look_up

UNKNOWN = 128_000
"""Tokens of a model that no table knows: what most models of today have at least."""


@dataclass(frozen=True)
class Windows:
    """Context windows by model name. `own`, an operator's table, goes before the built-in one."""

    own: Mapping[str, int] = field(default_factory=dict)
    unknown: int = UNKNOWN

    def tokens(self, model: str) -> int:
        """Tokens that a request and its answer may have together."""
        return look_up(model, self.own) or look_up(model, _table()["windows"]) or self.unknown

    def summarizes(self, model: str) -> bool:
        """Whether the model's API has the `compaction` parameter."""
        return look_up(model, dict.fromkeys(_table()["summarize"], True)) is not None


@cache
def _table() -> Any:
    return json.loads(Path(__file__).with_name("windows.json").read_text("utf-8"))
