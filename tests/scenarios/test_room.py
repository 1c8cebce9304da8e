"""The disk fills up: it is noticed before it hurts, said, and over when there is room again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from server import room
from server.app import App, running
from server.errors import NoRoom
from server.room import AGAIN, scarce
from server.sessions.service import NewSession
from server.settings import load
from tests.support.cast import Cast, message
from tests.support.factories import PATIENCE, script
from tests.support.judged import refused
from tests.support.served import TOKEN, Site, served

LEAST_MB = 100
LEAST = LEAST_MB * 10**6
WORDS = "disk is nearly full"
CALL = {"call": [{"tool": "nothing", "input": {}, "force": True}]}
"""Of a tool that is not offered: a round that needs no sandbox."""


class Disk:
    """What is free: plenty, until the log has the result of a tool; or whatever is said."""

    said: int | None = None

    def free(self, folder: Path) -> int:
        if self.said is not None:
            return self.said
        with closing(sqlite3.connect(folder / "skiff.db")) as database:
            (count,) = database.execute("SELECT count(*) FROM events WHERE type = 'agent.tool_result'").fetchone()
        return LEAST - 1 if count else 10 * LEAST


def play(folder: Path, monkeypatch: pytest.MonkeyPatch, story: Callable[[App, Disk], Awaitable[None]]) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.0)

    async def told() -> None:
        disk = Disk()
        settings = load(data_dir=folder, sandbox="local", model="scripted", pool=0, min_free_mb=LEAST_MB)
        async with asyncio.timeout(PATIENCE), running(settings, free=disk.free) as app:
            await story(app, disk)

    asyncio.run(told())


async def begun(app: App, *steps: Any) -> str:
    made = await app.service.create_session(NewSession(task=script(*steps), agent={"tools": []}))
    await app.service.wait([made.id], "all", PATIENCE)
    return made.id


def test_a_turn_that_meets_a_full_disk_ends_and_the_next_message_goes_on_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(app: App, disk: Disk) -> None:
        session = await begun(app, CALL, {"say": "never"})
        view = await app.service.view(session)
        assert (view.status, view.state.stop_reason) == ("idle", {"type": "retries_exhausted"})
        assert view.state.last_error is not None and WORDS in view.state.last_error
        errors = [body["error"] for _, body in await app.service.transcript(session) if body["type"] == "session.error"]
        assert [error["retry_status"]["type"] for error in errors] == ["exhausted"]
        disk.said = int(LEAST * AGAIN) + 1
        await app.service.send_message(session, script({"say": "Here again."}))
        (view,) = await app.service.wait([session], "all", PATIENCE)
        assert view.state.reply == "Here again."

    play(tmp_path, monkeypatch, story)


def test_below_the_bound_nothing_new_is_begun_and_what_makes_room_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(app: App, disk: Disk) -> None:
        session, other = await begun(app, {"say": "a"}), await begun(app, {"say": "b"})
        under_key = NewSession(task="x", agent={"tools": []}, request_key="k")
        before = await app.service.create_session(under_key)
        await app.service.wait([before.id], "all", PATIENCE)
        for disk.said in (LEAST - 1, int(LEAST * AGAIN) - 1):
            for begin in (
                lambda: app.service.create_session(NewSession(task="x", agent={"tools": []})),
                lambda: app.service.send_message(session, "x"),
                lambda: app.service.write_workspace(session, "a", b"x"),
                lambda: upload(app),
            ):
                with pytest.raises(NoRoom, match=WORDS):
                    await begin()
        assert (await app.service.create_session(under_key)).id == before.id, "it was made before"
        await app.service.send_events(session, [{"type": "user.interrupt"}])
        assert (await app.service.interrupt(session)).status == "idle"
        assert await app.service.transcript(session)
        await app.service.archive_session(session)
        await app.service.delete_session(other, if_running="refuse")
        disk.said = int(LEAST * AGAIN) + 1
        await begun(app, {"say": "c"})
        await upload(app)

    play(tmp_path, monkeypatch, story)


def test_an_upload_that_fills_the_disk_ends_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(app: App, disk: Disk) -> None:
        with pytest.raises(NoRoom, match=WORDS):
            async with app.uses.files.receiving() as incoming:
                await incoming.write(b"x" * 2_000_000)
                disk.said = LEAST - 1
                await incoming.write(b"x" * 2_000_000)
        assert list((tmp_path / "files").iterdir()) == []

    play(tmp_path, monkeypatch, story)


async def upload(app: App) -> None:
    async with app.uses.files.receiving() as incoming:
        await incoming.write(b"x" * 2_000_000)
        await app.uses.files.keep(incoming, "a", "text/plain", None)


def test_between_the_bounds_it_stays_as_it_was() -> None:
    assert scarce(False, 99, 100) and not scarce(False, 100, 100)
    assert scarce(True, 124, 100) and not scarce(True, 125, 100)
    assert not scarce(True, 0, 0), "no bound, no shortage"


# --- what doors and watchers say -------------------------------------------------------------------------------------


async def asked_over_mcp(site: Site, tool: str, **arguments: Any) -> Any:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http,
        Client(streamable_http_client(f"{site.url}/mcp", http_client=http)) as client,
    ):
        return await client.call_tool(tool, arguments)


def test_both_doors_and_the_watchers_say_that_the_disk_is_nearly_full_and_what_to_do() -> None:
    with served("local") as site:
        with site.client() as client:
            session = Cast(client).rested().id
        site.stop()
        site.settings = {**site.settings, "SKIFF_MIN_FREE_MB": str(10**9)}
        site.restart()
        with site.client() as client, site.http() as http:
            cast = Cast(client)
            for act in (
                lambda: cast.session(),
                lambda: cast.events.send(session, events=[message("x")]),
                lambda: client.beta.files.upload(file=("a", b"x", "text/plain")),
            ):
                refused(507, act, WORDS, "free some space", kind="api_error", retry="false")
            assert cast.events.list(session).data and client.beta.sessions.retrieve(session).status == "idle"
            for tool, arguments in (
                ("create_session", {"task": "x"}),
                ("send_message", {"session_id": session, "message": "x"}),
            ):
                answer = asyncio.run(asked_over_mcp(site, tool, **arguments))
                assert answer.is_error and WORDS in answer.content[0].text
            ready = http.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "limited") and WORDS in ready.json()["reason"]
            assert "\nskiff_disk_nearly_full 1.0\n" in http.get("/metrics").text
            client.beta.sessions.delete(session)
        assert any(WORDS in line for line in site.said)
