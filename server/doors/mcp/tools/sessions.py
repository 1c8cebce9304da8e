"""Making sessions, looking at them, ending them."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, ConfigDict, Field

from server.doors.mcp import answers, results
from server.doors.mcp.door import Door
from server.doors.mcp.tools.messages import bounds, rest
from server.doors.mcp.tools.parameters import RequestKey, SessionId, WaitSeconds
from server.doors.mcp.tools.tool import tool
from server.doors.mcp.waiting import whole


class NewFile(BaseModel):
    """A text file to place in the workspace before the work begins."""

    model_config = ConfigDict(extra="forbid")
    path: str = Field(description="Where, relative to the workspace", min_length=1, max_length=1000)
    content: str = Field(description="The text of the file")


Files = list[NewFile] | dict[str, str] | None


class SessionTools:
    """create_session, get_session, list_sessions, interrupt, delete_session."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def making(self) -> list[Tool]:
        return [tool(self.create_session, "Create session", "works", core=True)]

    def looking(self) -> list[Tool]:
        return [
            tool(self.get_session, "Get session", "reads", core=True),
            tool(self.list_sessions, "List sessions", "reads"),
        ]

    def ending(self) -> list[Tool]:
        return [
            tool(self.interrupt, "Interrupt session", "stops"),
            tool(self.delete_session, "Delete session", "deletes"),
        ]

    async def create_session(
        self,
        ctx: Context,
        task: Annotated[
            str | None,
            Field(
                description="What the agent should do, complete in itself: it knows nothing of your conversation and"
                " cannot ask back. Work starts at once. Leave it out to get an idle session."
            ),
        ] = None,
        agent: Annotated[
            str | dict[str, Any] | None,
            Field(
                description="Who works: the name or id of a saved agent, or inline {name, model, system (also"
                ' system_instructions), tools: ["bash", "file_operations", "web_fetch", ...], effort, max_tokens}.'
                " Default: the server's model with every tool that the environment allows."
            ),
        ] = None,
        environment: Annotated[
            str | dict[str, Any] | None,
            Field(
                description='Where it works: the name or id of a saved environment, or inline {network: "none",'
                ' "limited" or "open", allowed_hosts: [...], cpu, memory_mb, image}; network_access: true means open.'
                " Default: a sandbox without network."
            ),
        ] = None,
        files: Annotated[
            Files,
            Field(
                description="Text files to place in the workspace first: [{path, content}, ...] or {path: content, ...}"
            ),
        ] = None,
        budget: Annotated[
            float | dict[str, Any] | None,
            Field(
                description="What it may use up in all: a number of US dollars, or {usd, tokens, turns, seconds}, any"
                " of them. It is checked before each step; there the work stands still until send_message(budget=...)"
                " raises it. Default: no bound."
            ),
        ] = None,
        title: Annotated[
            str | None, Field(max_length=200, description="A name for people to tell sessions apart")
        ] = None,
        request_key: RequestKey = None,
        wait_seconds: WaitSeconds = 45,
    ) -> results.SessionResult:
        """Send out a sub-agent: a session of its own in a sealed sandbox with a workspace of its own. With a task it
        starts at once, and the answer holds its reply if it finishes within wait_seconds; else call
        wait(session_ids=[...]) later, and do other work meanwhile: it goes on by itself. Several sessions work side by
        side. Files that it makes are read with read_workspace; send_message continues the conversation."""
        from server.sessions.service import NewSession  # here, because `tools/list` should not wait for it

        service = await self._door.service()
        asked = NewSession(task, agent, environment, _contents(files), title, request_key, bounds(budget))
        view = await whole(service.create_session(asked))
        (view,) = await rest(self._door, ctx, [view], "create_session", "all", wait_seconds)
        return await answers.session(service, view, self._door.budget)

    async def get_session(self, session_id: SessionId) -> results.SessionResult:
        """How a session stands, without waiting: status, reply, activity, usage, cost, and what to call next. To wait
        for its result call wait instead of asking again and again."""
        service = await self._door.service()
        return await answers.session(service, await service.view(session_id), self._door.budget)

    async def list_sessions(
        self,
        limit: Annotated[int, Field(ge=1, le=50, description="Sessions a page")] = 20,
        cursor: Annotated[
            str | None, Field(max_length=300, description="next_cursor of the page before; leave out for the first")
        ] = None,
        include_archived: Annotated[bool, Field(description="Whether to list archived sessions too")] = False,
    ) -> results.SessionList:
        """The sessions of this server, newest first, one line each. get_session shows one in full; with a result's
        next_cursor as cursor you get the next page."""
        service = await self._door.service()
        before = _place(cursor) if cursor else None
        views = await service.list_sessions(limit=limit + 1, before=before, archived=include_archived)
        page = await service.with_waiting(views[:limit])
        more = _cursor(page[-1].row.created_at, page[-1].id) if len(views) > limit else None
        words = "get_session(session_id) shows one in full; send_message(session_id, message) goes on with it."
        if not page:
            words = "There are no more." if cursor else "There are none yet. create_session(task=...) makes one."
        elif more:
            words += f" list_sessions(cursor={more!r}) shows the next page."
        return results.SessionList(sessions=[results.summary(view) for view in page], next_cursor=more, next=words)

    async def interrupt(self, session_id: SessionId) -> results.SessionResult:
        """Stop what the agent is doing now, its running command included. Files, history and the session stay: go on
        with send_message. Harmless when nothing runs."""
        service = await self._door.service()
        view = await whole(service.interrupt(session_id))
        return await answers.session(service, view, self._door.budget)

    async def delete_session(self, session_id: SessionId) -> results.Deleted:
        """Remove a session for good: its work (stopped if it runs), its history, its sandbox and all its files. Read
        what you need with read_workspace first. To stop the work only, call interrupt."""
        service = await self._door.service()
        await whole(service.delete_session(session_id, if_running="interrupt"))
        words = "Nothing of it is left. list_sessions() shows the others."
        return results.Deleted(session_id=session_id, deleted=True, next=words)


def _contents(files: Files) -> dict[str, bytes]:
    pairs = files.items() if isinstance(files, dict) else [(file.path, file.content) for file in files or ()]
    found: dict[str, bytes] = {}
    for path, content in pairs:
        if path in found:
            raise ToolError(f"create_session: `files` names {path!r} twice.")
        found[path] = content.encode()
    return found


def _cursor(created_at: str, session_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at} {session_id}".encode()).decode()


def _place(cursor: str) -> tuple[str, str]:
    try:
        created_at, session_id = base64.urlsafe_b64decode(cursor).decode().split(" ")
    except (binascii.Error, ValueError):
        raise ToolError("list_sessions: `cursor` must be the next_cursor of an earlier result.") from None
    return created_at, session_id
