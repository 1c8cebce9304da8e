"""What is kept stays small: old sessions, long logs, stale keys, free pages and the write-ahead log."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

from server import events
from server.app import App
from server.engine.upkeep import EVENTS
from server.errors import NotFound
from server.sessions.service import NewSession
from server.store.sessions import AT_ONCE
from server.store.sqlite import LOG_BYTES, SPARE_PAGES, SqliteDatabase
from server.store.store import HeadMoved
from tests.support.factories import PATIENCE, SESSION, THREAD, do_task, open_store, running_app, script, session_row
from tests.support.scenario import eventually

OLD = "2020-01-01T00:00:00.000000Z"
WEATHER = {"type": "custom", "name": "weather", "description": "The weather.", "input_schema": {"type": "object"}}


def sql(folder: Path, statement: str, *parameters: Any) -> list[Any]:
    """Look into the database, or change it, as another program does."""
    with closing(sqlite3.connect(folder / "skiff.db", timeout=10)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


# --- retention -------------------------------------------------------------------------------------------------------


async def parked(app: App) -> str:
    """A session that waits for a client's answer."""
    task = script({"call": [{"tool": "weather", "input": {}}]}, {"say": "$RESULT"})
    made = await app.service.create_session(NewSession(task=task, agent={"tools": [WEATHER]}))
    (view,) = await app.service.wait([made.id], "all", PATIENCE)
    assert view.state.parked
    return made.id


async def at_work(app: App) -> str:
    made = await app.service.create_session(NewSession(task=script({"hang": True, "say": "-"}), agent={"tools": []}))
    return made.id


async def gone(app: App, session_id: str) -> bool:
    try:
        await app.service.view(session_id)
    except NotFound:
        return True
    return False


def test_what_nothing_has_happened_in_for_long_goes_and_whoever_works_or_waits_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running_app(tmp_path) as app:
            idle, archived, young = [(await do_task(app, script({"say": "ok"}))).id for _ in range(3)]
            await app.service.archive_session(archived)
            waits, works = await parked(app), await at_work(app)
            sql(tmp_path, "UPDATE sessions SET created_at = ?, updated_at = ? WHERE id != ?", OLD, OLD, young)
        async with running_app(tmp_path, retention_days=1) as app:
            for session_id in (idle, archived):
                async with aclosing(await app.service.live(session_id)) as frames:
                    assert [frame.event["type"] async for frame in frames] == ["session.deleted"]
            for session_id in (young, waits, works):
                assert not await gone(app, session_id)
            assert sql(tmp_path, "SELECT count(*) FROM events WHERE session_id IN (?, ?)", idle, archived) == [(0,)]

    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records if "SKIFF_RETENTION_DAYS" in record.getMessage()]
    assert all(line.startswith("deleted: nothing had happened for 1 days") for line in said)
    assert sum(line.count("sesn_") for line in said) == 2


def test_a_session_that_moves_on_just_then_is_not_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path) as store:
            await store.create_session(session_row(), [], {})
            (row,) = await store.untouched("2100", ("", ""), 10)
            await store.append(SESSION, [events.user_message(THREAD, [events.text("wait")])], attention=True)
            for head in (row.head, row.head + 1):  # it has moved on; it has something to do
                with pytest.raises(HeadMoved):
                    await store.delete_session(SESSION, if_head=head)
            assert (await store.session(SESSION)).head == 1

    asyncio.run(scenario())


# --- logs of deleted sessions ----------------------------------------------------------------------------------------


def test_a_long_log_goes_in_steps_after_its_session_and_a_crash_in_between_leaves_nothing(tmp_path: Path) -> None:
    def left() -> int:
        return int(sql(tmp_path, "SELECT count(*) FROM events")[0][0])

    async def scenario() -> None:
        many = [events.agent_message(THREAD, "x") for _ in range(AT_ONCE + 2 * EVENTS)]
        async with open_store(tmp_path) as store:
            await store.create_session(session_row(), many, {})
            await store.create_session(session_row("sesn_2"), many[:3], {})
            await store.delete_session(SESSION)
            with pytest.raises(NotFound):
                await store.session(SESSION)
            assert left() == 2 * EVENTS + 3
            assert await store.clear_logs(EVENTS)
            assert left() == EVENTS + 3
        async with running_app(tmp_path):
            await eventually(lambda: _true(left() == 3))
            await eventually(lambda: _true(not sql(tmp_path, "SELECT * FROM removals")))

    asyncio.run(scenario())


async def _true(value: bool) -> bool:
    return value


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_good_for_a_day_and_then_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path) as store:
            await store.create_session(session_row(), [], {}, ("k", "d"))
            for name in ("k", "m"):
                await store.append(SESSION, [events.agent_message(THREAD, "x")], key=(name, "d"))
            sql(tmp_path, "UPDATE request_keys SET created_at = ? WHERE key = 'k'", OLD)
            assert await store.created_under(("k", "d")) is None
            assert len(await store.append(SESSION, [events.agent_message(THREAD, "y")], key=("k", "other"))) == 1
            assert [event.seq for event in await store.appended_under(SESSION, ("k", "other")) or []] == [3]
            sql(tmp_path, "UPDATE request_keys SET created_at = ? WHERE scope = ? AND key = 'm'", OLD, SESSION)
            assert await store.clear_keys(1)
            assert await store.clear_keys(2) is False
            assert sql(tmp_path, "SELECT scope, key FROM request_keys") == [(SESSION, "k")]

    asyncio.run(scenario())


# --- the file --------------------------------------------------------------------------------------------------------

LARGE = "x" * 1_000_000


async def fill(database: SqliteDatabase, megabytes: int) -> None:
    await database.write(lambda cursor: cursor.execute("CREATE TABLE IF NOT EXISTS t (x TEXT)"))
    for _ in range(megabytes):
        await database.write(lambda cursor: cursor.execute("INSERT INTO t VALUES (:x)", {"x": LARGE}))


async def tidied(database: SqliteDatabase) -> None:
    while await database.tidy():
        pass


def test_the_file_gives_back_what_deleted_rows_took_less_a_reserve(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = SqliteDatabase(tmp_path / "t.db")
        await database.open()
        await fill(database, 20)
        await database.write(lambda cursor: cursor.execute("DELETE FROM t"))
        await tidied(database)
        await database.close()
        size = (tmp_path / "t.db").stat().st_size
        assert SPARE_PAGES * 4096 // 2 < size <= (SPARE_PAGES + 100) * 4096

    asyncio.run(scenario())


def test_a_database_that_could_not_give_back_is_made_able_to(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "t.db")) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.execute("CREATE TABLE t (x TEXT)")

    async def scenario() -> None:
        database = SqliteDatabase(tmp_path / "t.db")
        await database.open()
        await fill(database, 20)
        await tidied(database)
        await database.write(lambda cursor: cursor.execute("DELETE FROM t"))
        await tidied(database)
        await database.close()

    asyncio.run(scenario())
    assert (tmp_path / "t.db").stat().st_size <= (SPARE_PAGES + 100) * 4096


def test_the_write_ahead_log_is_emptied_once_a_long_reader_has_gone(tmp_path: Path) -> None:
    log = tmp_path / "t.db-wal"

    async def scenario() -> None:
        database = SqliteDatabase(tmp_path / "t.db")
        await database.open()
        await fill(database, 1)
        with closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
            await fill(database, 20)
            await tidied(database)
            assert log.stat().st_size > LOG_BYTES
            assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,), "it still sees its moment"
        await tidied(database)
        assert log.stat().st_size <= LOG_BYTES
        await database.close()

    asyncio.run(scenario())
