"""The rows of sessions: what lists filter by, what updates change, and what older databases become."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from server import events
from server.errors import Conflict
from server.sessions.reading import view_now
from server.sessions.state import VERSION, dump
from server.store.database import Cursor
from server.store.migrate import statements
from server.store.store import Change, Filter, HeadMoved, SessionRow, Store
from tests.support.factories import SESSION, THREAD, open_store, session_row

USAGE = {"input_tokens": 0}
SPEC: dict[str, Any] = dict(agent={}, environment={}, system=[], tools=[], max_tokens=1, options={}, backend="none")


def on_store(folder: Path, work: Callable[[Store], Awaitable[Any]]) -> None:
    async def scenario() -> None:
        async with open_store(folder) as store:
            await store.create_session(session_row(), [], {})
            await work(store)

    asyncio.run(scenario())


def of(agent_id: str, version: int, session_id: str, day: int) -> SessionRow:
    """A session of this version of an agent, made on this day."""
    at = f"2026-02-{day:02}T00:00:00.000000Z"
    spec = {"agent": {"id": agent_id, "version": version}}
    return SessionRow(session_id, THREAD, None, spec, 0, False, None, 0, at, at, None)


async def found(store: Store, order: str = "desc", **chosen: Any) -> list[str]:
    return [row.id for row in await store.sessions(Filter(**chosen), limit=10, after=None, order=order)]


def test_the_status_that_lists_filter_by_is_that_of_the_newest_status_event(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        assert await found(store, statuses=["idle"]) == [SESSION]
        await store.append(SESSION, events.turn_started(THREAD, "a"))
        assert await found(store, statuses=["running"]) == [SESSION]
        await store.append(SESSION, [events.agent_message(THREAD, "x")])
        assert await found(store, statuses=["running", "terminated"]) == [SESSION]
        await store.append(SESSION, events.turn_rescheduled(THREAD, "a"))
        assert await found(store, statuses=["rescheduling"]) == [SESSION]
        await store.append(SESSION, events.turn_ended(THREAD, "a", {"type": "end_turn"}, USAGE))
        assert await found(store, statuses=["idle"]) == [SESSION]
        await store.append(SESSION, events.terminated(THREAD, "a"))
        assert await found(store, statuses=["idle", "running", "rescheduling"]) == []

    on_store(tmp_path, work)


def test_what_was_sent_to_an_idle_session_makes_it_a_running_one(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.append(SESSION, [events.user_message(THREAD, [events.text("hi")])], attention=True)
        assert await found(store, statuses=["running"]) == [SESSION]
        assert await found(store, statuses=["idle"]) == []

    on_store(tmp_path, work)


def test_sessions_are_found_by_agent_version_and_time_in_either_order(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        for number, (agent, version) in enumerate([("agent_a", 1), ("agent_a", 2), ("agent_b", 1)], 1):
            await store.create_session(of(agent, version, f"sesn_{agent}{version}", number), [], {})
        assert await found(store, agent_id="agent_a") == ["sesn_agent_a2", "sesn_agent_a1"]
        assert await found(store, "asc", agent_id="agent_a") == ["sesn_agent_a1", "sesn_agent_a2"]
        assert await found(store, agent_id="agent_a", agent_version=2) == ["sesn_agent_a2"]
        second = "2026-02-02T00:00:00.000000Z"
        assert await found(store, created={"gt": second}) == ["sesn_agent_b1"]
        assert await found(store, created={"gte": second, "lt": "2026-02-03T00:00:00.000000Z"}) == ["sesn_agent_a2"]

    on_store(tmp_path, work)


def test_a_change_is_stored_with_the_event_that_tells_of_it_or_not_at_all(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        told = [events.session_updated(THREAD, {"title": "t"})]
        change = Change(title=("t",), metadata={"a": "b"}, spec={"agent": {"id": "agent_1"}})
        with pytest.raises(HeadMoved):
            await store.append(SESSION, told, if_head=3, change=change)
        assert (await store.session(SESSION)).title is None
        await store.append(SESSION, told, if_head=0, change=change)
        row = await store.session(SESSION)
        assert (row.title, row.metadata, row.spec) == ("t", {"a": "b"}, {"agent": {"id": "agent_1"}})
        await store.append(SESSION, told, change=Change(title=(None,), metadata={}))
        row = await store.session(SESSION)
        assert (row.title, row.metadata, row.spec) == (None, {}, {"agent": {"id": "agent_1"}})

    on_store(tmp_path, work)


def test_an_archived_session_takes_nothing_from_clients_and_lets_the_engine_finish(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        epoch = await store.next_epoch()
        await store.append(SESSION, events.terminated(THREAD, "a"), change=Change(archived_at="2026-03-01T00:00:00Z"))
        assert await found(store) == []
        assert await found(store, archived=True) == [SESSION]
        with pytest.raises(Conflict, match="archived"):
            await store.append(SESSION, [events.user_message(THREAD, [events.text("hi")])])
        await store.append(SESSION, [events.agent_message(THREAD, "x")], epoch=epoch)

    on_store(tmp_path, work)


def test_what_was_asked_under_a_key_is_found_again_and_a_key_used_for_two_things_is_refused(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        said = [events.user_message(THREAD, [events.text("hi")])]
        assert await store.appended_under(SESSION, ("k", "d")) is None
        assert await store.created_under(("k", "d")) is None
        stored = await store.append(SESSION, said, key=("k", "d"))
        assert await store.appended_under(SESSION, ("k", "d")) == stored
        with pytest.raises(Conflict):
            await store.appended_under(SESSION, ("k", "other"))
        await store.create_session(session_row("sesn_2"), [], {}, ("k", "d"))
        assert await store.created_under(("k", "d")) == "sesn_2"

    on_store(tmp_path, work)


def test_what_belongs_to_a_session_is_written_with_it_or_the_session_is_not_made(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        def refuse(cursor: Cursor, session_id: str) -> None:
            assert cursor.one("SELECT 1 FROM sessions WHERE id = :id", {"id": session_id})
            raise RuntimeError(session_id)

        with pytest.raises(RuntimeError, match="sesn_2"):
            await store.create_session(session_row("sesn_2"), [], {}, also=refuse)
        assert await found(store) == [SESSION]

    on_store(tmp_path, work)


def test_sessions_of_an_older_database_are_found_by_their_agent_and_status(tmp_path: Path) -> None:
    _first_schema(tmp_path / "skiff.db")

    async def scenario() -> None:
        async with open_store(tmp_path) as store:
            assert await found(store, agent_id="agent_1", agent_version=1, statuses=["terminated"]) == ["sesn_old"]
            assert await found(store, agent_id="agent_2", statuses=["idle"]) == ["sesn_new"]
            assert (await store.session("sesn_old")).metadata == {}
            assert [event.seq for event in await store.events("sesn_old")] == [1, 2, 3]
            await store.delete_session("sesn_old")
            assert await store.events("sesn_old") == []

    asyncio.run(scenario())


def _first_schema(path: Path) -> None:
    """A database as the first version left it: two sessions, one of them ended."""
    script = (files("server.store") / "migrations" / "0001_first.sql").read_text("utf-8")
    at = "2026-01-01T00:00:00.000000Z"
    with sqlite3.connect(path) as database:
        for statement in statements(script):
            database.execute(statement)
        database.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY, at TEXT NOT NULL)")
        database.execute("INSERT INTO migrations VALUES (1, ?)", (at,))
        for agent, session in (("agent_1", "sesn_old"), ("agent_2", "sesn_new")):
            body = json.dumps({"id": agent, "version": 1, "name": "n", "archived_at": None}, separators=(",", ":"))
            spec = f'{{"agent":{body},"environment":{{"id":"env_1"}}}}'
            database.execute("INSERT INTO agents VALUES (?, 1, 'n', ?, ?, ?)", (agent, agent, body, at))
            database.execute(
                "INSERT INTO sessions (id, thread_id, spec, created_at, updated_at) VALUES (?, 't', ?, ?, ?)",
                (session, spec, at, at),
            )
        for number, kind in enumerate(["session.status_running", "session.status_terminated", "agent.message"], 1):
            database.execute("INSERT INTO events VALUES ('sesn_old', ?, ?, 't', ?, '{}', NULL)", (number, kind, kind))
    database.close()


@pytest.mark.parametrize("version", [1, VERSION], ids=["an older program", "this program"])
def test_a_session_is_what_its_log_says_whoever_has_cached_its_state(tmp_path: Path, version: int) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path) as store:
            await store.create_session(replace(session_row(), spec=SPEC), [], {})
            await store.append(SESSION, [asked := events.user_message(THREAD, [events.text("hi")])])
            waits = (await view_now(store, SESSION)).state
            kept = {**dump(waits), "version": version, "seq": 2}
            await store.append(SESSION, [events.agent_message(THREAD, "x")], fold=kept)
            await store.append(SESSION, events.turn_started(THREAD, "a"))
            state = (await view_now(store, SESSION)).state
            assert (state.status, [item.id for item in state.queue]) == ("running", [asked.id])

    asyncio.run(scenario())
