"""Sessions are made, changed, archived and deleted here.

Above: `service`. Below: `looking`, the store, the log, the catalog (what sessions are made of), the files (what they
are given) and a link to the engine. Every method raises leaves of `server.errors.SkiffError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from server import events
from server.catalog import agents, environments, fields
from server.catalog.service import Catalog
from server.errors import Conflict, InvalidRequest, NotFound, Refused, TryAgain
from server.events import NewEvent
from server.files.service import Files, Given
from server.ids import new_id, now
from server.room import Room
from server.sessions import inputs, requests
from server.sessions.inputs import Uploaded
from server.sessions.log import Log
from server.sessions.looking import Looking
from server.sessions.money import bounding
from server.sessions.requests import AskedUpdate
from server.sessions.sandboxing.workspace import File, Folder, check_staged, clean
from server.sessions.shown import session_object, thread_object
from server.sessions.spec import freeze
from server.sessions.view import SessionView
from server.store.store import Change, Filter, HeadMoved, SessionRow, Store

ATTEMPTS = 100
"""Looks at a session that moves on while it is to be changed. Each takes a millisecond or two, and the session does
little in that time; a hundred in a row mean that something is wrong."""
Key = tuple[str, str]
"""What a request was sent under, so that asking again gives the same answer: (key, digest of the request)."""


@dataclass(frozen=True)
class NewSession:
    """What a caller of the MCP door asks for. Everything is optional."""

    task: str | None = None
    agent: str | Mapping[str, Any] | None = None
    environment: str | Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    title: str | None = None
    request_key: str | None = None
    budget: Mapping[str, Any] | None = None
    """Bounds by measure: usd, tokens, turns, seconds."""


@dataclass(frozen=True)
class Defaults:
    """What the operator's settings say about new sessions."""

    max_tokens: int
    web: Callable[[str], bool]
    """Whether the provider of this model has web tools of its own."""
    priced: Callable[[str], bool]
    """Whether the list price of this model is known."""


class EngineLink(Protocol):
    """The way to the engine, wherever it runs."""

    async def backend(self) -> str:
        """The name of the sandbox backend that new sessions get."""

    async def wake(self, session_id: str) -> None:
        """An input was appended; see to it."""

    async def waiting(self, session_ids: Sequence[str]) -> Mapping[str, str]:
        """What those of these sessions wait for that wait, in words; none, when the engine cannot say."""

    async def forget(self, session_id: str) -> None:
        """The session was deleted; stop its loop and remove its sandbox."""

    async def read_workspace(self, row: SessionRow, path: str, after: str, offset: int, limit: int) -> Folder | File:
        """See `Workspaces.read`."""

    async def write_workspace(self, row: SessionRow, path: str, content: bytes) -> None:
        """See `Workspaces.write`."""


