"""The use-cases that every door calls. A door translates its protocol to these and back, nothing more.

Above: the doors and the command line. Below: the store, the log, and a link to the engine, which may live in this
process or another. Every method raises leaves of `server.errors.SkiffError` and nothing else that a caller could mend.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from server import events
from server.errors import Conflict, InvalidRequest, NotFound
from server.events import StoredEvent
from server.ids import new_id, now
from server.sessions import agents, environments
from server.sessions.history import present
from server.sessions.log import Delta, Log
from server.sessions.spec import Spec, freeze, thaw
from server.sessions.state import SessionState, fold, load
from server.sessions.workspace import File, Folder, check_staged, clean
from server.store.store import SessionRow, Store

INTERRUPT_SECONDS = 20.0
"""How long `interrupt` waits for the session to come to rest."""


@dataclass(frozen=True)
class NewSession:
    """What a caller asks for. Everything is optional."""

    task: str | None = None
    agent: str | Mapping[str, Any] | None = None
    environment: str | Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    title: str | None = None
    request_key: str | None = None


@dataclass(frozen=True)
class SessionView:
    """A session as a door shows it."""

    row: SessionRow
    spec: Spec
    state: SessionState

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def settled(self) -> bool:
        """Nothing will happen until somebody sends something."""
        return self.state.status in ("idle", "terminated") and not self.state.queue

    def at_rest_after(self, input_id: str) -> bool:
        """This input was taken, and the turn that it met is over."""
        return self.state.status != "running" and all(item.id != input_id for item in self.state.queue)


@dataclass(frozen=True)
class Defaults:
    """What the operator's settings say about new sessions."""

    model: str
    max_tokens: int
    bounds: environments.Bounds
    web: Callable[[str], bool]
    """Whether the provider of this model has web tools of its own."""


class EngineLink(Protocol):
    """The way to the engine, wherever it runs."""

    async def backend(self) -> str:
        """The name of the sandbox backend that new sessions get."""

    async def wake(self, session_id: str) -> None:
        """An input was appended; see to it."""

    async def forget(self, session_id: str) -> None:
        """The session was deleted; stop its loop and remove its sandbox."""

    async def read_workspace(self, row: SessionRow, path: str, after: str, offset: int, limit: int) -> Folder | File:
        """See `Workspaces.read`."""

    async def write_workspace(self, row: SessionRow, path: str, content: bytes) -> None:
        """See `Workspaces.write`."""


