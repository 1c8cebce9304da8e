"""This process's part on its data folder: the engine, or a door of another process's engine. It may change.

Above: `app`, which runs it in a task, and `Service`, which sees only an `EngineLink`. Below: the lock, the doorbell,
and `open_engine`, which builds supervisor and sandboxes once this process has been elected.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.engine.doorbell import Doorbell, DoorbellClient, socket_path
from server.engine.lock import EngineLock
from server.errors import Conflict, TryAgain
from server.sessions.log import Log
from server.sessions.sandboxing.workspace import Entry, File, Folder, Workspaces
from server.sessions.supervisor import Supervisor
from server.store.files import Seen
from server.store.store import SessionRow, Store

logger = logging.getLogger(__name__)

RETRY = 0.2
"""Seconds between attempts to take the lock or to reach the engine: a dead one is replaced within a second."""
LOOK = 1.0
"""Seconds between looks at the database for what other processes wrote: a fallback, the doorbell is faster."""
READY_SECONDS = 30.0
"""How long a request waits for an engine to be there: a take-over, or a slow start of a container engine."""
WAKE_SECONDS = 5.0
"""For the engine to hear a ring. What it rings for is stored: an engine that is busy finds it at its next look."""


@dataclass(frozen=True)
class Engine:
    """What the elected process runs."""

    supervisor: Supervisor
    workspaces: Workspaces
    backend: str
    collect: Callable[[], Awaitable[Sequence[str]]]
    """Removes the sandboxes that are nobody's; their slots."""


OpenEngine = Callable[[Callable[[], None]], AbstractAsyncContextManager[Engine]]
"""Builds the engine; its argument is to be called when another engine has taken over."""


