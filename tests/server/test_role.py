"""A process's part on its data folder, where there is nobody to ask."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.engine import role
from server.errors import TryAgain
from server.sessions.log import Log
from server.store.sqlite import SqliteDatabase
from server.store.store import Store


def test_without_an_engine_the_client_is_asked_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "READY_SECONDS", 0.01)

    async def run() -> None:
        store = Store(SqliteDatabase(tmp_path / "skiff.db"))
        with pytest.raises(TryAgain, match="Try again shortly"):
            await role.Role(tmp_path, store, Log(store), None).backend()

    asyncio.run(run())


def test_a_role_that_is_ended_just_as_one_of_its_waits_ends_ends_too(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(SqliteDatabase(tmp_path / "skiff.db"))
        end = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(role.Role(tmp_path, store, Log(store), None)._look(end))
        await asyncio.sleep(0)
        end.set_result(None)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())
