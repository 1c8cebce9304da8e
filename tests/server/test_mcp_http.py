"""The HTTP door: a real socket, the token, the Host and Origin headers, a client that goes away, shutting down."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from server.app import App
from server.doors.http import GRACEFUL_SECONDS, application, listen
from server.errors import InvalidRequest
from tests.support.mcp_door import NO_TOOLS, opened, script

TOKEN = "a token for tests"
ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[str, App, uvicorn.Server]]:
    """The application on a free port, shut down at the end as SIGTERM does."""
    async with asyncio.timeout(60), opened(folder) as (mcp, app):
        with listen("127.0.0.1", 0) as listener:
            config = uvicorn.Config(
                application(mcp, TOKEN), log_config=None, timeout_graceful_shutdown=GRACEFUL_SECONDS
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}", app, server
            finally:
                server.should_exit = True
                await serving


@asynccontextmanager
async def host(url: str, era: str) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=era) as client,
    ):
        yield client


@ERAS
def test_a_host_with_the_token_gets_its_work_done(tmp_path: Path, era: str) -> None:
    async def run() -> None:
        async with served(tmp_path) as (url, _, _), host(url, era) as client:
            told: list[str] = []

            async def listen(progress: float, total: float | None, message: str | None) -> None:
                told.append(message or "")

            arguments: dict[str, Any] = {"task": script({"wait": 0.3, "say": "done"}), "agent": NO_TOOLS}
            done = await client.call_tool("create_session", arguments, progress_callback=listen)
            assert done.structured_content and done.structured_content["reply"] == "done"
            assert told

    asyncio.run(run())


@ERAS
def test_a_host_whose_connection_breaks_changes_nothing(tmp_path: Path, era: str) -> None:
    async def run() -> None:
        async with served(tmp_path) as (url, app, _):
            told = asyncio.Event()

            async def listen(progress: float, total: float | None, message: str | None) -> None:
                told.set()

            async def leave() -> None:
                async with host(url, era) as client:
                    arguments: dict[str, Any] = {"task": script({"wait": 1, "say": "survived"}), "agent": NO_TOOLS}
                    await client.call_tool("create_session", arguments, progress_callback=listen)

            leaving = asyncio.create_task(leave())
            await told.wait()
            leaving.cancel()
            await asyncio.wait({leaving})
            (view,) = await app.service.list_sessions()
            (rested,) = await app.service.wait([view.id], "all", 30)
            assert rested.state.reply == "survived"

    asyncio.run(run())


def test_without_the_right_token_nothing_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (url, _, _), httpx2.AsyncClient() as http:
            for given in (b"", b"Bearer wrong", "Bearer \u00e4".encode("latin-1")):
                answer = await http.post(f"{url}/mcp", json={}, headers={b"Authorization": given})
                assert answer.status_code == 401 and "Bearer" in answer.headers["www-authenticate"]
            assert (await http.get(f"{url}/.well-known/oauth-protected-resource/mcp")).status_code in (401, 404)
            assert (await http.get(f"{url}/healthz")).json() == {"status": "ok"}

    asyncio.run(run())


def test_strange_hosts_and_origins_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with served(tmp_path) as (url, _, _), httpx2.AsyncClient(headers=bearer) as http:
            refused = await http.post(f"{url}/mcp", json={}, headers={"Host": "evil.example"})
            assert refused.status_code == 421
            refused = await http.post(f"{url}/mcp", json={}, headers={"Origin": "http://evil.example"})
            assert refused.status_code == 403

    asyncio.run(run())


def test_shutting_down_does_not_wait_for_a_call_that_waits(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (url, app, server), host(url, "auto") as client:
            arguments: dict[str, Any] = {"task": script({"hang": True}), "agent": NO_TOOLS, "wait_seconds": 240}
            told = asyncio.Event()

            async def listen(progress: float, total: float | None, message: str | None) -> None:
                told.set()

            calling = asyncio.create_task(client.call_tool("create_session", arguments, progress_callback=listen))
            await told.wait()
            server.should_exit = True
            await asyncio.wait({calling})
            assert calling.exception() or calling.result().is_error
            (view,) = await app.service.list_sessions()
            assert not view.settled

    asyncio.run(run())


def test_without_a_token_only_this_machine_is_served() -> None:
    with pytest.raises(InvalidRequest, match="SKIFF_API_KEY"):
        application(None, None, host="0.0.0.0")  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InvalidRequest, match="--port"):
        listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_token_is_refused_and_lets_nobody_in(blank: str) -> None:
    with pytest.raises(InvalidRequest, match="blank"):
        application(None, blank)  # type: ignore[arg-type]
