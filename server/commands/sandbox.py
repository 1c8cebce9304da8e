"""`skiff sandbox`: build the image, see and collect what is there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console
from rich.table import Table

from sandbox.protocol import SandboxBackend
from server.backends import choose
from server.engine.lock import EngineLock
from server.ids import new_id
from server.settings import Settings
from server.store.sqlite import SqliteDatabase
from server.store.store import Store

console = Console()


async def build(settings: Settings, base: str, fresh: bool) -> None:
    """Build the image, saying what happens."""
    from sandbox.docker.backend import DockerBackend

    started = time.monotonic()

    def progress(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {line[:160]}", highlight=False)

    async with DockerBackend("image") as backend:
        await backend.build(progress, base, fresh)


async def show_all(settings: Settings) -> None:
    """Every sandbox, with the session that owns it."""
    async with _open(settings) as (store, backend):
        owners = {row.slot: row for row in await store.sandboxes()}
        table = Table("slot", "container", "session", "state")
        for ref in await backend.list():
            row = owners.get(ref.slot)
            table.add_row(
                ref.slot, ref.container[:12], row.session_id if row else "-", row.state if row else "nobody's"
            )
        console.print(table)


async def collect(settings: Settings) -> None:
    """Remove what no session owns. A running engine is asked to: only it knows what it keeps ready or is making."""
    from server.app import prepare_data_dir, running

    prepare_data_dir(settings.data_dir)
    lock = EngineLock(settings.data_dir / "engine.lock")
    if lock.try_take():  # and keep an engine from starting meanwhile
        try:
            async with _open(settings) as (store, backend):
                removed = await backend.reap({row.slot for row in await store.sandboxes()})
        finally:
            lock.release()
    else:
        async with running(settings, lead=False) as app:
            removed = await app.role.collect()
    console.print(f"removed {len(removed)} sandboxes" + "".join(f"\n  {slot}" for slot in removed), highlight=False)


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[tuple[Store, SandboxBackend]]:
    """The store and the backend, without becoming the engine: another process may be it."""
    from server.app import prepare_data_dir

    prepare_data_dir(settings.data_dir)
    database = SqliteDatabase(settings.data_dir / "skiff.db")
    await database.open()
    store = Store(database)
    try:
        await store.open()
        backend = await choose(
            settings.model_copy(update={"pool": 0}), await store.meta("installation", new_id("inst"))
        )
        async with backend:
            yield store, backend
    finally:
        await store.close()
