"""Turns as tasks of the extension io.modelcontextprotocol/tasks: what a client that declares it sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.types import CallToolResult, Request, RequestParams, Result

from server.app import App
from server.doors.mcp.tasks import TASKS
from server.doors.mcp.turns import Handle, Names
from tests.support.mcp_door import NO_TOOLS, opened, script, test_key


class Task(Result):
    """A task as the server shows it."""

    result_type: Literal["task"] = "task"
    taskId: str
    status: str
    createdAt: str
    lastUpdatedAt: str
    ttlMs: int | None
    pollIntervalMs: int
    statusMessage: str | None = None


class Detailed(Result):
    """The answer of tasks/get."""

    taskId: str
    status: str
    createdAt: str
    statusMessage: str | None = None
    result: dict[str, Any] | None = None


class Named(RequestParams):
    """Parameters that name a task."""

    taskId: str


class GetTask(Request[Named, Literal["tasks/get"]]):
    """tasks/get."""

    method: Literal["tasks/get"] = "tasks/get"
    params: Named
    name_param = "taskId"


class CancelTask(Request[Named, Literal["tasks/cancel"]]):
    """tasks/cancel."""

    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: Named
    name_param = "taskId"


class TakesTasks(ClientExtension):
    """Declares the extension, and resolves a task by asking for it until it is over."""

    identifier = TASKS

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Task, resolve=self._resolve)]

    async def _resolve(self, task: Task, ctx: ClaimContext) -> CallToolResult:
        while True:
            seen = await ctx.session.send_request(GetTask(params=Named(taskId=task.taskId)), Detailed)
            if seen.status == "completed":
                return CallToolResult.model_validate(seen.result)
            if seen.status != "working":
                return CallToolResult(content=[], is_error=True)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def host(folder: Path, grace: float = 0.1) -> AsyncIterator[tuple[Client, App]]:
    """A client that takes tasks; long calls become one after `grace` seconds."""
    async with (
        asyncio.timeout(60),
        opened(folder, grace=grace) as (mcp, app),
        Client(mcp, extensions=[TakesTasks()]) as client,
    ):
        yield client, app


async def begin(client: Client, name: str, **arguments: Any) -> Task:
    task = await client.session.call_tool(name, arguments, allow_claimed=True)
    assert isinstance(task, Task)
    return task


async def look(client: Client, task_id: str) -> Detailed:
    return await client.session.send_request(GetTask(params=Named(taskId=task_id)), Detailed)


async def end(client: Client, task_id: str) -> Detailed:
    while True:
        seen = await look(client, task_id)
        if seen.status != "working":
            return seen
        await asyncio.sleep(0.05)


def test_a_long_call_becomes_a_task_and_its_result_is_the_tools(tmp_path: Path) -> None:
    async def run() -> None:
        async with host(tmp_path) as (client, _):
            task = await begin(client, "create_session", task=script({"wait": 0.6, "say": "late"}), agent=NO_TOOLS)
            assert task.status == "working" and task.ttlMs is None and task.createdAt.endswith("Z")
            assert "sesn_" in task.taskId and task.statusMessage == "turn 1: thinking"
            done = await end(client, task.taskId)
            assert done.status == "completed" and done.createdAt == task.createdAt and done.result
            assert done.result["structuredContent"]["reply"] == "late"
            session_id = done.result["structuredContent"]["session_id"]
            message = script({"wait": 0.6, "say": "later"})
            result = await client.call_tool("send_message", {"session_id": session_id, "message": message})
            assert result.structured_content and result.structured_content["reply"] == "later"

    asyncio.run(run())


def test_a_short_call_and_a_short_wait_are_answered_inline(tmp_path: Path) -> None:
    async def run() -> None:
        async with host(tmp_path, grace=30) as (client, _):
            arguments: dict[str, Any] = {"task": script({"say": "soon"}), "agent": NO_TOOLS}
            done = await client.session.call_tool("create_session", arguments, allow_claimed=True)
            assert isinstance(done, CallToolResult) and done.structured_content
            arguments = {"task": script({"hang": True}), "agent": NO_TOOLS, "wait_seconds": 0}
            begun = await client.session.call_tool("create_session", arguments, allow_claimed=True)
            assert isinstance(begun, CallToolResult) and begun.structured_content
            assert begun.structured_content["status"] == "running"

    asyncio.run(run())


def test_waiting_for_several_sessions_becomes_one_task(tmp_path: Path) -> None:
    async def run() -> None:
        async with host(tmp_path) as (client, _):
            ids = []
            for wait in (2.5, 3.0):  # longer than a busy machine takes for the calls in between
                made = await client.call_tool(
                    "create_session",
                    {"task": script({"wait": wait, "say": f"{wait}"}), "agent": NO_TOOLS, "wait_seconds": 0},
                )
                assert made.structured_content
                ids.append(made.structured_content["session_id"])
            every = await begin(client, "wait", session_ids=ids, mode="all")
            first = await begin(client, "wait", session_ids=ids, mode="any")
            for task, statuses in ((first, None), (every, ["idle", "idle"])):
                done = await end(client, task.taskId)
                assert done.result
                shown = [one["status"] for one in done.result["structuredContent"]["sessions"]]
                assert "idle" in shown and statuses in (None, shown)

    asyncio.run(run())


def test_a_task_outlives_the_server(tmp_path: Path) -> None:
    async def run() -> None:
        async with host(tmp_path) as (client, _):
            task = await begin(client, "create_session", task=script({"wait": 0.5, "say": "kept"}), agent=NO_TOOLS)
        async with host(tmp_path) as (client, _):
            done = await end(client, task.taskId)
            assert done.result and done.result["structuredContent"]["reply"] == "kept"

    asyncio.run(run())


def test_what_happens_after_a_task_is_over_does_not_change_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with host(tmp_path) as (client, app):
            task = await begin(client, "create_session", task=script({"wait": 0.4, "say": "first"}), agent=NO_TOOLS)
            done = await end(client, task.taskId)
            assert done.result
            session_id = done.result["structuredContent"]["session_id"]
            await app.service.send_message(session_id, script({"hang": True}))
            assert (await look(client, task.taskId)).result == done.result

    asyncio.run(run())


def test_cancelling_a_task_interrupts_its_session(tmp_path: Path) -> None:
    async def run() -> None:
        async with host(tmp_path) as (client, app):
            task = await begin(client, "create_session", task=script({"hang": True}), agent=NO_TOOLS)
            await client.session.send_request(CancelTask(params=Named(taskId=task.taskId)), Result)
            assert (await look(client, task.taskId)).status == "cancelled"
            (view,) = await app.service.list_sessions()
            assert view.settled and view.state.stop_reason is not None

    asyncio.run(run())


def test_a_task_of_a_deleted_session_is_cancelled(tmp_path: Path) -> None:
    async def run() -> None:
        async with host(tmp_path) as (client, app):
            task = await begin(client, "create_session", task=script({"hang": True}), agent=NO_TOOLS)
            (view,) = await app.service.list_sessions()
            await app.service.delete_session(view.id, if_running="interrupt")
            seen = await look(client, task.taskId)
            assert seen.status == "cancelled" and "deleted" in (seen.statusMessage or "")

    asyncio.run(run())


def test_an_id_that_this_installation_did_not_make_is_unknown(tmp_path: Path) -> None:
    async def run() -> None:
        async with host(tmp_path) as (client, app):
            task = await begin(client, "create_session", task=script({"hang": True}), agent=NO_TOOLS)
            body, _, tag = task.taskId.rpartition(".")
            names = Names(other_key)
            (view,) = await app.service.list_sessions()
            foreign = await names.write(Handle.now("send_message", [view]))
            for forged in (f"{body}1.{tag}", f"{body}.", "nonsense", "", "ä.ö", foreign):
                with pytest.raises(MCPError, match="Task not found"):
                    await look(client, forged)

    async def other_key() -> bytes:
        return b"another installation's key"

    asyncio.run(run())


def test_names_are_read_back_as_they_were_written() -> None:
    async def run() -> None:
        names = Names(test_key)
        handle = Handle("all", (("sesn_1", 3), ("sesn_2", 17)), 1_790_000_000_123)
        assert await names.read(await names.write(handle)) == handle

    asyncio.run(run())


def test_a_client_without_the_extension_gets_neither_tasks_nor_their_methods(tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), opened(tmp_path, grace=0.1) as (mcp, _), Client(mcp) as client:
            made = await client.call_tool(
                "create_session", {"task": script({"hang": True}), "agent": NO_TOOLS, "wait_seconds": 0.5}
            )
            assert made.structured_content and made.structured_content["status"] == "running"
            with pytest.raises(MCPError, match="did not declare required extension"):
                await look(client, "any")

    asyncio.run(run())
