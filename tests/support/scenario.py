"""The whole program in this process, for scenario tests: application, store, sandbox and provider are the real ones.

The model is the strict Messages API of `messages_api.py` over real HTTP, so that what the agent's model saw can be
looked up. Above: `tests/scenarios`. Below: `server.app.running`. A scene leaves nothing behind: at its end every
session is deleted, the application is closed, and the machine is searched for what is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sandbox.docker.labels import INSTALLATION
from server.app import App, running
from server.errors import NotFound
from server.events import StoredEvent
from server.sessions.means import REAL_TIME, Pace
from server.sessions.sandboxing.workspace import File, Folder
from server.sessions.service import NewSession, Service, SessionView
from server.settings import Settings
from tests.support.messages_api import MessagesAPI, messages_api
from tests.support.sandboxes import data_folder, require

T = TypeVar("T")
Step = Mapping[str, Any]

MODEL = "claude-sonnet-5-5"
SECONDS = 60.0
"""Whatever a scenario waits for comes within a second or two; after this it will not come."""
POLL = 0.03
"""Between looks at what nothing announces: a file in a sandbox, a process that is gone."""


def script(*steps: Step, say: str = "Go on.") -> str:
    """A message that tells the scripted model what to answer, step by step."""
    return f"{say}\n```script\n{json.dumps(steps)}\n```"


def bash(command: str, **more: Any) -> dict[str, Any]:
    """A call of bash, for a step's `call`."""
    return {"tool": "bash", "input": {"command": command, **more}}


def call(*calls: Step) -> Step:
    """A step that makes these calls in one answer."""
    return {"call": list(calls)}


async def eventually(look: Callable[[], Awaitable[T]], what: str = "it") -> T:
    """What `look` finds, once it finds something true; bounded. For what nothing announces."""
    for _ in range(int(SECONDS / POLL)):
        if found := await look():
            return found
        await asyncio.sleep(POLL)
    raise AssertionError(f"{what} never came")


@dataclass
class Scene:
    """A running application and the model that it asks."""

    app: App
    api: MessagesAPI
    kind: str

    @property
    def service(self) -> Service:
        return self.app.service

    async def start(self, *steps: Step, **asked: Any) -> str:
        """A new session whose first task is this script; without steps, one without a task. Returns its id."""
        task = script(*steps) if steps else None
        view = await self.service.create_session(NewSession(task=task, **asked))
        return view.id

    async def tell(self, session_id: str, *steps: Step, say: str = "Go on.") -> SessionView:
        """Send a message with a script that governs from now on; without steps, plain words."""
        return await self.service.send_message(session_id, script(*steps, say=say) if steps else say)

    async def finish(self, session_id: str) -> SessionView:
        """The session, once it rests."""
        (view,) = await self.service.wait([session_id], "all", SECONDS)
        assert view.settled, (view.state, await self.types(session_id))
        return view

    async def turn(self, *steps: Step, **asked: Any) -> SessionView:
        """A new session's whole first turn."""
        return await self.finish(await self.start(*steps, **asked))

    async def again(self, session_id: str, *steps: Step) -> SessionView:
        """One more turn of a session."""
        await self.tell(session_id, *steps)
        return await self.finish(session_id)

    # --- looking at what happened ------------------------------------------------------------------------------------

    async def events(self, session_id: str, *types: str) -> list[Mapping[str, Any]]:
        """The public events, or those of these types."""
        listed = [event for _, event in await self.service.transcript(session_id, limit=10_000)]
        return [event for event in listed if not types or event["type"] in types]

    async def types(self, session_id: str) -> list[str]:
        return [event["type"] for event in await self.events(session_id)]

    async def results(self, session_id: str) -> list[str]:
        """The text of every tool result, in the order in which they came."""
        return [said(event) for event in await self.events(session_id, "agent.tool_result")]

    async def until(self, session_id: str, wanted: Callable[[StoredEvent], object]) -> StoredEvent:
        """The first event that is wanted, stored or yet to come; bounded."""
        async with asyncio.timeout(SECONDS), aclosing(self.service.follow(session_id)) as events:
            async for event in events:
                if isinstance(event, StoredEvent) and wanted(event):
                    return event
        raise AssertionError("the log ended")

    async def reaches(self, session_id: str, number: int) -> None:
        """Wait for the session's event of this number."""
        await self.until(session_id, lambda event: event.seq >= number)

    async def asked(self, condition: Callable[[MessagesAPI], object]) -> None:
        """Wait until the model's own log of requests fulfils the condition."""
        await asyncio.to_thread(self.api.wait_for, condition, SECONDS)

    async def file(self, session_id: str, path: str) -> str | None:
        """A file of the workspace as text; None while there is none."""
        try:
            found = await self.service.read_workspace(session_id, path)
        except NotFound:
            return None
        assert isinstance(found, File)
        return found.content.decode()

    async def appears(self, session_id: str, path: str) -> str:
        """The file's text, once it is there and not empty."""
        return await eventually(lambda: self.file(session_id, path), path) or ""

    async def names(self, session_id: str) -> list[str]:
        """What lies in the workspace's top folder."""
        found = await self.service.read_workspace(session_id)
        assert isinstance(found, Folder)
        return [entry.name for entry in found.entries]


