"""API keys: what is kept of them, who is recognised, and until when."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server import keys as keys_module
from server.errors import InvalidRequest, NotFound
from server.keys import Keys
from server.store import sqlite
from server.store.keys import KeyStore
from server.store.sqlite import SqliteDatabase
from server.store.store import Store


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[KeyStore]:
    database = SqliteDatabase(folder / "skiff.db")
    await database.open()
    await Store(database).open()
    try:
        yield KeyStore(database)
    finally:
        await database.close()


def on_a_store(folder: Path, story: Callable[[KeyStore], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(folder) as store:
            await story(store)

    asyncio.run(run())


def test_a_key_is_recognised_and_nothing_like_it_is(tmp_path: Path) -> None:
    async def story(store: KeyStore) -> None:
        keys = Keys(store)
        _, text = await keys.create("ci")
        _, other = await keys.create("laptop")
        assert await keys.holder(text) == "ci" and await keys.holder(other) == "laptop"
        for wrong in ("", text[:-1], text + "x", text.upper(), text[:20] + other[20:], "skiff_key_", "ä" * 60):
            assert await keys.holder(wrong) is None

    on_a_store(tmp_path, story)


def test_the_key_itself_is_kept_nowhere(tmp_path: Path) -> None:
    made: list[str] = []

    async def story(store: KeyStore) -> None:
        made.append((await Keys(store).create("ci"))[1])

    on_a_store(tmp_path, story)
    secret = made[0][21:].encode()
    assert all(secret not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_key_made_by_another_process_works_and_a_revoked_one_soon_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.keys.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("server.keys.PATIENCE_SECONDS", 0.0)

    async def story(store: KeyStore) -> None:
        server, command = Keys(store), Keys(store)
        assert await server.holder("skiff_key_0000000000_x") is None
        row, text = await command.create("ci")
        assert await server.holder(text) == "ci"
        await command.revoke(row.id)
        assert await server.holder(text) is None
        (listed,) = await command.list()
        assert listed.revoked_at is not None

    on_a_store(tmp_path, story)


def test_recognising_a_key_again_asks_the_store_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            keys = Keys(store)
            _, text = await keys.create("ci")
            assert await keys.holder(text) == "ci"
        assert await keys.holder(text) == "ci", "the store is closed by now"

    asyncio.run(run())


def test_when_a_key_was_used_last_is_kept(tmp_path: Path) -> None:
    async def story(store: KeyStore) -> None:
        keys = Keys(store)
        _, text = await keys.create("ci")
        await keys.create("never used")
        await keys.holder(text)
        await keys.close()
        used, unused = await keys.list()
        assert used.used_at is not None and used.used_at >= used.created_at
        assert unused.used_at is None

    on_a_store(tmp_path, story)


def test_a_key_is_good_although_its_use_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "USED_SECONDS", 0.0)
    monkeypatch.setattr(keys_module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)

    async def story(store: KeyStore) -> None:
        keys = Keys(store)
        _, text = await keys.create("ci")
        assert await keys.holder(text) == "ci"
        other = sqlite3.connect(tmp_path / "skiff.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert await keys.holder(text) == "ci"
        other.close()
        await keys.close()
        (row,) = await store.all()
        assert row.used_at is not None

    on_a_store(tmp_path, story)


def test_bad_names_and_unknown_ids_are_refused(tmp_path: Path) -> None:
    async def story(store: KeyStore) -> None:
        for name in ("", "  ", "x" * 101, "two\nlines"):
            with pytest.raises(InvalidRequest, match="name"):
                await Keys(store).create(name)
        with pytest.raises(NotFound, match="keys list"):
            await Keys(store).revoke("skiff_key_none")

    on_a_store(tmp_path, story)
