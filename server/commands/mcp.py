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

HEAD_START = 1.0
"""Seconds in which the host gets its list of tools before the application's imports compete for the processor."""


async def serve_stdio(load: Callable[[], Settings]) -> None:
    """Serve until the host closes our input or sends SIGTERM; then hand running turns to a successor and leave."""
    starting = _Starting(load)
    task = asyncio.create_task(starting.run(), name="application")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, starting.leave.set)
    serving = asyncio.create_task(run_stdio(build(starting.service, starting.secret)), name="door")
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
        self._wanted = asyncio.Event()

    async def service(self) -> Service:
        """The use-cases, once they are there. Raises what kept them from starting."""
        return (await self._app()).service

    async def secret(self) -> bytes:
        """The installation's secret, likewise."""
        return (await self._app()).secret

    async def _app(self) -> App:
        self._wanted.set()
        return await asyncio.shield(self._opened)

    async def _head_start(self) -> None:
        """Let the host have its list of tools first; a tool that is called ends the wait."""
        ends = [asyncio.ensure_future(event.wait()) for event in (self._wanted, self.leave)]
        await asyncio.wait(ends, timeout=HEAD_START, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def run(self) -> None:
        """Open the application, keep it until it is time to leave, and close it."""
        await self._head_start()
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
