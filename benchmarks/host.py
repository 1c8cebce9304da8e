"""An MCP host in its barest form: a child process and lines of JSON, so that no client library is in the figures.

Above: `rows/`. Below: the operating system. It speaks to `skiff mcp` and to any other server on standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.fake import ROOT

PROTOCOL = "2025-06-18"
LINE_LIMIT = 1 << 24
LEAVE_SECONDS = 20.0
"""For a server to leave after its input has ended: a warm container is removed in 0.1 s, on a busy engine in one."""


class Host:
    """One connection to one server."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._number = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    async def initialize(self) -> None:
        """The handshake."""
        info = {"name": "benchmarks", "version": "1"}
        await self.request("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": info})
        self._write({"method": "notifications/initialized"})

    async def request(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The result of a request. Raises RuntimeError for an error, or a server that went away."""
        self._number += 1
        self._write({"id": self._number, "method": method, "params": params})
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if message.get("id") != self._number:
                continue
            if "error" in message:
                raise RuntimeError(f"{method}: {message['error']}")
            result: Mapping[str, Any] = message["result"]
            return result
        raise RuntimeError(f"{method}: the server ended before it answered")

    async def tool(self, name: str, **arguments: Any) -> Mapping[str, Any]:
        """The structured result of a tool call. Raises RuntimeError when the tool says that it failed."""
        result = await self.request("tools/call", {"name": name, "arguments": arguments})
        if result.get("isError"):
            raise RuntimeError(f"{name}: {result.get('content')}")
        content: Mapping[str, Any] = result["structuredContent"]
        return content

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


@asynccontextmanager
async def child(arguments: Sequence[str]) -> AsyncIterator[Process]:
    """A Python program of ours; at the end its input is closed, and it is killed when it does not leave."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env=environment(), stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@asynccontextmanager
async def host(arguments: Sequence[str]) -> AsyncIterator[Host]:
    """A server started with `python` and these arguments; not yet spoken to."""
    async with child(arguments) as process:
        yield Host(process)


def skiff_mcp(folder: Path, *more: str) -> list[str]:
    """How a host starts Skiff on this data folder."""
    return ["-m", "server", "mcp", "--data-dir", str(folder), *more]


def environment() -> dict[str, str]:
    """The children's: with bytecode caches, as an installed program has them, whatever this shell prefers."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
