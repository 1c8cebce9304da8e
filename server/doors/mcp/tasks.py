"""The extension io.modelcontextprotocol/tasks (SEP-2663): a long tool call becomes a task that the client polls.

Above: the composition in `server`. Below: a `TaskStore`, which knows what a task is made of: here the session log
(`turns`). This file knows the wire: which clients take tasks, the methods, the shape of their results. The SDK has no
part for it yet; when it has one, this file goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver.server import require_client_extension
from mcp.types import HEADER_MISMATCH, INVALID_PARAMS, CallToolRequestParams, RequestParams
from pydantic import ConfigDict, Field

TASKS = "io.modelcontextprotocol/tasks"
ERA = frozenset({"2026-07-28"})
"""The protocol versions in which the extension exists; in older ones its methods are unknown."""
POLL_MS = 2_000
"""How often clients should ask. An answer costs a few milliseconds; a person does not miss two seconds."""

Context = ServerRequestContext[Any, Any]


class UnknownTask(Exception):
    """There is no such task, or it is somebody else's."""


@dataclass(frozen=True)
class Task:
    """A task as it stands. Times are RFC 3339."""

    id: str
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]
    created_at: str
    updated_at: str
    message: str | None = None
    result: Mapping[str, Any] | None = None
    """With `completed`: the tool call's result, errors of the tool included."""
    error: Mapping[str, Any] | None = None
    """With `failed`: the JSON-RPC error."""
    inputs: Mapping[str, Any] | None = None
    """With `input_required`: the requests that `tasks/update` is to answer."""


class TaskStore(Protocol):
    """What tasks are made of."""

    async def call(self, params: CallToolRequestParams, ctx: Context, call_next: CallNext) -> HandlerResult | Task:
        """Run the tool call of a client that takes tasks; a Task instead of its result where it takes long.

        From then on `look` must find it, for as long as the server's data lives.
        """

    async def look(self, task_id: str) -> Task:
        """The task as it stands. Raises UnknownTask."""

    async def cancel(self, task_id: str) -> None:
        """Stop the work: somebody wishes so. Harmless when it is over. Raises UnknownTask."""

    async def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        """Give the answers to the task's input requests; unknown ones are left aside. Raises UnknownTask."""


class TaskParams(RequestParams):
    """Parameters of tasks/get and tasks/cancel."""

    model_config = ConfigDict(populate_by_name=True)
    task_id: str = Field(alias="taskId")


class UpdateParams(TaskParams):
    """Parameters of tasks/update."""

    input_responses: dict[str, Any] = Field(default_factory=dict, alias="inputResponses")


class Tasks(Extension):
    """The extension over a store."""

    identifier = TASKS

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    def methods(self) -> Sequence[MethodBinding]:
        return (
            MethodBinding("tasks/get", TaskParams, self._get, ERA),
            MethodBinding("tasks/update", UpdateParams, self._update, ERA),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, ERA),
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Context, call_next: CallNext
    ) -> HandlerResult:
        if not takes_tasks(ctx):
            return await call_next(ctx)
        outcome = await self._store.call(params, ctx, call_next)
        return {"resultType": "task", **wire(outcome)} if isinstance(outcome, Task) else outcome

    async def _get(self, ctx: Context, params: TaskParams) -> HandlerResult:
        _check(ctx, params)
        try:
            return wire(await self._store.look(params.task_id))
        except UnknownTask:
            raise _not_found() from None

    async def _update(self, ctx: Context, params: UpdateParams) -> HandlerResult:
        _check(ctx, params)
        try:
            await self._store.answer(params.task_id, params.input_responses)
        except UnknownTask:
            raise _not_found() from None
        return {}

    async def _cancel(self, ctx: Context, params: TaskParams) -> HandlerResult:
        _check(ctx, params)
        try:
            await self._store.cancel(params.task_id)
        except UnknownTask:
            raise _not_found() from None
        return {}


def takes_tasks(ctx: Context) -> bool:
    """Whether this request may be answered with a task: its client declared the extension in this very request."""
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities else None
    return ctx.protocol_version in ERA and bool(declared) and TASKS in (declared or ())


def wire(task: Task) -> dict[str, Any]:
    """The task in the words of the extension. `ttlMs` is null: a task is kept as long as what it is made of."""
    shown: dict[str, Any] = {
        "taskId": task.id,
        "status": task.status,
        "createdAt": task.created_at,
        "lastUpdatedAt": task.updated_at,
        "ttlMs": None,
        "pollIntervalMs": POLL_MS,
    }
    further = {"statusMessage": task.message, "result": task.result, "error": task.error, "inputRequests": task.inputs}
    return shown | {key: value for key, value in further.items() if value is not None}


def _check(ctx: Context, params: TaskParams) -> None:
    require_client_extension(ctx, TASKS)
    headers = getattr(ctx.request, "headers", None)
    name = headers.get("mcp-name") if headers is not None else None
    if name is not None and name != params.task_id:
        raise MCPError(HEADER_MISMATCH, "The Mcp-Name header does not match params.taskId.")


def _not_found() -> MCPError:
    return MCPError(INVALID_PARAMS, "Task not found")
