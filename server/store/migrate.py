"""Bring a database to the current schema: numbered SQL files, each run once, in one transaction."""

from __future__ import annotations

from importlib.resources import files

from server.errors import StoreError
from server.ids import now
from server.store.database import Cursor


def _scripts() -> list[tuple[int, str]]:
    folder = files("server.store") / "migrations"
    found = [
        (int(entry.name[:4]), entry.read_text("utf-8")) for entry in folder.iterdir() if entry.name.endswith(".sql")
    ]
    return sorted(found)


def statements(script: str) -> list[str]:
    """The statements of a script; comments are whole lines, and no statement holds a semicolon of its own."""
    code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("--"))
    return [statement.strip() for statement in code.split(";") if statement.strip()]


def migrate(cursor: Cursor) -> None:
    """Run what has not been run yet. Raises StoreError when the database is newer than this program."""
    cursor.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, at TEXT NOT NULL)")
    row = cursor.one("SELECT max(number) FROM migrations")
    done = int(row[0]) if row and row[0] is not None else 0
    scripts = _scripts()
    if done > scripts[-1][0]:
        raise StoreError(
            f"This data folder was written by a newer Skiff (schema {done}, this program knows {scripts[-1][0]})."
            " Upgrade Skiff, or choose another folder with --data-dir."
        )
    for number, script in scripts:
        if number <= done:
            continue
        for statement in statements(script):
            cursor.execute(statement)
        cursor.execute("INSERT INTO migrations (number, at) VALUES (:number, :at)", {"number": number, "at": now()})
