"""Servers of the Managed Agents API as processes: a real `skiff serve`, the bare one beside it, and who asks them.

Above: `rows/rest` and `rows/followers`. Below: the command line, over real ports. Who asks is the official client. Who
follows, where many do, is a bare socket: twenty of the official client would cost more than what they follow.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from anthropic import AsyncAnthropic

from benchmarks.bench import MODEL, Bench
from benchmarks.fake import ROOT
from benchmarks.host import LEAVE_SECONDS, environment
from benchmarks.skiff import sweep

KEY = "benchmark"
START_SECONDS = 60.0
SAYS = "serving the API at "
SMALL_WINDOW = 4096
"""Bytes that a follower's socket takes although nobody reads it."""
TURN_SECONDS = 120.0
"""For the longest turn that is measured through this door."""
TOOLSET = {"type": "agent_toolset_20260401"}
_HEADERS = "anthropic-version: 2023-06-01\r\nanthropic-beta: managed-agents-2026-04-01"


@dataclass(frozen=True)
class Site:
    """A server that listens."""

    url: str
    pid: int

    def client(self) -> AsyncAnthropic:
        """The official client, with nothing changed but address and key."""
        return AsyncAnthropic(base_url=self.url, api_key=KEY, max_retries=0)

    async def follow(self, session_id: str, *, stalled: bool = False) -> Follower:
        """A follower of a session's stream, once the stream is open."""
        address = urlsplit(self.url)
        connection = socket.socket()
        if stalled:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (address.hostname, address.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=SMALL_WINDOW if stalled else 1 << 20)
        path = f"/v1/sessions/{session_id}/events/stream"
        head = f"GET {path} HTTP/1.1\r\nhost: {address.netloc}\r\nx-api-key: {KEY}\r\n{_HEADERS}\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(START_SECONDS):
            status = await reader.readuntil(b"\r\n\r\n")
        if not status.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the stream was refused: {status.decode('latin-1')}")
        return Follower(reader, writer)


@dataclass(frozen=True)
class Follower:
    """An open stream on a bare socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def until(self, mark: bytes, times: int) -> None:
        """Read until this was seen so often. Raises RuntimeError when the stream ends before."""
        seen, tail = 0, b""
        while seen < times:
            piece = await self.reader.read(1 << 16)
            if not piece:
                raise RuntimeError(f"the stream ended after {seen} of {times} events: {tail!r}")
            *whole, rest = (tail + piece).split(mark)
            seen += len(whole)
            tail = rest[-len(mark) + 1 :]  # it may have come in two pieces

    def close(self) -> None:
        self.writer.close()


@dataclass(frozen=True)
class Places:
    """What the sessions of one server are made of, and how they are driven."""

    client: AsyncAnthropic
    agent: str
    environment: str

    async def session(self, task: str = "") -> str:
        """A new session's id; with a task, it begins with that."""
        begun: Any = {"initial_events": [message(task)]} if task else {}
        made = await self.client.beta.sessions.create(agent=self.agent, environment_id=self.environment, **begun)
        return made.id

    async def send(self, session_id: str, *texts: str) -> None:
        """One request with these messages."""
        await self.client.beta.sessions.events.send(session_id, events=[message(text) for text in texts])

    async def rest(self, session_id: str, turns: int) -> None:
        """Return once so many of the session's turns have ended. Raises RuntimeError when one did not end well."""
        stream = self.client.beta.sessions.events.stream
        async with asyncio.timeout(TURN_SECONDS), await stream(session_id, extra_query={"after": 0}) as events:
            async for event in events:
                turns -= ended(event)
                if not turns:
                    return


@asynccontextmanager
async def places(site: Site, *tools: Any) -> AsyncIterator[Places]:
    """An agent with these tools, and an environment without a network, on this server."""
    async with site.client() as client:
        agent = await client.beta.agents.create(name="measured", model=MODEL, tools=list(tools))
        environment = await client.beta.environments.create(
            name="measured", config={"type": "cloud", "networking": {"type": "limited"}}
        )
        yield Places(client, agent.id, environment.id)


def message(text: str) -> Any:
    """A user.message."""
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


def ended(event: Any) -> bool:
    """Whether a turn ends with this event. Raises RuntimeError when it did not end well."""
    if event.type in ("session.error", "session.status_terminated", "session.deleted"):
        raise RuntimeError(f"a measured turn failed: {event.to_json()}")
    return bool(event.type == "session.status_idle")


@asynccontextmanager
async def skiff_serve(bench: Bench) -> AsyncIterator[Site]:
    """A `skiff serve` on a fresh data folder, without a warm pool; its sandboxes go at the end."""
    folder = bench.folder()
    arguments = ["-m", "server", "serve", "--data-dir", str(folder), "--sandbox", bench.sandbox, "--model", MODEL]
    try:
        async with started([*arguments, "--port", "0"], {"SKIFF_API_KEY": KEY, "SKIFF_POOL": "0"}) as site:
            yield site
    finally:
        await sweep(bench, folder)


@asynccontextmanager
async def bare_serve(bench: Bench, there: Places, session_id: str) -> AsyncIterator[Site]:
    """The bare Starlette, which answers with the session as it looks now."""
    answer = await there.client.beta.sessions.with_raw_response.retrieve(session_id)
    file = bench.folder() / "session.json"
    file.write_bytes(await answer.read())
    async with started(["-m", "benchmarks.bare", str(file)], {}) as site:
        yield site


@asynccontextmanager
async def started(arguments: Sequence[str], given: Mapping[str, str]) -> AsyncIterator[Site]:
    """A server that says where it serves, with these variables besides this shell's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env=environment() | dict(given), stdin=DEVNULL, stderr=PIPE
    )
    draining: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(START_SECONDS):
            url = await _address(process)
        draining = asyncio.create_task(_drain(process))
        yield Site(url, process.pid)
    finally:
        await _end(process)
        if draining:
            await draining


async def _address(process: Process) -> str:
    assert process.stderr is not None
    said = b""
    while line := await process.stderr.readline():
        said += line
        if SAYS.encode() in line:
            return line.decode().split(SAYS)[1].strip()
    raise RuntimeError(f"the server never listened: {said.decode('utf-8', 'replace')}")


async def _drain(process: Process) -> None:
    """Let a server go on talking: what it says below its address are its troubles, which whoever measures must see."""
    assert process.stderr is not None
    while line := await process.stderr.readline():
        sys.stderr.write(line.decode("utf-8", "replace"))


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(LEAVE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