def reply(view: SessionView) -> str:
    """The agent's last reply, without the newline that a command's output ends with."""
    return (view.state.reply or "").strip()


def said(event: Mapping[str, Any]) -> str:
    """The text of an event."""
    return "".join(block.get("text", "") for block in event["content"])


def tool_results(body: Mapping[str, Any]) -> list[str]:
    """The text of the tool results in the last message of a request, in their order."""
    blocks = [block for block in body["messages"][-1]["content"] if block["type"] == "tool_result"]
    return ["".join(part.get("text", "") for part in block["content"]) for block in blocks]


# --- opening and closing ---------------------------------------------------------------------------------------------

Story = Callable[[Scene], Awaitable[None]]
OpenAgain = Callable[[bool], AbstractAsyncContextManager[Scene]]
"""Opens the application; True for its last life, at whose end everything is deleted."""


@dataclass
class Stage:
    """Where a story plays: the kind of sandbox, and the environment in which the SDK finds the model."""

    kind: str
    monkeypatch: pytest.MonkeyPatch
    place: Callable[[], AbstractContextManager[Path]] = data_folder
    """Makes the data folder."""

    def play(self, story: Story, *, pace: Pace = REAL_TIME, **settings: Any) -> None:
        """Play a story in a fresh application; then clear away and search for what is left."""

        async def once(open_again: OpenAgain) -> None:
            async with open_again(True) as scene:
                await story(scene)

        self.play_lives(once, pace=pace, **settings)

    def play_lives(
        self, story: Callable[[OpenAgain], Awaitable[None]], *, pace: Pace = REAL_TIME, **settings: Any
    ) -> None:
        """Play a story of several lives of the application, one after the other on one data folder."""
        with messages_api() as api, self.place() as folder:
            self.monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
            self.monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-scripted-key")
            self.monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
            try:
                asyncio.run(_bounded(story(lambda last: self._opened(api, folder, last, pace, settings))))
            finally:
                left = clear(self.kind, folder)
            assert not left, f"left behind: {left}"

    @asynccontextmanager
    async def _opened(
        self, api: MessagesAPI, folder: Path, last: bool, pace: Pace, settings: Mapping[str, Any]
    ) -> AsyncIterator[Scene]:
        """The application on this folder; at the end of its last life its sessions are deleted."""
        values = {"model": MODEL, "pool": 0, "pause_after": 0.0, "sandbox_memory_mb": 128, **settings}
        given = Settings(data_dir=folder, sandbox=self.kind, **values)  # type: ignore[arg-type]
        async with running(given, pace=pace) as app:
            scene = Scene(app, api, self.kind)
            try:
                yield scene
            finally:
                for view in await scene.service.list_sessions(limit=100, archived=True) if last else ():
                    await scene.service.delete_session(view.id, if_running="interrupt")


async def _bounded(story: Awaitable[None]) -> None:
    async with asyncio.timeout(2 * SECONDS):
        await story


def stage_for(kind: str, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage with this kind of sandbox; skips, or fails, where the machine has none."""
    require(kind)
    return Stage(kind, monkeypatch)


# --- what is left behind ---------------------------------------------------------------------------------------------


def clear(kind: str, folder: Path) -> list[str]:
    """What the application on this data folder left on the machine, after it was closed; removed, and named."""
    installation = installation_of(folder)
    left = _clear_docker(installation) if kind == "docker" and installation else []
    return left + _clear_folder(folder)


def installation_of(folder: Path) -> str | None:
    """The installation's id, as it stands in the database."""
    path = folder / "skiff.db"
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT value FROM meta WHERE key = 'installation'").fetchone()
    finally:
        connection.close()
    return str(row[0]) if row else None


def docker(*arguments: str) -> str:
    """What the engine's own command line says."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


def containers(folder: Path, *more: str) -> list[str]:
    """The ids of the installation's containers."""
    label = f"label={INSTALLATION}={installation_of(folder)}"
    return docker("ps", "-aq", "--no-trunc", "--filter", label, *more).split()


def _clear_docker(installation: str) -> list[str]:
    label = f"label={INSTALLATION}={installation}"
    boxes = docker("ps", "-aq", "--filter", label).split()
    volumes = docker("volume", "ls", "-q", "--filter", label).split()
    if boxes:
        docker("rm", "-f", *boxes)
    if volumes:
        docker("volume", "rm", "-f", *volumes)
    return [*(f"container {name}" for name in boxes), *(f"volume {name}" for name in volumes)]


def _clear_folder(folder: Path) -> list[str]:
    """Workspaces of the embedded backend that nobody removed, archives, and files on their way somewhere."""
    left = [path for name in ("sandboxes", "archives") for path in (folder / name).glob("*")]
    return [f"{path.parent.name} {path.name}" for path in [*left, *(folder / "files").glob("*.part")]]


def processes_of(mark: str) -> list[int]:
    """The processes whose command line holds this mark (a data folder that nobody else has)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            if mark.encode() in line:
                found.append(int(entry.name))
    return found


def commands(*marks: str) -> Sequence[int]:
    """The processes of this machine whose command line holds every mark, sandboxes' included."""
    sets = [set(processes_of(mark)) for mark in marks]
    return sorted(set.intersection(*sets))
