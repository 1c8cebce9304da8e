"""The program as hosts start it: `python -m server mcp` in processes of its own, talked to by the official client.

Above: `tests/e2e`. Below: the command line, over real pipes. A `Machine` owns a data folder and the model that its
processes ask; at its end every process that works on the folder is ended, by number, and what is left on the
container engine is named.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from tests.support.messages_api import MessagesAPI, messages_api
from tests.support.sandboxes import data_folder
from tests.support.scenario import MODEL, SECONDS, clear, eventually, installation_of, processes_of

ROOT = Path(__file__).resolve().parents[2]
STORY_SECONDS = 100.0
"""A story of real processes takes ten seconds on a busy machine."""


class ToolFailed(Exception):
    """A tool answered with an error; the text is what the host's model reads."""


@dataclass
class Host:
    """One host: a client connected to a process of its own."""

    client: Client
    pid: int

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured result of a tool. Raises ToolFailed with its words."""
        result = await self.client.call_tool(tool, arguments, read_timeout_seconds=SECONDS)
        if result.is_error:
            raise ToolFailed("".join(getattr(block, "text", "") for block in result.content))
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    async def finish(self, session: str) -> dict[str, Any]:
        """The session's result, once it rests; bounded."""
        waited = await self.call("wait", session_ids=[session], wait_seconds=SECONDS)
        (found,) = waited["sessions"]
        assert found["status"] != "running", found
        return dict(found)

    async def text(self, session: str, path: str) -> str | None:
        """A file of the workspace; None while there is none."""
        try:
            return str((await self.call("read_workspace", session_id=session, path=path))["text"])
        except ToolFailed:
            return None

    async def appears(self, session: str, path: str) -> str:
        """The file, once it is there and not empty."""
        return await eventually(lambda: self.text(session, path), path) or ""

    async def events(self, session: str, *types: str) -> list[Mapping[str, Any]]:
        """The session's events of these types."""
        found = await self.call("read_transcript", session_id=session)
        assert not found["more"]
        return [event for event in found["events"] if event["type"] in types]

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the process to end, as a host does that is in a hurry."""
        os.kill(self.pid, signal.SIGTERM)


@dataclass
class Machine:
    """A data folder, the model, and the processes on them."""

    folder: Path
    api: MessagesAPI
    kind: str

    @property
    def arguments(self) -> list[str]:
        return ["-m", "server", "mcp", "--data-dir", str(self.folder), "--sandbox", self.kind, "--model", MODEL]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": self.api.base_url,
            "ANTHROPIC_API_KEY": "sk-scripted-key",
            "SKIFF_POOL": "0",
            "SKIFF_PAUSE_AFTER": "0",
            "SKIFF_SANDBOX_MEMORY_MB": "128",
            "PYTHONPATH": str(ROOT),
            "HOME": os.environ.get("HOME", "/"),
        }

    @asynccontextmanager
    async def host(self, mode: str = "auto") -> AsyncIterator[Host]:
        """A host that starts a server of its own; leaving closes the server's input, as a host does."""
        before = set(processes_of(str(self.folder)))
        parameters = StdioServerParameters(command=sys.executable, args=self.arguments, env=self.environment)
        with _unless_gone():
            async with Client(parameters, mode=mode) as client:
                started = set(processes_of(str(self.folder))) - before
                (pid,) = (pid for pid in started if _parent(pid) == os.getpid())
                yield Host(client, pid)

    async def asked(self, condition: Callable[[MessagesAPI], object]) -> None:
        """Wait until the model's log of requests fulfils the condition."""
        await asyncio.to_thread(self.api.wait_for, condition, SECONDS)

    def processes(self) -> list[int]:
        """Every process that works on the folder."""
        return processes_of(str(self.folder))

    async def quiet(self) -> None:
        """Wait until no process works on the folder any more."""

        async def gone() -> bool:
            return not self.processes()

        await eventually(gone, "the end of every process")

    def installation(self) -> str | None:
        return installation_of(self.folder)


def play(kind: str, story: Callable[[Machine], Awaitable[None]]) -> None:
    """Play a story on a fresh machine; then end what runs, and clear away what is left."""
    with messages_api() as api, data_folder() as folder:
        machine = Machine(folder, api, kind)
        try:
            asyncio.run(_bounded(story(machine)))
            left = clear(kind, folder)
        finally:
            for pid in machine.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            clear(kind, folder)
        assert not left, f"left behind: {left}"


async def _bounded(story: Awaitable[None]) -> None:
    async with asyncio.timeout(STORY_SECONDS):
        await story


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


@contextmanager
def _unless_gone() -> Iterator[None]:
    """A server that was killed on purpose leaves a client that cannot say goodbye."""
    try:
        yield
    except* (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        pass  # its end was the story
