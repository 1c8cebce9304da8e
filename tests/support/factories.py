"""What the engine's tests are made of: logs written by hand, answers of a model, a running server without a sandbox.

Nothing here is a mock: a `LogBuilder` passes every event through JSON as the store does, `running_app` is the
product's own composition with the scripted model, and `check_event` judges by the official SDK's types.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast, get_args

from pydantic import BaseModel, Field, TypeAdapter

from server import events
from server.app import App, running
from server.events import NewEvent, Permission, StoredEvent
from server.ids import new_id
from server.providers import Block, ModelResponse, ModelUsage
from server.sessions.answer import Answer, read_answer
from server.sessions.log import Log
from server.sessions.service import NewSession, SessionView
from server.settings import Settings
from server.store.sqlite import SqliteDatabase
from server.store.store import SessionRow, Store

THREAD = "sthr_1"
SESSION = "sesn_1"
USAGE = ModelUsage(3, 5)
PATIENCE = 20.0
"""Seconds after which something that should happen at once counts as not happening."""


# --- the SDK's judgement ---------------------------------------------------------------------------------------------


@cache
def _judge() -> TypeAdapter[BaseModel]:
    from anthropic.types.beta.sessions.beta_managed_agents_session_event import BetaManagedAgentsSessionEvent

    union = get_args(BetaManagedAgentsSessionEvent)[0]
    judged: Any = Annotated[union, Field(discriminator="type")]
    return TypeAdapter(judged)


def check_event(body: Mapping[str, Any]) -> BaseModel:
    """The event as the SDK reads it. Raises for a wrong type, a missing field, and a field that the SDK lacks."""
    event = _judge().validate_json(json.dumps(body), strict=True)
    _no_extras(event, type(event).__name__)
    return event


def _no_extras(value: Any, where: str) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra, f"{where}: the SDK does not know {sorted(value.model_extra)}"
        for name in type(value).model_fields:
            _no_extras(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for n, item in enumerate(value):
            _no_extras(item, f"{where}[{n}]")


# --- logs and answers ------------------------------------------------------------------------------------------------


class LogBuilder:
    """A session's log in memory, numbered as the store numbers it."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []

    def add(self, *new: NewEvent | Sequence[NewEvent]) -> list[StoredEvent]:
        flat = [event for item in new for event in ([item] if isinstance(item, NewEvent) else item)]
        stored = [
            StoredEvent(
                len(self.events) + n,
                SESSION,
                e.thread_id,
                e.id,
                e.type,
                _through_json(e.public),
                _through_json(e.private),
            )
            for n, e in enumerate(flat, 1)
        ]
        self.events += stored
        return stored

    def message(self, text: str) -> str:
        """A queued message; its id."""
        return self.add(events.user_message(THREAD, [events.text(text)]))[0].id

    def ask(self, *deliver: str, turn: bool = False) -> str:
        """What the loop appends before a model request; the id of its start."""
        started = events.turn_started(THREAD, "agent") if turn else []
        given = [events.delivered(THREAD, deliver)] if deliver else []
        start = events.model_request_start(THREAD)
        self.add(started, given, start)
        return start.id

    def answer(
        self,
        start_id: str,
        *content: Block,
        stop: str = "end_turn",
        enabled: Iterable[str] = ("bash",),
        asks: Iterable[str] = (),
        custom: Iterable[str] = (),
        usage: ModelUsage = USAGE,
    ) -> Answer:
        permissions = {**dict.fromkeys(enabled, "allow"), **dict.fromkeys(asks, "ask")}
        found = read_answer(
            THREAD,
            start_id,
            response(*content, stop=stop, usage=usage),
            permission=lambda name: cast(Permission, permissions.get(name, "deny")),
            custom=set(custom),
            event_id=fresh_id,
            cost=None,
        )
        self.add(found.events)
        return found

    def result(self, call_id: str, text: str = "done", *, is_error: bool = False) -> None:
        self.add(events.tool_result(THREAD, call_id, [events.text(text)], is_error=is_error))


def _through_json(body: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    kept: Mapping[str, Any] | None = None if body is None else json.loads(json.dumps(body))
    return kept


def fresh_id(_: int) -> str:
    return new_id("sevt")


def response(*content: Block, stop: str = "end_turn", usage: ModelUsage = USAGE, **fields: Any) -> ModelResponse:
    return ModelResponse(list(content), stop, usage, "scripted", **fields)


def say(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def call(model_id: str, name: str = "bash", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": model_id, "name": name, "input": arguments or {"command": "true"}}


# --- a store, a server -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_store(folder: Path) -> AsyncIterator[Store]:
    database = SqliteDatabase(folder / "skiff.db")
    await database.open()
    store = Store(database)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def session_row(session_id: str = SESSION, *, created_at: str = "2026-01-01T00:00:00.000000Z") -> SessionRow:
    return SessionRow(session_id, THREAD, None, {}, 0, False, None, 0, created_at, created_at, None)


@asynccontextmanager
async def open_log(folder: Path) -> AsyncIterator[tuple[Store, Log]]:
    """A log with one session, SESSION, in it."""
    async with open_store(folder) as store:
        await store.create_session(session_row(), [], {})
        yield store, Log(store)


@asynccontextmanager
async def running_app(folder: Path, **settings: Any) -> AsyncIterator[App]:
    """The server with the scripted model; its agents need no sandbox as long as they have no tools."""
    given = {"model": "scripted", "sandbox": "local", "pool": 0, **settings}
    async with running(Settings(data_dir=folder, **given)) as app:
        yield app


def script(*steps: Mapping[str, Any], text: str = "Do it.") -> str:
    """A task that holds a script of these steps."""
    return f"{text}\n```script\n{json.dumps(steps)}\n```"


async def do_task(app: App, task: str, **asked: Any) -> SessionView:
    """A session that has done this task, and rests."""
    made = await app.service.create_session(NewSession(task=task, **{"agent": {"tools": []}, **asked}))
    (view,) = await app.service.wait([made.id], "all", PATIENCE)
    assert view.settled, view.state
    return view
