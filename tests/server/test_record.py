"""A session's log as its loop knows it: what it foresees is what comes, and what comes otherwise is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from server import events
from server.events import NewEvent
from server.sessions.decide import Limits
from server.sessions.fold import fold
from server.sessions.log import Log
from server.sessions.record import Record
from server.sessions.state import SessionState
from tests.support.factories import PATIENCE, SESSION, THREAD, open_log


def on_record(folder: Path, work: Callable[[Record, Log], Awaitable[Any]]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE), open_log(folder) as (_, log):
            record = Record(log, SESSION, THREAD, Limits())
            await record.read_on()
            await work(record, log)
            await record.read_on()
            again = Record(log, SESSION, THREAD, Limits())
            await again.read_on()
            assert record.state == again.state == fold(SessionState(), await log.read(SESSION))
            assert record.transcript.said == again.transcript.said

    asyncio.run(scenario())


def call(command: str) -> list[NewEvent]:
    use = events.tool_use(THREAD, "bash", {"command": command}, permission="allow")
    return [*events.turn_started(THREAD, "agent"), use]


def result(of: NewEvent, words: str) -> NewEvent:
    return events.tool_result(THREAD, of.id, [events.text(words)], is_error=False)


def test_what_was_foreseen_is_the_state_once_it_has_come(tmp_path: Path) -> None:
    async def work(record: Record, log: Log) -> None:
        *_, use = new = call("ls")
        await record.append(new)
        done, start = result(use, "a.txt"), events.model_request_start(THREAD)
        first = record.after([done])
        both = record.after([done, start])
        assert not first.calls and both.open_request == start.id
        assert await record.append_if_newest([done, start])
        assert record.state is both, "it was worked out once"

    on_record(tmp_path, work)


@pytest.mark.parametrize("words", ["ends in NUL \0", "half a pair \ud83d"])
def test_what_the_store_cannot_keep_as_it_is_counts_as_it_was_kept(tmp_path: Path, words: str) -> None:
    async def work(record: Record, log: Log) -> None:
        *_, use = new = call("cat")
        await record.append(new)
        assert await record.append_if_newest([result(use, words)])

    on_record(tmp_path, work)


def test_what_somebody_else_appends_meanwhile_is_not_passed_over(tmp_path: Path) -> None:
    async def work(record: Record, log: Log) -> None:
        *_, use = new = call("sleep 1")
        await record.append(new)
        done = result(use, "slept")
        record.after([done])
        await log.append_input(SESSION, [events.user_message(THREAD, [events.text("and now?")])])
        assert not await record.append_if_newest([done])
        await record.append([done])
        assert [item.type for item in record.state.queue] == ["user.message"]

    on_record(tmp_path, work)


def test_asking_about_other_events_begins_anew(tmp_path: Path) -> None:
    async def work(record: Record, log: Log) -> None:
        *_, use = new = call("ls")
        await record.append(new)
        one, other = result(use, "one"), result(use, "other")
        assert record.after([one]).context == record.after([one]).context
        longer = record.after([result(use, "many words " * 100)])
        assert longer.context.tokens > record.after([other]).context.tokens
        assert await record.append_if_newest([one])

    on_record(tmp_path, work)
