"""recall: look up what was said and done before, and is no longer in the model's context.

It reads the session's log in the engine and never touches the sandbox. It is offered from the first time on that
something is cleared or compacted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.tools import BadArguments, Offered

_NUMBER = {"type": "integer", "minimum": 1}

RECALL = Offered(
    "recall",
    "Look up what happened earlier in this conversation and is no longer in your context: messages, your calls and"
    " their results, each under its number. Give `query` to search for words (case does not matter), or `first` and"
    " `last` to read events as they were. A long answer is cut and says how to go on.",
    {
        "query": {"type": "string", "description": "Words to find, as they stand in the text."},
        "first": {**_NUMBER, "description": "Number of the first event to look at; omitted: the beginning."},
        "last": {**_NUMBER, "description": "Number of the last event to look at; omitted: the newest."},
        "offset": {
            "type": "integer",
            "minimum": 0,
            "description": "Characters of the first event to pass over, to read on in a long one.",
        },
    },
    (),
)


@dataclass(frozen=True)
class Query:
    """What is looked for."""

    text: str
    first: int
    last: int | None
    offset: int


def read_query(arguments: Mapping[str, Any]) -> Query:
    """A call's input, checked. Raises BadArguments."""
    RECALL.check(arguments)
    text, first, last = arguments.get("query", "").strip(), arguments.get("first"), arguments.get("last")
    if not text and first is None:
        raise BadArguments("recall: give a `query` to search for, or `first`, the number of an event to read from.")
    if last is not None and last < (first or 1):
        raise BadArguments("recall: `last` is before `first`.")
    if text and "offset" in arguments:
        raise BadArguments("recall: `offset` goes with `first` and without `query`.")
    return Query(text, first or 1, last, arguments.get("offset", 0))
