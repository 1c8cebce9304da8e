"""`skiff serve`: every door over HTTP, for as long as it runs."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from server.app import running
from server.doors.http import run_http
from server.doors.mcp.server import build
from server.sessions.service import Service
from server.settings import Settings

TOKEN_NAME = "token"


async def serve_http(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with running(settings) as app:
        token, made = http_token(settings)

        def ready(url: str) -> None:
            _say(f"serving MCP at {url}")
            if made:
                _say(f"bearer token {token} (kept in {settings.data_dir / TOKEN_NAME})")

        async def service() -> Service:
            return app.service

        async def secret() -> bytes:
            return app.secret

        await run_http(build(service, secret), settings, token, ready)


def _say(line: str) -> None:
    print(f"skiff: {line}", file=sys.stderr, flush=True)  # noqa: T201 - for the person who started it


def http_token(settings: Settings) -> tuple[str, bool]:
    """The bearer token: the setting's, or the one of the data folder; whether it was made just now."""
    if settings.api_key:
        return settings.api_key, False
    path = Path(settings.data_dir) / TOKEN_NAME
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text("utf-8").strip(), False
    token = f"skiff_{secrets.token_urlsafe(32)}"
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    return token, True
