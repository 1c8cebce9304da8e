"""SQLite: small work done at once, the thread where that would keep others waiting, and what both promise."""

from __future__ import annotations

import asyncio
import math
import shutil
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from server.errors import StoreBlocked, StoreError
from server.store import at_once, sqlite
from server.store.database import Cursor
from server.store.events import HeadMoved
from server.store.gathered import MOST_TOGETHER
from server.store.sqlite import SqliteDatabase

T = TypeVar("T")


def run(folder: Path, story: Callable[[SqliteDatabase], Awaitable[None]]) -> None:
    async def play() -> None:
        database = SqliteDatabase(folder / "t.db")
        await database.open()
        try:
            await database.write(lambda cursor: cursor.execute("CREATE TABLE t (n INTEGER)"))
            await story(database)
        finally:
            await database.close()

    asyncio.run(play())


def insert(number: int) -> Callable[[Cursor], int]:
    """Write it; where it was written: the number of the thread."""

    def work(cursor: Cursor) -> int:
        cursor.execute("INSERT INTO t VALUES (:n)", {"n": number})
        return threading.get_ident()

    return work


async def numbers(database: SqliteDatabase) -> list[int]:
    return [row[0] for row in await database.read(lambda cursor: cursor.all("SELECT n FROM t ORDER BY n"))]


async def together(database: SqliteDatabase, writes: Sequence[Coroutine[None, None, T]]) -> list[T | BaseException]:
    """What comes of writes that begin while the thread is busy with another one."""
    loop, busy, free = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def wait(cursor: Cursor) -> None:
        loop.call_soon_threadsafe(busy.set)
        free.wait(10)

    before = asyncio.create_task(database.write(wait))
    await busy.wait()
    begun = [asyncio.create_task(write) for write in writes]
    for _ in range(5):
        await asyncio.sleep(0)
    free.set()
    await before
    return await asyncio.gather(*begun, return_exceptions=True)


@contextmanager
def ends(database: SqliteDatabase) -> Iterator[list[str]]:
    """The ends of transactions meanwhile."""
    connection = database._write_connection
    assert connection is not None
    ended: list[str] = []
    connection.set_trace_callback(lambda sql: ended.append(sql) if sql in ("COMMIT", "ROLLBACK") else None)
    yield ended
    connection.set_trace_callback(None)


