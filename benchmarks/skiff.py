"""Skiff itself for the measurements: in this process, or as a child; and what it leaves on the engine, removed.

Above: `rows/`. Below: `server.app` and the service, as a door uses them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import MODEL, Bench
from sandbox.docker.backend import DockerBackend
from server.app import App, running
from server.sessions.service import NewSession, Service, SessionView
from server.settings import load

TURN_SECONDS = 300.0
"""For the longest turn that is measured (a hundred rounds, one second when quiet)."""


@asynccontextmanager
async def skiff(bench: Bench, folder: Path | None = None, **flags: Any) -> AsyncIterator[App]:
    """A server in this process, its engine open, with no warm pool unless asked for; its sandboxes go at the end."""
    folder = folder or bench.folder()
    settings = load(**{"data_dir": folder, "model": MODEL, "sandbox": bench.sandbox, "pool": 0, **flags})
    try:
        async with running(settings) as app:
            await app.role.backend()
            yield app
    finally:
        await sweep(bench, folder)


async def sweep(bench: Bench, folder: Path) -> None:
    """Remove every sandbox of this data folder from the engine."""
    if bench.engine and (rows := _query(folder, "SELECT value FROM meta WHERE key = 'installation'")):
        async with DockerBackend(str(rows[0][0])) as backend:
            await backend.reap(())


def container_of(folder: Path, session_id: str) -> str:
    """The engine's id of a session's container."""
    return str(_query(folder, "SELECT container FROM sandboxes WHERE session_id = ?", session_id)[0][0])


def _query(folder: Path, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    path = folder / "skiff.db"
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


async def session(service: Service, **asked: Any) -> str:
    """Make an idle session; its id."""
    return (await service.create_session(NewSession(**asked))).id


async def turn(service: Service, session_id: str, text: str) -> SessionView:
    """Send a message and wait for the end of its turn. Raises RuntimeError when the turn did not end well."""
    await service.send_message(session_id, text)
    (view,) = await ended(service, [session_id])
    return view


async def ended(service: Service, session_ids: list[str]) -> list[SessionView]:
    """The sessions once all are at rest. Raises RuntimeError for one whose turn did not end well."""
    views = await service.wait(session_ids, "all", TURN_SECONDS)
    for view in views:
        reason = (view.state.stop_reason or {}).get("type")
        if not view.settled or reason != "end_turn":
            raise RuntimeError(f"a measured turn is {view.state.status}, {reason}: {view.state.last_error}")
    return views


async def quiet(app: App) -> None:
    """Let what the server does beside its sessions (imports of the SDK) come to its end."""
    await app.service.wait([], "all", 0)
    await asyncio.sleep(2.0)
