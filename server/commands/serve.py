"""`skiff serve`: every door over HTTP, for as long as it runs."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from pathlib import Path

from server import telemetry
from server.app import running
from server.doors.http import PATH, Behind, run_http
from server.doors.mcp.server import build
from server.doors.observe import access
from server.errors import InvalidRequest, StoreError
from server.sessions.service import Service
from server.settings import KEYS, SCRIPTED, Settings

TOKEN_NAME = "token"


async def serve_http(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises InvalidRequest for a set-up that cannot be honoured."""
    log_requests()
    with telemetry.exported():
        await _serve(settings)


async def _serve(settings: Settings) -> None:
    async with running(settings) as app:
        token, made = http_token(settings)

        def ready(url: str) -> None:
            _say(f"serving MCP at {url}")
            _say(f"serving the API at {url.removesuffix(PATH)}")
            if made:
                _say(f"bearer token {token} (kept in {settings.data_dir / TOKEN_NAME})")
            elif not settings.api_key:
                _say(f"the bearer token is in {settings.data_dir / TOKEN_NAME}")
            if settings.platform == "api" and settings.model != SCRIPTED and not any(map(os.environ.get, KEYS)):
                _say(f"no key for the model: set {' or '.join(KEYS)}, or use the model `{SCRIPTED}`")

        async def service() -> Service:
            return app.service

        async def secret() -> bytes:
            return app.secret

        behind = Behind(
            app.uses, app.answers, app.keys.holder, app.watch.trouble, app.watch.shortage, app.watch.figures
        )
        await run_http(build(service, secret), settings, token, ready, behind)


def log_requests() -> None:
    """Let the lines of the access log go out bare: each is one JSON object, shown from level INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access.addHandler(handler)
    access.propagate = False


def _say(line: str) -> None:
    print(f"skiff: {line}", file=sys.stderr, flush=True)  # noqa: T201 - for the person who started it


def http_token(settings: Settings) -> tuple[str, bool]:
    """The bearer token: the setting's, or the one of the data folder; whether it was made just now.

    Raises InvalidRequest for an empty token file, StoreError when none can be written.
    """
    if settings.api_key:
        return settings.api_key, False
    path = Path(settings.data_dir) / TOKEN_NAME
    made = not path.exists() and _make_token(path)
    token = path.read_text("utf-8").strip()
    if not token:
        raise InvalidRequest(f"{path} is empty; delete it and start again.")
    return token, made


def _make_token(path: Path) -> bool:
    """Write a new token, whole or not at all; False when another process was faster.

    A link appears with all its content: neither a full disk nor a kill leaves an empty token for the next start.
    """
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{TOKEN_NAME}-", dir=path.parent)  # readable by its owner alone
        try:
            with os.fdopen(handle, "w") as file:
                file.write(f"skiff_{secrets.token_urlsafe(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        finally:
            os.unlink(draft)
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(f"No token can be kept in {path}: {error.strerror}. Set one: SKIFF_API_KEY.") from None
    return True
