"""The store, on SQLite: numbering, conditions, keys, epochs, schema, characters, deletion, broken transactions."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server import events
from server.errors import Conflict, NotFound, StaleWriter, StoreError
from server.store.database import Cursor
from server.store.events import ALL, FEW, FEW_CHARACTERS, few_after
from server.store.migrate import migrate, statements
from server.store.sqlite import SqliteDatabase
from server.store.store import Filter, HeadMoved, SandboxRow, Store
from tests.support.factories import SESSION, THREAD, open_store, session_row

Work = Callable[[Store], Awaitable[Any]]


def on_store(folder: Path, work: Work) -> Any:
    async def scenario() -> Any:
        async with open_store(folder) as store:
            await store.create_session(session_row(), [], {})
            return await work(store)

    return asyncio.run(scenario())


def said(text: str = "hi") -> list[events.NewEvent]:
    return [events.user_message(THREAD, [events.text(text)])]


def test_events_are_numbered_from_one_without_gaps_and_read_back_as_given(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        first = await store.append(SESSION, [*said("a"), *said("b")])
        second = await store.append(SESSION, [events.dispatched(THREAD, "c", "life")])
        assert [event.seq for event in (*first, *second)] == [1, 2, 3]
        assert await store.events(SESSION) == [*first, *second]
        assert await store.events(SESSION, after=1, limit=1) == first[1:]
        assert (await store.session(SESSION)).head == 3

    on_store(tmp_path, work)


def test_first_events_and_staged_files_are_stored_with_the_session_and_numbered_on_from(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.create_session(session_row("sesn_2"), said(), {"a.txt": b"\0\xff"})
        assert (await store.session("sesn_2")).head == 1
        assert (await store.append("sesn_2", said()))[0].seq == 2
        assert await store.staged_files("sesn_2") == {"a.txt": b"\0\xff"}

    on_store(tmp_path, work)


def test_an_append_on_a_head_that_moved_writes_nothing(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.append(SESSION, said(), if_head=0)
        with pytest.raises(HeadMoved):
            await store.append(SESSION, said(), if_head=0, attention=True)
        assert len(await store.events(SESSION)) == 1
        assert await store.at_work() == []

    on_store(tmp_path, work)


def test_an_older_engine_can_write_nothing_more_while_inputs_still_come_in(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        old = await store.next_epoch()
        await store.append(SESSION, said(), epoch=old)
        new = await store.next_epoch()
        with pytest.raises(StaleWriter):
            await store.append(SESSION, said(), epoch=old)
        await store.append(SESSION, said())
        await store.append(SESSION, said(), epoch=new)
        assert len(await store.events(SESSION)) == 3

    on_store(tmp_path, work)


def test_what_is_asked_twice_under_one_key_happens_once(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.append(SESSION, said("before"))
        first = await store.append(SESSION, said("x"), key=("k", "digest"))
        await store.append(SESSION, said("after"))
        assert await store.append(SESSION, said("x"), key=("k", "digest")) == first
        with pytest.raises(Conflict, match="'k'"):
            await store.append(SESSION, said("y"), key=("k", "other"))
        assert len(await store.events(SESSION)) == 3

    on_store(tmp_path, work)


def test_a_session_asked_for_twice_under_one_key_is_made_once(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        assert await store.create_session(session_row("sesn_2"), said(), {}, ("k", "d")) == "sesn_2"
        assert await store.create_session(session_row("sesn_3"), said(), {}, ("k", "d")) == "sesn_2"
        with pytest.raises(Conflict):
            await store.create_session(session_row("sesn_4"), [], {}, ("k", "other"))
        with pytest.raises(NotFound):
            await store.session("sesn_3")

    on_store(tmp_path, work)


def test_the_attention_mark_and_the_cached_fold_follow_the_append(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.append(SESSION, said(), attention=True)
        assert await store.at_work() == [SESSION]
        await store.append(SESSION, said())
        assert await store.at_work() == [SESSION]
        await store.append(SESSION, said(), attention=False, fold={"seq": 3})
        row = await store.session(SESSION)
        assert (row.attention, row.fold, row.fold_seq) == (False, {"seq": 3}, 3)

    on_store(tmp_path, work)


def test_characters_that_databases_refuse_are_replaced_and_all_others_stay(tmp_path: Path) -> None:
    literal = "in source: \\u0000 \\\\u0000 \\ud800, and 😀"

    async def work(store: Store) -> None:
        stored = await store.append(SESSION, [*said("a\0b\ud800c"), *said(literal)])
        assert stored == await store.events(SESSION), "what is in memory and what is read again must be one"
        texts = [event.public["content"][0]["text"] for event in stored if event.public]
        assert texts == ["a\ufffdb\ufffdc", literal]

    on_store(tmp_path, work)


def test_a_deleted_session_takes_everything_along_except_the_intent_to_remove_its_sandbox(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.append(SESSION, said(), key=("k", "d"))
        await store.stage_file(SESSION, "a", b"x")
        await store.put_sandbox(SandboxRow(SESSION, "slot", "local", "c", "life", "live"))
        await store.delete_session(SESSION)
        assert await store.events(SESSION) == []
        assert await store.staged_files(SESSION) == {}
        assert [row.state for row in await store.sandboxes()] == ["removing"]
        for gone in (store.session(SESSION), store.append(SESSION, said(), key=("k", "d"))):
            with pytest.raises(NotFound):
                await gone
        assert not await store.stage_file(SESSION, "b", b"x")

    on_store(tmp_path, work)


def test_a_deleted_session_gets_no_sandbox_any_more_and_one_that_it_has_stays_to_be_removed(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        row = SandboxRow(SESSION, "slot", "local", "c", "life", "making")
        await store.put_sandbox(row)
        await store.delete_session(SESSION)
        await store.put_sandbox(replace(row, state="live"))
        assert [each.state for each in await store.sandboxes()] == ["removing"]
        with pytest.raises(NotFound, match="sesn_gone"):
            await store.put_sandbox(replace(row, session_id="sesn_gone"))

    on_store(tmp_path, work)


def test_a_few_large_events_are_no_small_piece_of_work(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        half = FEW_CHARACTERS // 2
        stored = await store.append(SESSION, [*said("small"), *said("x" * half), *said("y" * half)])
        async with asyncio.timeout(10):
            assert await store.events(SESSION) == stored
            assert (await store.session_and_tail(SESSION))[1] == stored
        database = store._database
        assert await database.read(lambda cursor: few_after(cursor, SESSION, 0, ALL)) is None
        assert await database.read(lambda cursor: few_after(cursor, SESSION, 0, 2)) == stored[:2]
        assert await database.read(lambda cursor: few_after(cursor, SESSION, 2, ALL)) == stored[2:]

    on_store(tmp_path, work)


@pytest.mark.parametrize("count", [FEW - 1, FEW, FEW + 1, 3 * FEW])
def test_a_tail_of_any_length_is_read_whole(tmp_path: Path, count: int) -> None:
    async def work(store: Store) -> None:
        stored = await store.append(SESSION, [event for n in range(count) for event in said(str(n))])
        assert await store.events(SESSION) == stored
        assert await store.events(SESSION, after=2, limit=FEW) == stored[2 : 2 + FEW]
        assert await store.events(SESSION, limit=FEW + 5) == stored[: FEW + 5]
        assert (await store.session_and_tail(SESSION))[1] == stored

    on_store(tmp_path, work)


def test_sessions_are_listed_newest_first_in_pages(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        for name in ("sesn_2", "sesn_3"):
            await store.create_session(session_row(name, created_at="2026-01-02T00:00:00.000000Z"), [], {})
        first = await store.sessions(Filter(), limit=2, after=None)
        rest = await store.sessions(Filter(), limit=2, after=(first[-1].created_at, first[-1].id))
        assert [row.id for row in (*first, *rest)] == ["sesn_3", "sesn_2", SESSION]

    on_store(tmp_path, work)


# --- the database ----------------------------------------------------------------------------------------------------


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        def broken(cursor: Cursor) -> None:
            cursor.execute("UPDATE sessions SET title = 'half'")
            raise RuntimeError("stop")

        with pytest.raises(RuntimeError):
            await store._database.write(broken)
        assert (await store.session(SESSION)).title is None
        await store.append(SESSION, said())

    on_store(tmp_path, work)


def test_a_full_disk_says_so_and_once_there_is_room_again_writing_goes_on(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        def pages(count: int) -> Callable[[Cursor], None]:
            def change(cursor: Cursor) -> None:
                cursor.one(f"PRAGMA max_page_count = {count}")

            return change

        await store._database.write(pages(1))  # the least that SQLite takes: as many as there are
        with pytest.raises(StoreError, match="Free some disk space"):
            await store.append(SESSION, said("x" * 1_000_000))
        await store._database.write(pages(1_000_000))
        assert (await store.append(SESSION, said()))[0].seq == 1

    on_store(tmp_path, work)


def test_a_database_of_a_newer_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store._database.write(lambda cursor: cursor.execute("INSERT INTO migrations VALUES (9999, 'later')"))

    on_store(tmp_path, work)
    with pytest.raises(StoreError, match="newer Skiff"):
        asyncio.run(_reopen(tmp_path))


async def _reopen(folder: Path) -> None:
    async with open_store(folder):
        pass


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        before = await store._database.read(lambda cursor: cursor.all("SELECT * FROM migrations"))
        await store._database.write(migrate)
        assert await store._database.read(lambda cursor: cursor.all("SELECT * FROM migrations")) == before

    on_store(tmp_path, work)


def test_a_scripts_comments_are_no_statements() -> None:
    assert statements("-- a; b\nCREATE TABLE a (x);\n\n  -- c\nCREATE TABLE b (y)") == [
        "CREATE TABLE a (x)",
        "CREATE TABLE b (y)",
    ]


def test_a_file_that_is_no_database_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "skiff.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="Restore a backup"):
        asyncio.run(_reopen(tmp_path))


def test_a_change_by_this_or_another_connection_is_noticed_once(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.changed()
        assert not await store.changed()
        other = sqlite3.connect(tmp_path / "skiff.db")
        with other:
            other.execute("UPDATE sessions SET title = 'x'")
        other.close()
        assert await store.changed()
        assert not await store.changed()

    on_store(tmp_path, work)


def test_a_cancelled_writer_has_written_all_or_nothing(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        for _ in range(20):
            task = asyncio.create_task(store.append(SESSION, [*said(), *said()]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        await store.append(SESSION, said())
        stored = await store.events(SESSION)
        assert [event.seq for event in stored] == list(range(1, len(stored) + 1))
        assert len(stored) % 2 == 1

    on_store(tmp_path, work)


def test_closing_finishes_what_was_begun(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = SqliteDatabase(tmp_path / "skiff.db")
        await database.open()
        store = Store(database)
        await store.open()
        await store.create_session(session_row(), [], {})
        writing = asyncio.create_task(store.append(SESSION, said()))
        await asyncio.sleep(0)
        await store.close()
        await writing
        async with open_store(tmp_path) as again:
            assert len(await again.events(SESSION)) == 1

    asyncio.run(scenario())
