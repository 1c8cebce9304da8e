"""`skiff mcp`: one host over standard input and output.

`tools/list` is answered before the store is open: the application starts beside the door, and the first tool call
waits for it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from server.doors.mcp.server import build
from server.doors.mcp.stdio import run_stdio

if TYPE_CHECKING:
    from server.app import App
    from server.sessions.service import Service
    from server.settings import Settings


async def serve_stdio(load: Callable[[], Settings]) -> None:
    """Serve until the host closes our input or sends SIGTERM; then hand running turns to a successor and leave."""
    starting = _Starting(load)
    task = asyncio.create_task(starting.run(), name="application")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, starting.leave.set)
    serving = asyncio.create_task(run_stdio(build(starting.service)), name="door")
    leaving = asyncio.create_task(starting.leave.wait())
    try:
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        starting.leave.set()
        await task
    if not serving.done():
        os._exit(0)  # everything is closed; only the SDK's thread is left, which cannot be woken from its reading
    serving.result()


class _Starting:
    """The application, being opened in a task of its own, which also closes it."""

    def __init__(self, load: Callable[[], Settings]) -> None:
        self._load = load
        self._opened: asyncio.Future[App] = asyncio.get_running_loop().create_future()
        self.leave = asyncio.Event()

    async def service(self) -> Service:
        """The use-cases, once they are there. Raises what kept them from starting."""
        return (await asyncio.shield(self._opened)).service

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            try:
                settings = await asyncio.to_thread(self._load)
                module = await asyncio.to_thread(importlib.import_module, "server.app")
                app: App = await stack.enter_async_context(module.running(settings))
            except Exception as error:
                self._opened.set_exception(error)
                self._opened.exception()  # seen: a host that never calls a tool is not to be told twice
                return
            self._opened.set_result(app)
            await self.leave.wait()
            work = await asyncio.to_thread(importlib.import_module, "server.commands.work")
            work.hand_over(app)
