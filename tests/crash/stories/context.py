"""A turn that outgrows its model's context: results are cleared, and a summary is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.crash.act import Act
from tests.crash.stories.story import DONE, FIRST, Story, counted
from tests.support.scenario import MODEL, call

ROUNDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
PADDING = "; head -c 6000 /dev/zero | tr '\\0' x"


def repeated(name: str) -> Mapping[str, Any]:
    """A round whose answer says the result before it again: what is said cannot be cleared, what is read can."""
    return {"think": f"To {name}.", "say": "$RESULT", **call(counted(name, PADDING))}


async def a_long_turn(act: Act) -> None:
    await act.make(FIRST, *(repeated(name) for name in ROUNDS[1:]), DONE)


async def a_turn_of_large_results(act: Act) -> None:
    await act.make(FIRST, *(call(counted(name, PADDING)) for name in ROUNDS[1:]), DONE)


def _window(tokens: int) -> Mapping[str, str]:
    return {"SKIFF_CONTEXT_WINDOWS": json.dumps({MODEL: tokens})}


LONG = Story(a_long_turn, lines=ROUNDS, settings=_window(12_000))
LARGE = Story(a_turn_of_large_results, lines=ROUNDS, settings=_window(18_000))
