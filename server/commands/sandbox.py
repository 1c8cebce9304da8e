"""`skiff sandbox`: build the images, see and collect what is there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sandbox.errors import SandboxUnavailable
from sandbox.protocol import SandboxBackend
from sandbox.readymade import RECIPES
from server.backends import choose
from server.engine.lock import EngineLock
from server.errors import InvalidRequest
from server.ids import new_id
from server.settings import Settings
from server.store.sqlite import SqliteDatabase
from server.store.store import Store

console = Console()


async def build(settings: Settings, names: Sequence[str], every: bool, base: str, fresh: bool) -> None:
    """Build the image, then the ready-made ones named (or every one), saying what happens."""
    from sandbox.docker.backend import DockerBackend

    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        raise InvalidRequest(f"There is no ready-made image {unknown[0]!r}; there are {', '.join(RECIPES)}.")
    started = time.monotonic()

    def progress(line: str) -> None:
        console.print(
            f"[dim]{time.monotonic() - started:6.1f} s[/]  {escape(line[:160])}", highlight=False, soft_wrap=True
        )

    async with DockerBackend("image", package_seconds=settings.package_build_seconds) as backend:
        # with names, the toolbox below them is made only where it is missing: a fresh one would make all of them old
        await backend.build(progress, base, fresh and not names)
        for name in RECIPES if every else dict.fromkeys(names):
            made = await backend.build_ready(name, progress, fresh)
            console.print(f"[bold]{name}[/]: {made.size / 1e6:.0f} MB, installed in {made.seconds} s", highlight=False)


async def show_images() -> None:
    """Every ready-made image, built or not, then those of environments with packages."""
    from sandbox.docker.backend import DockerBackend

    async with DockerBackend("image") as backend:
        built = await backend.built()
    ready = {one.name: one for one in reversed(built)}  # the newest of a name last
    table = Table("image", "size", "built in", "what is in it")
    for name, recipe in RECIPES.items():
        made = ready.get(name)
        size, took = (f"{made.size / 1e6:.0f} MB", f"{made.seconds} s") if made else ("-", "not built")
        table.add_row(name, size, took, escape(recipe.says))
    for one in built:
        if not one.name:
            table.add_row("(packages)", f"{one.size / 1e6:.0f} MB", f"{one.seconds} s", escape(one.packages))
    console.print(table)


async def show_all(settings: Settings) -> None:
    """Every sandbox, with the session that owns it."""
    async with _open(settings) as (store, backend):
        rows = await store.sandboxes()
        owners = {row.slot: row for row in rows if row.state != "stored"}
        table = Table("slot", "container", "session", "state")
        for ref in await backend.list():
            row = owners.get(ref.slot)
            table.add_row(
                ref.slot, ref.container[:12], row.session_id if row else "-", row.state if row else "nobody's"
            )
        stored = [row for row in rows if row.state == "stored"]
        for row in stored:
            table.add_row("-", "-", row.session_id, f"stored, {row.archive_bytes / 1e6:,.1f} MB")
        console.print(table)
        total = sum(row.archive_bytes for row in stored)
        console.print(f"{len(stored)} put away, {total / 1e6:,.1f} MB in all", highlight=False)


async def collect(settings: Settings) -> None:
    """Remove what no session owns. A running engine is asked to: only it knows what it keeps ready or is making."""
    from server.app import prepare_data_dir, running

    prepare_data_dir(settings.data_dir)
    lock = EngineLock(settings.data_dir / "engine.lock")
    if lock.try_take():  # and keep an engine from starting meanwhile
        try:
            async with _open(settings) as (store, backend):
                removed = await backend.reap({row.slot for row in await store.sandboxes() if row.state != "stored"})
        finally:
            lock.release()
    else:
        async with running(settings, lead=False) as app:
            removed = await app.role.collect()
    images = await _collect_images(settings)
    console.print(
        f"removed {len(removed)} sandboxes and {len(images)} images"
        + "".join(f"\n  {each}" for each in (*removed, *images)),
        highlight=False,
    )


async def _collect_images(settings: Settings) -> list[str]:
    """Those that are out of date and unused. Any process may: what a container was made from stays."""
    from sandbox.docker.backend import DockerBackend

    if settings.sandbox == "local":
        return []
    async with DockerBackend("image") as backend:
        try:
            return await backend.collect_images(lambda _: None)
        except SandboxUnavailable:
            if settings.sandbox == "docker":
                raise
            return []  # there is no engine here, so neither are there images


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
