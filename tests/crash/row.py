"""What rows of the crash matrix are made of: a row, what may come of it, and the places in the program that many name.

Above: `rows`. Below: `site` and `stories`. Places are named by the paths of product functions: when one is renamed, its
rows are never reached, and their tests fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.crash.site import Arguments, Site
from tests.crash.stories.story import Story

Kind = Literal["local", "docker"]
Again = Literal["work", "serve", "mcp"]
Outcome = Literal["sent again", "went on", "asked again", "started", "kept", "re-attached", "unknowable", "made"]

OUTCOMES: Mapping[Outcome, str] = {
    "sent again": "the client had no answer; it sent its request again under the same key, and it was done once",
    "went on": "nothing was under way, or it was whole: the turn went on with the next step",
    "asked again": "a model request was lost: it was closed as failed and made again",
    "started": "a tool call was in the log and had not reached the sandbox: it was sent",
    "kept": "a tool call had ended in the sandbox: its kept result was fetched",
    "re-attached": "a tool call was running in the sandbox: it ran on, and its result came",
    "unknowable": "the sandbox had died with the server: the model was told that the call may or may not have happened",
    "made": "a sandbox was half made: it was finished, or made again; what waited for it was asked again, or sent",
}


@dataclass(frozen=True)
class Point:
    """One row.

    name      unique, and the place of the row
    says      where in a turn this is
    tools     the tools of the call that is under way, if any
    kind      the sandbox
    again     the command that goes on
    typed     it is started from the command line, not forked
    second    a second crash, in the life after the first
    """

    name: str
    says: str
    site: Site
    story: Story
    outcome: Outcome
    kind: Kind = "local"
    again: Again = "work"
    tools: str = ""
    typed: bool = False
    second: Site | None = None


# --- places ----------------------------------------------------------------------------------------------------------

CALL = "sandbox.channel:RunnerChannel.call"
OUTPUT = "sandbox.channel:RunnerChannel._handle_output"
RESULT = "sandbox.channel:RunnerChannel._handle_result"
SETTLE = "sandbox.channel:RunnerChannel.settle"
OPEN = "sandbox.channel:RunnerChannel.open"
APPEND = "server.store.log:LogTable.append"
INSERT = "server.store.log:insert_events"


def kinds(arguments: Arguments) -> set[str]:
    return {event.type for event in arguments["events"]}


def batch(*types: str, without: tuple[str, ...] = ()) -> Callable[[Arguments], bool]:
    """Appends that hold all of these types and none of those."""
    return lambda arguments: set(types) <= kinds(arguments) and not set(without) & kinds(arguments)


def only(kind: str) -> Callable[[Arguments], bool]:
    return lambda arguments: kinds(arguments) == {kind}


def of(operation: type, command: str = "") -> Callable[[Arguments], bool]:
    """Calls of this operation; of bash, those whose command holds this."""

    def matches(arguments: Arguments) -> bool:
        asked = arguments["call"].operation
        return isinstance(asked, operation) and command in getattr(asked, "command", "")

    return matches


def action(words: str) -> Callable[[Arguments], bool]:
    return lambda arguments: arguments["action"] == words


def row(state: str) -> Callable[[Arguments], bool]:
    return lambda arguments: arguments["row"].state == state


def chunk(kind: type, **fields: Any) -> Callable[[Arguments], bool]:
    def matches(arguments: Arguments) -> bool:
        item = arguments["item"]
        return isinstance(item, kind) and all(getattr(item, name) == value for name, value in fields.items())

    return matches


def append(
    name: str,
    says: str,
    story: Story,
    batch: Callable[[Arguments], bool],
    outcomes: tuple[Outcome, Outcome],
    *,
    nth: int = 1,
    **more: Any,
) -> list[Point]:
    """Before an append, within its transaction, and after it. `outcomes`: while it is not stored, and once it is."""
    lost, stored = outcomes
    return [
        Point(f"{name}-before", f"{says}: before the append", Site(APPEND, "before", batch, nth), story, lost, **more),
        Point(
            f"{name}-within",
            f"{says}: rows written, not committed",
            Site(INSERT, "after", batch, nth),
            story,
            lost,
            **{**more, "typed": False},
        ),
        Point(
            f"{name}-after",
            f"{says}: committed",
            Site(APPEND, "after", batch, nth),
            story,
            stored,
            **{**more, "typed": False},
        ),
    ]


DOCKER: Mapping[str, Any] = {"kind": "docker"}
SERVE: Mapping[str, Any] = {"again": "serve"}