class Service:
    """The use-cases."""

    def __init__(self, store: Store, log: Log, engine: EngineLink, defaults: Defaults) -> None:
        self._store = store
        self._log = log
        self._engine = engine
        self._defaults = defaults

    # --- making and ending sessions ----------------------------------------------------------------------------------

    async def create_session(self, asked: NewSession) -> SessionView:
        """Make a session, and start on its task if it has one. The same `request_key` gives the same session."""
        environment = await self._environment(asked.environment)
        agent = await self._agent(asked.agent, open_network=environments.reaches_out(environment))
        files = {clean(path): content for path, content in asked.files.items()}
        if len(files) < len(asked.files):
            raise InvalidRequest("files: two of the paths are the same file.")
        check_staged(files)
        defaults = self._defaults
        spec = freeze(
            agent,
            environment,
            backend=await self._engine.backend(),
            max_tokens=defaults.max_tokens,
            web=defaults.web(agent["model"]["id"]),
        )
        thread, at = new_id("sthr"), now()
        first = [events.user_message(thread, [events.text(_message(asked.task))])] if asked.task is not None else []
        row = SessionRow(new_id("sesn"), thread, asked.title, spec, 0, bool(first), None, 0, at, at, None)
        key = _key(asked.request_key, asked.__dict__)
        session_id = await self._store.create_session(row, first, files, key)
        if first:
            await self._engine.wake(session_id)
        return await self.view(session_id)

    async def delete_session(self, session_id: str, *, if_running: Literal["refuse", "interrupt"]) -> None:
        """Remove the session, its history and its sandbox with all files. Raises Conflict when it runs and must not."""
        view = await self.view(session_id)
        if not view.settled and if_running == "refuse":
            raise Conflict(f"Session {session_id} is running. Interrupt it first, or wait for it.")
        await self._store.delete_session(session_id)
        self._log.poke(session_id)
        with suppress(Conflict):  # no engine now: the next one finds the intent to remove the sandbox
            await self._engine.forget(session_id)

    # --- talking -----------------------------------------------------------------------------------------------------

    async def send_message(self, session_id: str, text: str, request_key: str | None = None) -> SessionView:
        """Queue a message: it starts a turn, or is given to the agent before its next step. Returns at once.

        The same `request_key` sends it once. Raises Conflict when the session takes no more messages.
        """
        view = await self.view(session_id)
        self._check_open(view)
        message = events.user_message(view.row.thread_id, [events.text(_message(text))])
        await self._log.append_input(session_id, [message], _key(request_key, {"message": text}))
        await self._engine.wake(session_id)
        return await self.view(session_id)

    async def interrupt(self, session_id: str) -> SessionView:
        """Stop what runs, and wait (at most INTERRUPT_SECONDS) until it has stopped. Harmless when the session is idle.

        A message that was queued then starts the next turn, as the wire has it: the view may say `running` again.
        """
        view = await self.view(session_id)
        self._check_open(view)
        if view.settled:
            return view
        (asked,) = await self._log.append_input(session_id, [events.user_interrupt(view.row.thread_id)])
        await self._engine.wake(session_id)
        try:
            async with asyncio.timeout(INTERRUPT_SECONDS), aclosing(self._watch(view)) as seen:
                async for now_seen in seen:
                    if now_seen.state.seq > asked.seq and now_seen.at_rest_after(asked.id):
                        return await self.view(session_id)
        except TimeoutError:
            pass  # it stays asked for; the caller sees that the session still runs
        return await self.view(session_id)

    async def wait(
        self,
        session_ids: Sequence[str],
        mode: Literal["any", "all"],
        seconds: float,
        on_news: Callable[[SessionView], None] | None = None,
    ) -> list[SessionView]:
        """Wait until any or all of the sessions rest, or the time is over; returns their views, in the order asked.

        `on_news` is called with every session's view, then with a session's view at each of its events.
        Cancelling it changes nothing.
        """
        views = {session_id: await self.view(session_id) for session_id in session_ids}
        if on_news is not None:
            for view in views.values():
                on_news(view)

        async def watch(session_id: str) -> None:
            async with aclosing(self._watch(views[session_id])) as seen:
                async for view in seen:
                    views[session_id] = view
                    if on_news is not None:
                        on_news(view)
                    if view.settled:
                        return

        waiting = [asyncio.create_task(watch(key)) for key, view in views.items() if not view.settled]
        enough = asyncio.ALL_COMPLETED if mode == "all" else asyncio.FIRST_COMPLETED
        try:
            if waiting and (mode == "all" or len(waiting) == len(views)):
                await asyncio.wait(waiting, timeout=max(0.0, seconds), return_when=enough)
            for task in waiting:
                if task.done():
                    task.result()
        finally:
            for task in waiting:
                task.cancel()
            if waiting:
                await asyncio.wait(waiting)
        return [views[session_id] for session_id in session_ids]

    # --- looking -----------------------------------------------------------------------------------------------------

    async def view(self, session_id: str) -> SessionView:
        """A session as it is now. Raises NotFound."""
        row, tail = await self._store.session_and_tail(session_id)
        return await self._view(row, tail)

    async def list_sessions(
        self, *, limit: int = 20, before: tuple[str, str] | None = None, archived: bool = False
    ) -> list[SessionView]:
        """Sessions, newest first; `before` is the (created_at, id) of the last one of the page before."""
        rows = await self._store.sessions(limit=limit, before=before, archived=archived)
        return [await self._view(row) for row in rows]

    async def transcript(
        self, session_id: str, after: int = 0, limit: int = 200
    ) -> list[tuple[int, Mapping[str, Any]]]:
        """The public events numbered above `after`, each with its number, at most `limit`."""
        await self._store.session(session_id)
        return present(await self._log.read(session_id), after, limit)

    def follow(self, session_id: str, after: int = 0, *, deltas: bool = False) -> AsyncGenerator[StoredEvent | Delta]:
        """See `Log.follow`."""
        return self._log.follow(session_id, after, deltas=deltas)

    # --- files -------------------------------------------------------------------------------------------------------

    async def read_workspace(
        self, session_id: str, path: str = ".", *, after: str = "", offset: int = 0, limit: int = 1 << 20
    ) -> Folder | File:
        """A page of a folder or a portion of a file. Raises NotFound, InvalidRequest, Conflict."""
        return await self._engine.read_workspace(await self._store.session(session_id), path, after, offset, limit)

    async def write_workspace(self, session_id: str, path: str, content: bytes) -> None:
        """Place a file. Raises InvalidRequest, Conflict."""
        view = await self.view(session_id)
        self._check_open(view)
        await self._engine.write_workspace(view.row, path, content)

    # --- parts -------------------------------------------------------------------------------------------------------

    async def _view(self, row: SessionRow, tail: Sequence[StoredEvent] = ()) -> SessionView:
        """`tail`: the events that the cached fold does not cover, where they have been read already."""
        state = _cached(row)
        if not tail or tail[0].seq != state.seq + 1:
            tail = await self._log.read(row.id, state.seq) if row.head > state.seq else ()
        return SessionView(row, thaw(row.spec), fold(state, tail))

    async def _watch(self, view: SessionView) -> AsyncGenerator[SessionView]:
        state = view.state
        async with aclosing(self._log.follow(view.id, state.seq)) as log:
            async for event in log:
                if isinstance(event, StoredEvent):
                    state = fold(state, (event,))
                    yield SessionView(view.row, view.spec, state)

    def _check_open(self, view: SessionView) -> None:
        if view.row.archived_at or view.state.status == "terminated":
            raise Conflict(f"Session {view.id} is archived: it can be read, but takes nothing new. Create another.")

    async def _agent(self, asked: str | Mapping[str, Any] | None, *, open_network: bool) -> Mapping[str, Any]:
        if isinstance(asked, str):
            return await self._saved("agents", "agent", asked)
        model = (asked or {}).get("model") or self._defaults.model
        model_id = str(model.get("id", "") if isinstance(model, Mapping) else model)
        web = open_network and self._defaults.web(model_id)
        agent = agents.resolve(asked or {}, default_model=self._defaults.model, web=web)
        return await self._store.save("agents", agent, agents.digest(agent))

    async def _environment(self, asked: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
        if isinstance(asked, str):
            return await self._saved("environments", "environment", asked)
        environment = environments.resolve(asked or {}, self._defaults.bounds)
        return await self._store.save("environments", environment, environments.digest(environment))

    async def _saved(self, table: str, noun: str, name: str) -> Mapping[str, Any]:
        found = await self._store.find(table, name)
        if found is None:
            known = ", ".join(await self._store.names(table)) or "none yet"
            raise NotFound(
                f"No {noun} is saved as {name!r} (saved: {known}). Describe it inline, with a `name` to save it."
            )
        return found


def _message(text: str) -> str:
    if not text.strip():
        raise InvalidRequest("The message is empty. Say what the agent should do.")
    return text


def _cached(row: SessionRow) -> SessionState:
    if row.fold is None:
        return SessionState()
    try:
        return load(row.fold)
    except (TypeError, KeyError):  # written by another version: the log itself is the truth
        return SessionState()


def _key(request_key: str | None, asked: Mapping[str, Any]) -> tuple[str, str] | None:
    if request_key is None:
        return None
    text = json.dumps({k: v for k, v in asked.items() if k != "request_key"}, sort_keys=True, default=repr)
    return request_key, hashlib.sha256(text.encode()).hexdigest()
