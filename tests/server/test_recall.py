"""recall: what is found in the log, how it is shown, and that it is bounded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from server import events
from server.events import NewEvent
from server.sessions.conversation.recall import MOST, recall
from server.tools import BadArguments
from server.tools.recall import RECALL, read_query
from tests.support.factories import SESSION, THREAD, open_log

CALL = events.tool_use(THREAD, "bash", {"command": "make"}, permission="allow")
OUTPUT = "begin " + "x" * 50_000 + " Warning: old " + "y" * 50_000
LOG: Sequence[NewEvent] = (
    events.user_message(THREAD, [events.text("Build it.")]),
    *events.turn_started(THREAD, "agent"),
    events.agent_message(THREAD, "I build it."),
    CALL,
    events.tool_result(
        THREAD, CALL.id, [events.text("begin " + "x" * 50_000 + " Warning: old " + "y" * 50_000)], is_error=False
    ),
    events.agent_message("sthr_other", "Another builds it."),
    events.agent_message(THREAD, "It is built."),
)


def ask(folder: Path, **arguments: object) -> str:
    folder.mkdir(exist_ok=True)

    async def story() -> str:
        async with open_log(folder) as (_, log):
            await log.append(SESSION, LOG)
            return await recall(log, SESSION, THREAD, read_query(arguments))

    return asyncio.run(story())


def test_words_are_found_wherever_they_stand_in_the_agents_own_thread(tmp_path: Path) -> None:
    found = ask(tmp_path, query="BUIL")
    assert [line.split(" (")[0] for line in found.splitlines() if line.startswith("#")] == [
        "#1 user",
        "#4 you",
        "#8 you",
    ]
    assert "Another" not in found


def test_a_long_event_is_shown_where_the_words_are(tmp_path: Path) -> None:
    found = ask(tmp_path, query="warning: OLD")
    assert found.startswith("#6 result (100,0") and "x Warning: old y" in found and len(found) < 1_000


def test_events_are_read_as_they_were_in_portions(tmp_path: Path) -> None:
    first = ask(tmp_path / "a", first=1, last=5)
    assert first == '#1 user:\nBuild it.\n\n#4 you:\nI build it.\n\n#5 your call:\nbash {"command": "make"}'
    whole, arguments = "", {"first": 6, "last": 6}
    for n in range(20):
        part = ask(tmp_path / f"b{n}", **arguments)
        assert len(part) < MOST + 200
        head, _, rest = part.partition("\n")
        assert head == "#6 result:"
        portion, _, more = rest.partition("\n\n[There is more: ")
        whole += portion
        if not more:
            break
        arguments = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", more)}
    assert whole == OUTPUT


def test_an_answer_that_is_full_says_where_to_go_on(tmp_path: Path) -> None:
    assert ask(tmp_path, first=1).endswith("[There is more: recall(first=6) goes on.]")
    assert ask(tmp_path / "none", query="zebra") == "Nothing was found."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give a `query`"),
        ({"query": " "}, "give a `query`"),
        ({"first": 0}, "`first` must be"),
        ({"first": 5, "last": 4}, "`last` is before `first`"),
        ({"query": "x", "offset": 5}, "without `query`"),
        ({"number": 5}, "there is no input `number`"),
    ],
)
def test_a_wrong_call_says_what_to_change(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(BadArguments, match=re.escape(words)):
        read_query(arguments)


def test_the_tool_is_offered_like_any_other() -> None:
    assert (
        RECALL.definition()["name"] == "recall" and RECALL.definition()["input_schema"]["additionalProperties"] is False
    )