def test_a_small_write_is_made_at_once_and_a_large_one_in_the_thread(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        told: list[int] = []
        assert await database.write(insert(1), small=True, done=told.append) == threading.get_ident()
        assert await database.write(insert(2), done=told.append) != threading.get_ident()
        assert len(told) == 2
        assert await numbers(database) == [1, 2]

    run(tmp_path, story)


def test_small_writes_keep_their_order_behind_what_the_thread_has(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        free = threading.Event()

        def wait(cursor: Cursor) -> None:
            free.wait(10)
            cursor.execute("INSERT INTO t SELECT 10 + COUNT(*) FROM t")

        first = asyncio.create_task(database.write(wait))
        await asyncio.sleep(0)
        second = asyncio.create_task(database.write(insert(2), small=True))
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(first, second)
        assert await numbers(database) == [2, 10]

    run(tmp_path, story)


def test_a_small_write_waits_for_another_process_without_holding_up_the_loop(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(database.write(insert(3), small=True))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("COMMIT")
        other.close()
        await waiting
        assert await numbers(database) == [3]

    run(tmp_path, story)


def test_those_that_queue_behind_a_lock_give_up_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(database: SqliteDatabase) -> None:
        monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.4)
        other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(30):  # one after the other they would take forty seconds
            many = [database.write(insert(number), small=True) for number in range(100)]
            refused = await asyncio.gather(*many, return_exceptions=True)
        assert {type(error) for error in refused} == {StoreBlocked}
        other.close()
        await database.write(insert(1), small=True)
        assert await numbers(database) == [1]

    run(tmp_path, story)


def test_small_writes_that_come_while_one_is_made_share_a_commit(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        told: list[int] = []
        with ends(database) as ended:
            await together(database, [database.write(insert(n), small=True, done=told.append) for n in range(30)])
        assert await numbers(database) == list(range(30))
        assert len(told) == 30
        assert ended == ["COMMIT"] * (1 + math.ceil(30 / MOST_TOGETHER))

    run(tmp_path, story)


def test_many_writers_wait_for_the_disk_in_the_thread_and_few_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLOW_SECONDS", "STALL_SECONDS", "COMPANY_SECONDS"):  # this machine may be as slow as it likes
        monkeypatch.setattr(at_once, name, 60.0)

    async def story(database: SqliteDatabase) -> None:
        async def write(writers: int) -> int:
            """Commits of sixty writes by so many, each as soon as its last one is durable."""

            async def one(name: str) -> None:
                for _ in range(60 // writers):
                    await database.write(insert(1), small=True, by=name)

            with ends(database) as ended:
                await asyncio.gather(*(one(f"{writers}.{n}") for n in range(writers)))
            return len(ended)

        assert await write(at_once.MANY - 1) == 60
        assert await write(3 * at_once.MANY) < 30

    run(tmp_path, story)


def test_of_writes_that_share_a_commit_one_that_fails_leaves_nothing_and_the_others_stay(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        def fail(cursor: Cursor) -> None:
            cursor.execute("INSERT INTO t VALUES (5)")
            cursor.execute("INSERT INTO nowhere VALUES (5)")

        def refuse(cursor: Cursor) -> None:
            cursor.execute("INSERT INTO t VALUES (6)")
            raise HeadMoved

        told: list[object] = []
        works: Sequence[Callable[[Cursor], object]] = (insert(1), fail, insert(2), refuse, insert(3))
        with ends(database) as ended:
            came = await together(database, [database.write(work, small=True, done=told.append) for work in works])
        assert [type(one) for one in came] == [int, StoreError, int, HeadMoved, int]
        assert len(told) == 3 and ended == ["COMMIT"] * 2
        assert await numbers(database) == [1, 2, 3]

    run(tmp_path, story)


def too_much(cursor: Cursor) -> None:
    cursor.execute("INSERT INTO t VALUES (zeroblob(1000000))")


def dangling(cursor: Cursor) -> None:
    cursor.execute("INSERT INTO b VALUES (1)")  # there is no such row of a, which the commit finds


@pytest.mark.parametrize("wrong", [too_much, dangling])
def test_one_that_fails_all_that_share_its_transaction_fails_alone_in_the_end(
    tmp_path: Path, wrong: Callable[[Cursor], None]
) -> None:
    async def story(database: SqliteDatabase) -> None:
        references = "INTEGER REFERENCES a (n) DEFERRABLE INITIALLY DEFERRED"
        await database.write(lambda cursor: cursor.execute("CREATE TABLE a (n INTEGER PRIMARY KEY)"))
        await database.write(lambda cursor: cursor.execute(f"CREATE TABLE b (n {references})"))
        await database.write(lambda cursor: cursor.one("PRAGMA max_page_count=40"))
        told: list[object] = []
        works: Sequence[Callable[[Cursor], object]] = (insert(1), wrong, insert(2))
        came = await together(database, [database.write(work, small=True, done=told.append) for work in works])
        assert [type(one) for one in came] == [int, StoreBlocked if wrong is too_much else StoreError, int]
        assert len(told) == 2
        await database.write(insert(3), small=True)
        assert await numbers(database) == [1, 2, 3]

    run(tmp_path, story)


def test_what_ends_a_group_in_no_common_way_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        def leave(cursor: Cursor) -> None:
            raise asyncio.CancelledError

        writes = [database.write(work, small=True) for work in (insert(1), leave, insert(2))]
        async with asyncio.timeout(10):
            came = await together(database, writes)
        assert [type(one) for one in came] == [asyncio.CancelledError] * 3
        await database.write(insert(3), small=True)
        assert await numbers(database) == [3]

    run(tmp_path, story)


@pytest.mark.parametrize("small", [True, False])
def test_what_waits_when_it_is_closed_is_written_first(tmp_path: Path, small: bool) -> None:
    async def story() -> None:
        database = SqliteDatabase(tmp_path / "t.db")
        await database.open()
        await database.write(lambda cursor: cursor.execute("CREATE TABLE t (n INTEGER)"))

        async def close() -> int:
            for _ in range(3):
                await asyncio.sleep(0)  # those before it have begun to wait
            await database.close()
            return 0

        came = await together(database, [*(database.write(insert(n), small=small) for n in range(3)), close()])
        assert all(isinstance(one, int) for one in came), came
        again = SqliteDatabase(tmp_path / "t.db")
        await again.open()
        assert await numbers(again) == [0, 1, 2]
        await again.close()

    asyncio.run(story())


def test_where_small_writes_are_slow_they_go_to_the_thread_and_one_alone_is_bad_luck(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        def slow(cursor: Cursor) -> None:
            threading.Event().wait(0.02)

        await database.write(slow, small=True)
        assert await database.write(insert(4), small=True) == threading.get_ident()
        for _ in range(at_once.MOST_SLOW):
            await database.write(slow, small=True)
        assert await database.write(insert(5), small=True) != threading.get_ident()

    run(tmp_path, story)


def test_one_that_keeps_the_loop_for_long_is_enough(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        def stalls(cursor: Cursor) -> None:
            threading.Event().wait(2 * at_once.STALL_SECONDS)

        await database.write(stalls, small=True)
        assert await database.write(insert(5), small=True) != threading.get_ident()

    run(tmp_path, story)


def test_a_small_read_is_made_at_once_and_sees_what_was_written_just_now(tmp_path: Path) -> None:
    def where(cursor: Cursor) -> tuple[int, int]:
        row = cursor.one("SELECT COUNT(*) FROM t")
        assert row is not None
        return row[0], threading.get_ident()

    async def story(database: SqliteDatabase) -> None:
        here = threading.get_ident()
        await database.write(insert(1), small=True)
        assert await database.read(where, small=True) == (1, here)
        await database.write(insert(2))
        assert await database.read(where, small=True) == (2, here)
        counted, there = await database.read(where)
        assert counted == 2 and there != here

        def slow(cursor: Cursor) -> None:
            threading.Event().wait(0.02)

        for _ in range(at_once.MOST_SLOW):
            await database.read(slow, small=True)
        assert (await database.read(where, small=True))[1] != here
        assert await database.write(insert(3), small=True) == here, "what is read says nothing of the disk"

    run(tmp_path, story)


def test_a_small_read_that_fails_is_told_as_any_other(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        with pytest.raises(StoreError, match="no such table"):
            await database.read(lambda cursor: cursor.all("SELECT * FROM nowhere"), small=True)
        assert await database.read(lambda cursor: cursor.all("SELECT n FROM t"), small=True) == []

    run(tmp_path, story)


@pytest.mark.parametrize("small", [True, False])
def test_a_failing_write_leaves_nothing_and_the_next_one_works(tmp_path: Path, small: bool) -> None:
    async def story(database: SqliteDatabase) -> None:
        def fail(cursor: Cursor) -> None:
            cursor.execute("INSERT INTO t VALUES (5)")
            cursor.execute("INSERT INTO nowhere VALUES (5)")

        told: list[None] = []
        with pytest.raises(StoreError, match="nowhere"):
            await database.write(fail, small=small, done=told.append)
        assert told == []
        await database.write(insert(6), small=small)
        assert await numbers(database) == [6]

    run(tmp_path, story)


@pytest.mark.parametrize("small", [True, False])
def test_whoever_was_cancelled_is_told_of_by_done(tmp_path: Path, small: bool) -> None:
    async def story(database: SqliteDatabase) -> None:
        told = asyncio.Event()
        before = asyncio.create_task(database.write(lambda cursor: None))
        await asyncio.sleep(0)
        writing = asyncio.create_task(database.write(insert(7), small=small, done=lambda _: told.set()))
        await asyncio.sleep(0)
        await before
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await asyncio.wait_for(told.wait(), 10)
        assert await numbers(database) == [7]

    run(tmp_path, story)


def test_the_log_has_its_usual_length_from_the_start_and_a_crash_finds_what_was_committed(tmp_path: Path) -> None:
    async def story(database: SqliteDatabase) -> None:
        for n in range(3):
            await database.write(insert(n), small=True)
        for name in ("t.db", "t.db-wal"):  # what a killed process leaves
            shutil.copy(tmp_path / name, tmp_path / f"left-{name}")
        assert (tmp_path / "t.db-wal").stat().st_size >= sqlite.STRETCH_BYTES
        assert (tmp_path / "t.db").stat().st_size < 100_000
        left = SqliteDatabase(tmp_path / "left-t.db")
        await left.open()
        assert await numbers(left) == [0, 1, 2]
        await left.write(insert(3), small=True)
        assert await left.read(lambda cursor: cursor.all("PRAGMA integrity_check")) == [("ok",)]
        assert await left.read(lambda cursor: cursor.all("SELECT name FROM sqlite_master")) == [("t",)]
        await left.close()

    run(tmp_path, story)


def test_a_full_disk_gets_back_what_the_log_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PRAGMAS", (*sqlite.PRAGMAS, "max_page_count=100"))
    run(tmp_path, a_write_fits)
    assert not (tmp_path / "t.db-wal").exists()


def test_a_database_behind_a_symbolic_link_has_its_log_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "t.db").symlink_to(tmp_path / "elsewhere" / "real.db")
    run(tmp_path, a_write_fits)
    assert (tmp_path / "elsewhere" / "real.db").exists()


async def a_write_fits(database: SqliteDatabase) -> None:
    size = database._log.stat().st_size
    assert (size >= sqlite.STRETCH_BYTES) is ("max_page_count=100" not in sqlite.PRAGMAS), size
    await database.write(insert(1), small=True)
    assert await numbers(database) == [1]


def test_whoever_is_cancelled_with_a_group_in_the_thread_leaves_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(database: SqliteDatabase) -> None:
        busy, free = threading.Event(), threading.Event()

        def two_rows(cursor: Cursor) -> None:
            cursor.execute("INSERT INTO t VALUES (1)")
            busy.set()
            free.wait(10)
            cursor.execute("INSERT INTO t VALUES (2)")

        monkeypatch.setattr(at_once.AtOnce, "allowed", False)
        writing = asyncio.create_task(database.write(two_rows, small=True))
        await asyncio.to_thread(busy.wait, 10)
        assert database._gathering is not None
        database._gathering.cancel()
        await asyncio.sleep(0)
        free.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await numbers(database) == []
        await database.write(insert(3), small=True)
        assert await numbers(database) == [3]

    run(tmp_path, story)


def test_one_that_cannot_lengthen_the_log_goes_on_with_a_short_one(tmp_path: Path) -> None:
    async def story() -> None:
        other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE t (n INTEGER)")
        other.execute("BEGIN IMMEDIATE")
        database = SqliteDatabase(tmp_path / "t.db")
        await database.open()
        other.execute("COMMIT")
        other.close()
        assert (tmp_path / "t.db-wal").stat().st_size < sqlite.STRETCH_BYTES
        await database.write(insert(1), small=True)
        assert await numbers(database) == [1]
        await database.close()

    asyncio.run(story())


def test_a_small_write_to_a_broken_file_fails_in_our_words(tmp_path: Path) -> None:
    async def story() -> None:
        database = SqliteDatabase(tmp_path / "t.db")
        await database.open()
        other = sqlite3.connect(tmp_path / "t.db")
        other.execute("CREATE TABLE t (n INTEGER)")  # what is in the cache does not count any more
        for name in ("t.db", "t.db-wal"):
            (tmp_path / name).write_bytes(b"no database at all " * 1000)
        try:
            with pytest.raises(StoreError, match="cannot be read"):
                await database.write(insert(8), small=True)
        finally:
            other.close()
            await database.close()

    asyncio.run(story())
