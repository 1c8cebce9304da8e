"""`skiff keys`: the API keys of a data folder, for whoever else may use its doors."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from server.app import running
from server.settings import Settings

console = Console()


async def create(settings: Settings, name: str) -> None:
    async with running(settings, lead=False) as app:
        row, text = await app.keys.create(name)
    console.print(f"{row.id} ({row.name}). The key is shown this once:", highlight=False, markup=False)
    console.print(text, highlight=False, markup=False, soft_wrap=True)


async def show_list(settings: Settings) -> None:
    async with running(settings, lead=False) as app:
        table = Table(Column("key", no_wrap=True, min_width=20), "name", "created", "last used", "revoked")
        for row in await app.keys.list():
            table.add_row(row.id, row.name, *(_shown(at) for at in (row.created_at, row.used_at, row.revoked_at)))
        console.print(table)


async def revoke(settings: Settings, key_id: str) -> None:
    async with running(settings, lead=False) as app:
        await app.keys.revoke(key_id)
    console.print(f"{key_id} is good no more; running servers know within seconds.", highlight=False, markup=False)


def _shown(at: str | None) -> str:
    return at[:19].replace("T", " ") if at else ""
