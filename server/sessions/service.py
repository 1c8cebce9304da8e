"""The use-cases that every door calls. A door translates its protocol to these and back, nothing more.

Above: the doors and the command line. Below: `lifecycle` and `looking`, of which this is the whole; the store, the log,
and a link to the engine, which may live in this process or another. Every method raises leaves of
`server.errors.SkiffError` and nothing else that a caller could mend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from server import events
from server.errors import InvalidRequest, Refused
from server.events import NewEvent, StoredEvent
from server.sessions import inputs, requests
from server.sessions.lifecycle import ATTEMPTS, Defaults, EngineLink, Key, Lifecycle, NewSession, key_of, moving
from server.sessions.money import bounding
from server.sessions.sandboxing.workspace import File, Folder
from server.sessions.view import SessionView
from server.store.store import HeadMoved, closed

__all__ = ["Defaults", "EngineLink", "NewSession", "Service", "SessionView"]

INTERRUPT_SECONDS = 20.0
"""How long `interrupt` waits for the session to come to rest."""


class Service(Lifecycle):
    """The use-cases: what `Looking` and `Lifecycle` have, and talking to sessions and their workspaces."""

    # --- looking -----------------------------------------------------------------------------------------------------

    async def with_waiting(self, views: Sequence[SessionView]) -> list[SessionView]:
        """The same, and what each of them waits for because others have it: a turn, a sandbox, the model."""
        running = [view.id for view in views if not view.settled]
        words = await self._engine.waiting(running) if running else {}
        return [replace(view, waiting=words[view.id]) if view.id in words else view for view in views]

    # --- talking -----------------------------------------------------------------------------------------------------

    async def send_message(
        self,
        session_id: str,
        text: str,
        request_key: str | None = None,
        budget: Mapping[str, Any] | None = None,
    ) -> SessionView:
        """Queue a message: it starts a turn, or is given to the agent before its next step. Returns at once.

        `budget` replaces the bounds that it names (usd, tokens, turns, seconds) in the same step; None takes one away.
        The same `request_key` sends it once. Raises Conflict when the session takes no more messages, Refused when it
        waits for answers to its calls, has reached its budget, or the budget is not above what was used.
        """
        if not text.strip():
            raise InvalidRequest("The message is empty. Say what the agent should do.")
        asked = [{"type": "user.message", "content": [events.text(text)]}]
        bounds = {} if budget is None else requests.measures(budget, "budget")
        request = {"message": text, "budget": budget} if bounds else {"message": text}
        await self._append(session_id, asked, key_of(request_key, request), bounds)
        return await self.view(session_id)

    async def send_events(
        self, session_id: str, asked: Sequence[Any], key: Key | None = None
    ) -> list[Mapping[str, Any]]:
        """Take what a client sends, all of it or nothing. Returns the events as they were stored; queued ones have no
        `processed_at` yet. The same `key` sends them once.

        Raises NotFound, InvalidRequest, NotSupported, Refused when the session's state forbids one of them, Conflict
        when it is archived, NoRoom for everything but interrupts when the disk is nearly full.
        """
        taken = await self._append(session_id, asked, key, {})
        return [event.public for event in taken if event.public is not None]

    async def _append(
        self, session_id: str, asked: Sequence[Any], key: Key | None, bounds: Mapping[str, Any]
    ) -> Sequence[NewEvent | StoredEvent]:
        if key is not None and (before := await self._store.appended_under(session_id, key)) is not None:
            return before
        uploads = await self._uploads(asked)
        for _ in range(ATTEMPTS):
            view = await self.view(session_id)
            if view.closed:
                raise closed(session_id)
            try:
                raised = self._raised(view, bounds)
                new = inputs.read(asked, view.after(raised).state, view.row.thread_id, uploads)
            except Refused:  # maybe because the same request has just come through
                if key is not None and (before := await self._store.appended_under(session_id, key)) is not None:
                    return before
                raise
            if view.state.held and all(event.type == "user.interrupt" for event in new):
                return new  # there is nothing to stop: the wire takes it, does nothing, and lists it nowhere
            if any(event.type != "user.interrupt" for event in new):
                self._room.check()
            with suppress(HeadMoved):
                stored = await self._log.append_input(session_id, [*raised, *new], key, if_head=view.state.seq)
                await self._engine.wake(session_id)
                return stored
        raise moving(session_id)

    def _raised(self, view: SessionView, bounds: Mapping[str, Any]) -> list[NewEvent]:
        """The event of a changed budget, where these bounds change it."""
        changed = bounding.bounded(view, bounds, self._defaults.priced)
        return [] if changed is None else [bounding.updated(view, {}, None, changed)]

    async def interrupt(self, session_id: str, *, wait: bool = True) -> SessionView:
        """Stop what runs, and wait (at most INTERRUPT_SECONDS) until it has stopped. Harmless when the session is idle.

        Without `wait` it is only asked for. A message that was queued then starts the next turn, as the wire has it:
        the view may say `running` again.
        """
        view = await self.view(session_id)
        if view.closed:
            raise closed(session_id)
        if view.settled and not view.state.parked:
            return view
        (asked,) = await self._log.append_input(session_id, [events.user_interrupt(view.row.thread_id)])
        await self._engine.wake(session_id)
        if not wait:
            return await self.view(session_id)
        try:
            async with asyncio.timeout(INTERRUPT_SECONDS), aclosing(self._watch(view)) as seen:
                async for now_seen in seen:
                    if now_seen.state.seq > asked.seq and now_seen.at_rest_after(asked.id):
                        return await self.view(session_id)
        except TimeoutError:
            pass  # it stays asked for; the caller sees that the session still runs
        return await self.view(session_id)

    # --- files -------------------------------------------------------------------------------------------------------

    async def read_workspace(
        self, session_id: str, path: str = ".", *, after: str = "", offset: int = 0, limit: int = 1 << 20
    ) -> Folder | File:
        """A page of a folder or a portion of a file. Raises NotFound, InvalidRequest, Conflict."""
        return await self._engine.read_workspace(await self._store.session(session_id), path, after, offset, limit)

    async def write_workspace(self, session_id: str, path: str, content: bytes) -> None:
        """Place a file. Raises InvalidRequest, Conflict."""
        view = await self.view(session_id)
        if view.closed:
            raise closed(session_id)
        self._room.check()
        await self._engine.write_workspace(view.row, path, content)
