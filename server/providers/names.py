"""A model goes by many names: finding it in a table that is keyed by the plain one. Pure.

Above: the tables of prices and of context windows. Below: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_PLATFORM = re.compile(r"^(?:(?:[a-z]+\.)?anthropic[./])")
"""Bedrock's `anthropic.` and `us.anthropic.`, and `anthropic/` of gateways."""
_REVISION = re.compile(r"(?:\[1m\]|-latest|[-@]\d{8}|-v\d+(?::\d+)?)$")
"""What may follow a model's name and leaves the model the same: date, Bedrock revision, window, `-latest`."""


def look_up(model: str, table: Mapping[str, T]) -> T | None:
    """The entry of a model's name, alias, dated or platform id; None where the table has none."""
    name = _PLATFORM.sub("", model)
    while name not in table:
        shorter = _REVISION.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return table[name]
