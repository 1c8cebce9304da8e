"""Turns as tasks: the session log is the task store, so a task outlives the request, the connection and the server.

Nothing is remembered for a task. Its id says which sessions it waits for and at which event number it began, and bears
a tag that only this installation can make; what became of it is a fold of the log from there. It is over at the first
rest after its beginning, whatever happened later.

Above: `tasks`. Below: the service, and `answers` for the same results that the tools give.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.types import CallToolRequestParams, CallToolResult

from server import ids
from server.doors.mcp import answers
from server.doors.mcp.door import Door, Offer, offered
from server.doors.mcp.progress import message
from server.doors.mcp.tasks import Task, UnknownTask
from server.doors.mcp.waiting import whole
from server.errors import Conflict, NotFound
from server.events import StoredEvent

if TYPE_CHECKING:
    from server.sessions.service import Service, SessionView
    from server.sessions.state import SessionState

Kind = Literal["create_session", "send_message", "any", "all"]
KINDS: tuple[Kind, ...] = ("create_session", "send_message", "any", "all")
"""What the task stands for: a message's turn, or a wait for any or all of several sessions."""
REMEMBERED = 256
"""Readings kept so that a poll folds only what is new; a forgotten one is made again from the log."""


@dataclass(frozen=True)
class Handle:
    """What a task id says: what is waited for, from which event number of each session on, since when (Unix ms)."""

    kind: Kind
    begins: tuple[tuple[str, int], ...]
    created_ms: int

    @classmethod
    def now(cls, kind: Kind, views: list[SessionView]) -> Handle:
        """A task that begins where these sessions stand."""
        return cls(kind, tuple((view.id, view.state.seq) for view in views), ids.CLOCK.read() // 1_000_000)


@dataclass(frozen=True)
class Reading:
    """How far a session's log was read for a task."""

    state: SessionState
    over: bool = False
    interrupted: bool = False
    at: str | None = None
    """The time of the last event read that has one."""


class Names:
    """Task ids: the handle in clear, so that a model sees which session is meant, and a tag made with the key."""

    def __init__(self, key: Callable[[], Awaitable[bytes]]) -> None:
        self._key = key

    async def write(self, handle: Handle) -> str:
        parts = [f"{session}.{number}" for session, number in handle.begins]
        body = ".".join([handle.kind, *parts, str(handle.created_ms)])
        return f"{body}.{await self._tag(body)}"

    async def read(self, task_id: str) -> Handle:
        """Raises UnknownTask for an id that this installation did not make for this caller."""
        body, _, tag = task_id.rpartition(".")
        if not hmac.compare_digest(tag.encode(), (await self._tag(body)).encode()):
            raise UnknownTask(task_id)
        kind, *parts, created = body.split(".")
        begins = tuple((session, int(number)) for session, number in zip(parts[::2], parts[1::2], strict=True))
        return Handle(next(known for known in KINDS if known == kind), begins, int(created))

    async def _tag(self, body: str) -> str:
        """128 bits over the id and its owner: the credential that the request came with, if any."""
        token = get_access_token()
        owner = "" if token is None else f"{token.client_id}\0{token.subject}"
        digest = hmac.digest(await self._key(), f"{owner}\0{body}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


class TurnTasks:
    """The task store over the session log."""

    def __init__(self, door: Door, key: Callable[[], Awaitable[bytes]]) -> None:
        self._door = door
        self._names = Names(key)
        self._readings: OrderedDict[tuple[str, int], Reading] = OrderedDict()

    async def call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult | Task:
        """See `TaskStore.call`. The tool itself decides whether it leaves a handle, by what it knows of the session."""
        offer = Offer(self._door.grace)
        token = offered.set(offer)
        try:
            result = await call_next(ctx)
        finally:
            offered.reset(token)
        if offer.handle is None:
            return result
        task = await self.look(await self._names.write(offer.handle))
        return CallToolResult.model_validate(task.result) if task.status == "completed" else task

    async def look(self, task_id: str) -> Task:
        """See `TaskStore.look`."""
        handle = await self._names.read(task_id)
        created = datetime.fromtimestamp(handle.created_ms / 1000, UTC).isoformat(timespec="milliseconds")
        created = created.replace("+00:00", "Z")
        service = await self._door.service()
        try:
            views = [await service.view(session) for session, _ in handle.begins]
            readings = [
                await self._read(service, view, number) for view, (_, number) in zip(views, handle.begins, strict=True)
            ]
        except NotFound as error:
            return Task(task_id, "cancelled", created, created, f"The session was deleted. {error}")
        updated = max((reading.at or created for reading in readings), default=created)
        then = [replace(view, state=reading.state) for view, reading in zip(views, readings, strict=True)]
        over = [reading for reading in readings if reading.over]
        if not over or (handle.kind != "any" and len(over) < len(readings)):
            busy = next(view for view, reading in zip(then, readings, strict=True) if not reading.over)
            (busy,) = await service.with_waiting([busy])
            return Task(task_id, "working", created, updated, message(busy, 0))
        if all(reading.interrupted for reading in over):
            return Task(task_id, "cancelled", created, updated, "The turn was interrupted; files and history are kept.")
        return Task(task_id, "completed", created, updated, result=await self._result(service, handle.kind, then))

    async def cancel(self, task_id: str) -> None:
        """Interrupt every session of the task that has not come to rest since."""
        task = await self.look(task_id)
        if task.status != "working":
            return
        service = await self._door.service()
        for session_id, _ in (await self._names.read(task_id)).begins:
            try:
                await whole(service.interrupt(session_id))
            except (NotFound, Conflict):
                continue  # deleted or ended meanwhile: there is nothing left to stop

    async def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        """A turn asks nothing; the ids are checked all the same."""
        await self._names.read(task_id)

    async def _read(self, service: Service, view: SessionView, number: int) -> Reading:
        """Read the log up to the first rest after event `number`, or as far as the view knows it."""
        from server.sessions.fold import fold  # here, because `tools/list` should not wait for it
        from server.sessions.state import SessionState

        key = (view.id, number)
        reading = self._readings.pop(key, None) or Reading(SessionState())
        if not reading.over and reading.state.seq < view.state.seq:
            async with aclosing(service.follow(view.id, reading.state.seq)) as log:
                async for event in log:
                    if not isinstance(event, StoredEvent):
                        continue  # text that is still being written; none was asked for
                    state = fold(reading.state, (event,))
                    ours = state.seq > number
                    reading = Reading(
                        state,
                        over=ours and replace(view, state=state).settled,
                        interrupted=reading.interrupted or (ours and event.type == "user.interrupt"),
                        at=(event.public or {}).get("processed_at") or reading.at,
                    )
                    if reading.over or state.seq >= view.state.seq:
                        break
        self._readings[key] = reading
        if len(self._readings) > REMEMBERED:
            self._readings.popitem(last=False)
        return reading

    async def _result(self, service: Service, kind: Kind, views: list[SessionView]) -> Mapping[str, Any]:
        budget = self._door.budget
        answer = (
            await answers.sessions(service, views, budget)
            if kind in ("any", "all")
            else await answers.session(service, views[0], budget)
        )
        return answers.as_tool_result(answer).model_dump(by_alias=True, mode="json", exclude_none=True)
