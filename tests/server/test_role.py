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
