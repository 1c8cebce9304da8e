"""The MCP door of a running Skiff, for tests: real store, real engine, the scripted model; sandboxes only if used."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp.server import MCPServer

from server.app import App, running
from server.doors.mcp.server import build
from server.settings import load

NO_TOOLS: dict[str, Any] = {"tools": []}
"""An agent that needs no sandbox."""


def script(*steps: dict[str, Any]) -> str:
    """A task for the scripted model: these steps, one answer each."""
    return f"Follow the script.\n```script\n{json.dumps(list(steps))}\n```\n"


async def test_key() -> bytes:
    """A key that outlives the server, as an installation's does."""
    return b"a key for tests, 32 bytes long.."


test_key.__test__ = False  # type: ignore[attr-defined]


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[tuple[MCPServer[Any], App]]:
    """The door and the application behind it; `options` go to `build`."""
    settings = load(data_dir=folder, sandbox="local", model="scripted", pool=0)
    async with running(settings) as app:

        async def service() -> Any:
            return app.service

        await app.role.backend()  # the engine is there: a test that ends early must not stop it half started
        yield build(service, test_key, **options), app