class Lifecycle(Looking):
    """The use-cases that make, change and end sessions."""

    def __init__(
        self,
        store: Store,
        log: Log,
        engine: EngineLink,
        catalog: Catalog,
        files: Files,
        defaults: Defaults,
        room: Room,
    ) -> None:
        super().__init__(store, log)
        self._room = room
        self._engine = engine
        self._catalog = catalog
        self._files = files
        self._defaults = defaults

    # --- making ------------------------------------------------------------------------------------------------------

    async def create_session(self, asked: NewSession) -> SessionView:
        """Make a session, and start on its task if it has one. The same `request_key` gives the same session."""
        environment = await self._catalog.find_environment(asked.environment)
        agent = await self._catalog.find_agent(asked.agent, open_network=environments.reaches_out(environment))
        files = {clean(path): content for path, content in asked.files.items()}
        if len(files) < len(asked.files):
            raise InvalidRequest("files: two of the paths are the same file.")
        check_staged(files)
        bounds = requests.measures(asked.budget or {}, "budget")
        row = await self._row(agent, environment, asked.title)
        first = [message(row.thread_id, asked.task)] if asked.task is not None else []
        return await self._make(row, first, key_of(asked.request_key, asked.__dict__), bounds, files=files)

    async def new_session(self, asked: Mapping[str, Any], key: Key | None = None) -> SessionView:
        """Make a session as the wire's body asks, and start on its initial events. The same `key` gives the same one.

        Raises InvalidRequest, NotSupported, NotFound, and Conflict when the key was used for another request.
        """
        if key is not None and (made := await self._store.created_under(key)) is not None:
            return await self.view(made)
        new = requests.read_new(asked)
        agent = await self._catalog.agent_for_session(new.agent)
        environment = await self._catalog.environment_for_session(new.environment_id)
        given = await self._files.prepare(new.resources)
        row = await self._row(agent, environment, new.title, new.metadata, given.lines)
        uploads = await self._uploads(new.initial_events)
        first = inputs.read_initial(new.initial_events, row.thread_id, uploads)
        return await self._make(row, first, key, new.budget, given=given)

    async def _uploads(self, asked: Any) -> Mapping[str, Uploaded]:
        """The files that events name; of what is no list of events, none."""
        ids = inputs.file_ids(asked) if isinstance(asked, Sequence) else ()
        return await self._files.uploads(ids) if ids else {}

    async def _row(
        self,
        agent: Mapping[str, Any],
        environment: Mapping[str, Any],
        title: str | None,
        metadata: Mapping[str, str] | None = None,
        given: Sequence[str] = (),
    ) -> SessionRow:
        spec = freeze(
            agent,
            environment,
            backend=await self._engine.backend(),
            max_tokens=self._defaults.max_tokens,
            web=self._defaults.web(agent["model"]["id"]),
            given=given,
        )
        at = now()
        return SessionRow(
            new_id("sesn"), new_id("sthr"), title, spec, 0, False, None, 0, at, at, None, metadata=metadata or {}
        )

    async def _make(
        self,
        row: SessionRow,
        first: Sequence[NewEvent],
        key: Key | None,
        bounds: Mapping[str, Any],
        *,
        files: Mapping[str, bytes] | None = None,
        given: Given | None = None,
    ) -> SessionView:
        if key is None or await self._store.created_under(key) is None:
            self._room.check()
        row = replace(row, attention=bool(first))
        also = None if given is None else given.insert
        first = [*bounding.given(row, bounds, self._defaults.priced), *first]
        session_id = await self._store.create_session(row, first, files or {}, key, also)
        if row.attention:
            await self._engine.wake(session_id)
        return await self.view(session_id)

    # --- showing -----------------------------------------------------------------------------------------------------

    async def shown(self, *views: SessionView) -> list[dict[str, Any]]:
        """Sessions as the wire shows them."""
        given, at = await self._files.resources_of([view.id for view in views]), now()
        return [session_object(view, given.get(view.id, ()), at) for view in views]

    async def list_shown(
        self, limit: int, after: tuple[str, str] | None, order: str, chosen: Filter
    ) -> list[dict[str, Any]]:
        """A page of sessions by age, as the wire shows them."""
        return await self.shown(*await self.list_sessions(limit=limit, before=after, order=order, chosen=chosen))

    async def threads(self, session_id: str) -> list[dict[str, Any]]:
        """The session's threads: the primary one. Raises NotFound."""
        return [thread_object(await self.view(session_id), now())]

    async def thread(self, session_id: str, thread_id: str) -> dict[str, Any]:
        """Raises NotFound."""
        (thread,) = await self.threads(session_id)
        if thread_id != thread["id"]:
            raise NotFound(f"Session {session_id} has no thread {thread_id!r:.80}.")
        return thread

    async def archive_thread(self, session_id: str, thread_id: str) -> dict[str, Any]:
        """The primary thread ends with its session alone. Raises Refused while that lives, NotFound for others."""
        thread = await self.thread(session_id, thread_id)
        if thread["archived_at"] is not None:
            return thread
        raise Refused("The primary thread is archived with its session: archive the session.")

    # --- changing ----------------------------------------------------------------------------------------------------

    async def update_session(self, session_id: str, asked: Mapping[str, Any]) -> SessionView:
        """Change title, metadata, budget, or the agent's tools; what is not changed appends nothing. What the budget
        had held up goes on by itself once it has room.

        Raises NotFound, InvalidRequest, NotSupported; Refused when the session is archived, when it runs while its
        tools are to be changed, and for a budget that is not above what was used.
        """
        update = requests.read_update(asked)
        for _ in range(ATTEMPTS):
            view = await self.view(session_id)
            if view.closed:
                raise Refused(f"Session {session_id} is archived: it can be read, but not changed.")
            if update.agent is not None and view.at_work:
                raise Refused(
                    "Cannot update the session's agent while it is running. Send an interrupt event or wait for the"
                    " session to be idle."
                )
            change, event = self._change(view, update)
            if event is None:
                return view
            goes_on = view.settled and not view.after([event]).settled
            with suppress(HeadMoved):
                attention = True if goes_on else None
                await self._log.append_change(session_id, [event], change, if_head=view.state.seq, attention=attention)
                if goes_on:
                    await self._engine.wake(session_id)
                return await self.view(session_id)
        raise moving(session_id)

    def _change(self, view: SessionView, update: AskedUpdate) -> tuple[Change, NewEvent | None]:
        """What an update does to a session, and the event that tells of it; None when it changes nothing."""
        row, shown, change = view.row, dict[str, Any](), Change()
        if update.title is not None and update.title[0] != row.title:
            change, shown["title"] = replace(change, title=update.title), update.title[0]
        metadata = fields.merged(row.metadata, update.metadata)
        if metadata != row.metadata:
            change = replace(change, metadata=metadata)
            if metadata:  # an emptied bag is not shown, as on the hosted service
                shown["metadata"] = metadata
        if update.agent is not None:
            spec = self._respecified(view, update.agent)
            if spec["agent"] != view.spec.agent:
                change, shown["agent"] = replace(change, spec=spec), agents.snapshot(spec["agent"])
        bounds = bounding.bounded(view, update.budget, self._defaults.priced)
        if change == Change() and bounds is None:
            return change, None
        return change, bounding.updated(view, shown, change.spec, bounds)

    def _respecified(self, view: SessionView, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The session's spec with other tools, rendered anew; everything else stays as it was frozen."""
        spec = view.spec
        agent = self._catalog.overridden(spec.agent, changes)
        return freeze(
            agent,
            spec.environment,
            backend=spec.backend,
            max_tokens=spec.max_tokens,
            web=self._defaults.web(spec.model),
            given=spec.given,
        )

    # --- ending ------------------------------------------------------------------------------------------------------

    async def archive_session(self, session_id: str) -> SessionView:
        """End a session: it can be read, and takes nothing new. Archived again it stays as it is.

        Raises NotFound, and Refused while it runs.
        """
        for _ in range(ATTEMPTS):
            view = await self.view(session_id)
            if view.row.archived_at is not None:
                return view
            if view.at_work:
                raise _running("archive")
            ended = view.state.status == "terminated"
            new = [] if ended else events.terminated(view.row.thread_id, view.spec.agent_name)
            with suppress(HeadMoved):
                change = Change(archived_at=now())
                await self._log.append_change(session_id, new, change, if_head=view.state.seq)
                return await self.view(session_id)
        raise moving(session_id)

    async def remove_session(self, session_id: str) -> None:
        """Delete a session as the wire does. Raises NotFound, and Refused while it runs."""
        if (await self.view(session_id)).at_work:
            raise _running("delete")
        await self._remove(session_id)

    async def delete_session(self, session_id: str, *, if_running: Literal["refuse", "interrupt"]) -> None:
        """Remove the session, its history and its sandbox with all files. Raises Conflict when it runs and must not."""
        view = await self.view(session_id)
        if not view.settled and if_running == "refuse":
            raise Conflict(f"Session {session_id} is running. Interrupt it first, or wait for it.")
        await self._remove(session_id)

    async def _remove(self, session_id: str) -> None:
        await self._store.delete_session(session_id)
        self._log.poke(session_id)
        with suppress(Conflict):  # no engine now: the next one finds the intent to remove the sandbox
            await self._engine.forget(session_id)
        await self._files.collect()


def message(thread: str, text: str) -> NewEvent:
    """A message of text alone. Raises InvalidRequest when it is blank."""
    if not text.strip():
        raise InvalidRequest("The message is empty. Say what the agent should do.")
    return events.user_message(thread, [events.text(text)])


def key_of(request_key: str | None, asked: Mapping[str, Any]) -> Key | None:
    """The key of a request that was sent under one, with the request's digest."""
    if request_key is None:
        return None
    text = json.dumps({k: v for k, v in asked.items() if k != "request_key"}, sort_keys=True, default=repr)
    return request_key, hashlib.sha256(text.encode()).hexdigest()


def moving(session_id: str) -> TryAgain:
    """The session would not stand still."""
    return TryAgain(f"Session {session_id} moves on faster than it can be changed. Try again.")


def _running(verb: str) -> Refused:
    return Refused(
        f"Cannot {verb} session while it is running. Send an interrupt event or wait for the session to complete."
    )