class Role:
    """An `EngineLink` that is the engine or asks it. `run` it in a task for as long as the process serves.

    Without `open_engine` it only ever asks.
    """

    def __init__(self, data_dir: Path, store: Store, log: Log, open_engine: OpenEngine | None) -> None:
        self._store = store
        self._log = log
        self._lock = EngineLock(data_dir / "engine.lock")
        self._socket = socket_path(data_dir)
        self._open_engine = open_engine
        self._engine: Engine | None = None
        self._client: DoorbellClient | None = None
        self._ready = asyncio.Event()
        self.trouble = ""
        """Why this process could not be the engine when it last tried; empty when it could, or another is."""

    @property
    def engine(self) -> Engine | None:
        """The engine, if this process is it now."""
        return self._engine

    @property
    def present(self) -> bool:
        """Whether there is an engine, here or in a process that this one can ask."""
        return self._engine is not None or self._client is not None

    async def run(self) -> None:
        """Be the engine when the lock is free, a door otherwise, for ever. Cancelling it lets go of everything."""
        while True:
            if self._open_engine is not None and self._lock.try_take():
                try:
                    await self._be_engine(self._open_engine)
                except Exception as error:
                    self.trouble = str(error) or type(error).__name__
                    raise
                finally:
                    self._lock.release()
            else:
                await self._be_door()
            await self._look(asyncio.sleep(RETRY))

    async def _be_engine(self, open_engine: OpenEngine) -> None:
        deposed = asyncio.Event()
        async with (
            open_engine(deposed.set) as engine,
            Doorbell(self._socket, self._handle) as doorbell,
        ):
            self._engine, self.trouble = engine, ""
            self._log.on_append = doorbell.tell
            self._ready.set()
            try:
                # What came while the engine was opening met nobody who could be woken.
                known = set(engine.supervisor.at_work)
                for session_id in await self._store.at_work():
                    if session_id not in known:
                        engine.supervisor.wake(session_id)
                while not deposed.is_set():
                    if await self._look(deposed.wait()):
                        for session_id in await self._store.at_work():
                            engine.supervisor.wake(session_id)
            finally:
                self._ready.clear()
                self._engine, self._log.on_append = None, None

    async def _be_door(self) -> None:
        try:
            client = await DoorbellClient.connect(self._socket)
        except OSError:
            return  # the engine is starting, or has just died: try again
        self._client, self.trouble = client, ""
        self._ready.set()
        listening = asyncio.create_task(client.listen(self._log.poke))
        try:
            while not listening.done():
                await self._look(asyncio.shield(listening))
        finally:
            self._ready.clear()
            self._client = None
            listening.cancel()
            await asyncio.wait({listening})

    async def _look(self, end: Awaitable[Any]) -> bool:
        """Wait for the end, LOOK seconds at most; then let followers see what others wrote. Whether they wrote."""
        with suppress(TimeoutError):
            # Not `wait_for`: that of Python 3.11 loses a cancel that comes just as the end does; this would never stop.
            async with asyncio.timeout(LOOK):
                await end
        if not await self._store.changed():
            return False
        self._log.poke()
        return True

    # --- EngineLink ---------------------------------------------------------------------------------------------------

    async def backend(self) -> str:
        """The name of the sandbox backend that new sessions get."""
        result, _ = await self._ask({"do": "backend"})
        return str(result["backend"])

    async def wake(self, session_id: str) -> None:
        """An input was appended. An engine that is not there will find it in the database when it comes."""
        if self._engine is not None:
            self._engine.supervisor.wake(session_id)
        elif self._client is not None:
            with suppress(ConnectionError, Conflict):  # the next look of this engine or the next finds the session
                await self._client.ask({"do": "wake", "session": session_id}, seconds=WAKE_SECONDS)

    async def waiting(self, session_ids: Sequence[str]) -> Mapping[str, str]:
        """What those of these sessions wait for that wait, in words; none, when the engine cannot say."""
        request = {"do": "waiting", "sessions": list(session_ids)}
        with suppress(ConnectionError, Conflict):
            if self._engine is not None:
                return (await self._handle(request, b""))[0]
            if self._client is not None:
                return (await self._client.ask(request, seconds=WAKE_SECONDS))[0]
        return {}

    async def forget(self, session_id: str) -> None:
        """The session was deleted; the intent to remove its sandbox is stored."""
        await self._ask({"do": "forget", "session": session_id})

    async def read_workspace(self, row: SessionRow, path: str, after: str, offset: int, limit: int) -> Folder | File:
        request = {"do": "read", "session": row.id, "path": path, "after": after, "offset": offset, "limit": limit}
        result, body = await self._ask(request)
        return _unpack(result, body)

    async def write_workspace(self, row: SessionRow, path: str, content: bytes) -> None:
        await self._ask({"do": "write", "session": row.id, "path": path}, content)

    async def outputs(self, row: SessionRow) -> list[Seen]:
        _, body = await self._ask({"do": "outputs", "session": row.id})
        return [Seen(**seen) for seen in json.loads(body)]

    async def remove_output(self, row: SessionRow, path: str) -> None:
        await self._ask({"do": "remove_output", "session": row.id, "path": path})

    async def mount(self, row: SessionRow) -> None:
        await self._ask({"do": "mount", "session": row.id})

    # --- for the commands ---------------------------------------------------------------------------------------------

    async def reached(self, seconds: float) -> bool:
        """Whether there is an engine, here or in another process; waits so long for one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        return self.present

    async def process(self) -> int:
        """The number of the process that is the engine. Raises TryAgain when there is none for READY_SECONDS."""
        result, _ = await self._ask({"do": "process"})
        return int(result["process"])

    async def collect(self) -> Sequence[str]:
        """Have the engine remove the sandboxes that are nobody's; their slots."""
        result, _ = await self._ask({"do": "gc"})
        return [str(slot) for slot in result["removed"]]

    async def _ask(self, request: Mapping[str, Any], body: bytes = b"") -> tuple[Mapping[str, Any], bytes]:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while self._engine is None and self._client is None:  # it may be gone again before we are woken
                    await self._ready.wait()
        except TimeoutError:
            why = f" This one cannot: {self.trouble.rstrip('.')}." if self.trouble else ""
            raise TryAgain(f"No Skiff process drives this data folder at the moment.{why} Try again shortly.") from None
        if self._engine is not None:
            return await self._handle(request, body)
        assert self._client is not None
        try:
            return await self._client.ask(request, body)
        except ConnectionError:
            raise TryAgain(
                "The Skiff process that drives the sessions went away; another takes over. Try again."
            ) from None

    async def _handle(self, request: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        """Do what a door asks, this process's own or another's."""
        engine = self._engine
        if engine is None:
            raise TryAgain("This process has just stopped being the engine. Try again.")
        what, session_id = request.get("do"), str(request.get("session", ""))
        if what == "backend":
            return {"backend": engine.backend}, b""
        if what == "process":
            return {"process": os.getpid()}, b""
        if what == "waiting":
            waits = {key: engine.supervisor.waiting(key) for key in map(str, request["sessions"])}
            return {key: words for key, words in waits.items() if words}, b""
        if what == "gc":
            return {"removed": list(await engine.collect())}, b""
        if what == "wake":
            self._log.poke(session_id)
            engine.supervisor.wake(session_id)
            return {}, b""
        if what == "forget":
            await engine.supervisor.forget(session_id)
            return {}, b""
        row = await self._store.session(session_id)
        if what == "write":
            await engine.workspaces.write(row, str(request["path"]), body)
            return {}, b""
        if what == "outputs":
            return {}, json.dumps([asdict(seen) for seen in await engine.workspaces.outputs(row)]).encode()
        if what == "remove_output":
            await engine.workspaces.remove_output(row, str(request["path"]))
            return {}, b""
        if what == "mount":
            await engine.workspaces.mount(row.id)
            return {}, b""
        found = await engine.workspaces.read(
            row,
            str(request["path"]),
            after=str(request["after"]),
            offset=int(request["offset"]),
            limit=int(request["limit"]),
        )
        return _pack(found)


def _pack(found: Folder | File) -> tuple[Mapping[str, Any], bytes]:
    fields = {name: value for name, value in asdict(found).items() if name != "content"}
    return fields, found.content if isinstance(found, File) else b""


def _unpack(fields: Mapping[str, Any], body: bytes) -> Folder | File:
    if "media_type" in fields:
        return File(content=body, **fields)
    entries = [Entry(**entry) for entry in fields["entries"]]
    return Folder(**{**fields, "entries": entries})
