"""Following the log: nothing lost, nothing twice, text as it is written in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from server import events
from server.events import NewEvent, StoredEvent
from server.sessions import log as log_module
from server.sessions.log import MAX_DELTAS, Delta, Log
from tests.support.factories import PATIENCE, SESSION, THREAD, open_log


def on_log(folder: Path, work: Callable[[Log], Awaitable[Any]]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE), open_log(folder) as (_, log):
            await work(log)

    asyncio.run(scenario())


def said(n: int) -> list[NewEvent]:
    return [events.user_message(THREAD, [events.text(str(n))])]


def delta(event_id: str, text: str, after: int) -> Delta:
    return Delta(SESSION, event_id, "agent.message", text, after)


async def take(following: AsyncIterator[StoredEvent | Delta], count: int) -> list[StoredEvent | Delta]:
    return [await anext(following) for _ in range(count)]


def names(items: list[StoredEvent | Delta]) -> list[str | int]:
    return [item.text if isinstance(item, Delta) else item.seq for item in items]


def test_followers_get_every_event_once_and_in_order_however_they_and_the_writers_interleave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "PAGE", 7)
    writers, each = 4, 25

    async def work(log: Log) -> None:
        async def write(n: int) -> None:
            for _ in range(each):
                await log.append_input(SESSION, said(n))

        async def follow(pause: int) -> list[str | int]:
            seen = []
            async with aclosing(log.follow(SESSION, deltas=pause == 1)) as following:
                async for item in following:
                    seen.append(item)
                    for _ in range(pause):
                        await asyncio.sleep(0)
                    if len(seen) == writers * each:
                        return names(seen)
            raise AssertionError("a follower ends only when it is closed")

        seen = await asyncio.gather(*(follow(pause) for pause in (0, 1, 40)), *(write(n) for n in range(writers)))
        assert all(numbers == list(range(1, writers * each + 1)) for numbers in seen[:3])

    on_log(tmp_path, work)


def test_a_follower_begins_after_the_number_it_names(tmp_path: Path) -> None:
    async def work(log: Log) -> None:
        await log.append_input(SESSION, [*said(1), *said(2), *said(3)])
        assert names(await take(log.follow(SESSION, 2), 1)) == [3]

    on_log(tmp_path, work)


def test_a_poke_shows_what_another_process_wrote(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE), open_log(tmp_path) as (store, log):
            following = log.follow(SESSION)
            first = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)
            await store.append(SESSION, said(1))  # behind the log's back
            log.poke()
            assert names([await first]) == [1]

    asyncio.run(scenario())


def test_text_comes_after_what_was_stored_before_it_and_before_the_event_that_holds_it(tmp_path: Path) -> None:
    async def work(log: Log) -> None:
        await log.append_input(SESSION, said(1))
        following = log.follow(SESSION, deltas=True)
        assert names(await take(following, 1)) == [1]
        # While the follower is busy with 1, much happens.
        await log.append_input(SESSION, said(2))
        log.publish(delta("a", "He", 2))
        log.publish(delta("a", "llo", 2))
        await log.append(SESSION, [events.agent_message(THREAD, "Hello", "a")])
        await log.append_input(SESSION, said(4))
        log.publish(delta("b", "Next", 4))
        assert names(await take(following, 6)) == [2, "He", "llo", 3, 4, "Next"]

    on_log(tmp_path, work)


def test_text_never_overtakes_an_event_even_when_both_come_while_a_page_is_read_out(tmp_path: Path) -> None:
    async def work(log: Log) -> None:
        await log.append_input(SESSION, [*said(1), *said(2)])
        following = log.follow(SESSION, deltas=True)
        await take(following, 2)
        await log.append_input(SESSION, said(3))
        log.publish(delta("a", "Hi", 3))
        assert names(await take(following, 2)) == [3, "Hi"]

    on_log(tmp_path, work)


def test_who_does_not_ask_for_text_as_it_is_written_gets_none(tmp_path: Path) -> None:
    async def work(log: Log) -> None:
        following = log.follow(SESSION)
        first = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        log.publish(delta("a", "Hi", 0))
        await log.append_input(SESSION, said(1))
        assert names([await first]) == [1]

    on_log(tmp_path, work)


def test_a_slow_followers_text_is_a_beginning_without_gaps_and_the_next_text_comes_again(tmp_path: Path) -> None:
    async def work(log: Log) -> None:
        await log.append_input(SESSION, said(1))
        following = log.follow(SESSION, deltas=True)
        await take(following, 1)
        for n in range(MAX_DELTAS + 50):
            log.publish(delta("a", f"{n} ", 1))
        await log.append(SESSION, [events.agent_message(THREAD, "all", "a")])
        got = names(await take(following, MAX_DELTAS + 1))
        assert got == [*(f"{n} " for n in range(MAX_DELTAS)), 2]
        log.publish(delta("a", "late", 2))
        log.publish(delta("b", "new", 2))
        assert names(await take(following, 1)) == ["new"]

    on_log(tmp_path, work)


def test_a_follower_that_leaves_is_forgotten_and_the_others_go_on(tmp_path: Path) -> None:
    async def work(log: Log) -> None:
        await log.append_input(SESSION, said(1))
        leaving, staying = log.follow(SESSION, deltas=True), log.follow(SESSION, deltas=True)
        await take(leaving, 1)
        await take(staying, 1)
        await leaving.aclose()
        log.publish(delta("a", "Hi", 1))
        assert names(await take(staying, 1)) == ["Hi"]
        await staying.aclose()
        assert not log._channels

    on_log(tmp_path, work)


def test_every_append_is_told_to_the_other_processes(tmp_path: Path) -> None:
    async def work(log: Log) -> None:
        told: list[str] = []
        log.on_append = told.append
        await log.append_input(SESSION, said(1))
        await log.append(SESSION, [events.model_request_start(THREAD)])
        assert told == [SESSION, SESSION]

    on_log(tmp_path, work)
