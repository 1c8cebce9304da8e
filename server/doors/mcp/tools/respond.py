"""Answering the calls that an agent waits for: a decision on a tool, or the result of a tool of the caller's own."""

from __future__ import annotations

import re
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from server.doors.mcp import answers, results
from server.doors.mcp.door import Door
from server.doors.mcp.tools.messages import rest
from server.doors.mcp.tools.parameters import SessionId, WaitSeconds
from server.doors.mcp.tools.tool import tool
from server.doors.mcp.waiting import whole
from server.errors import InvalidRequest


class CallAnswer(BaseModel):
    """What is to become of one call. Strict: a word that only looks like a yes must not let a command run."""

    model_config = ConfigDict(extra="forbid")

    call_id: str = Field(description="The call, as `pending` names it")
    allow: StrictBool | None = Field(default=None, description="For a call that needs approval: whether it may run")
    reason: str | None = Field(default=None, description="With allow=false: what the agent should know about it")
    result: str | None = Field(default=None, description="For a call that needs a result: the result, as text")
    is_error: StrictBool = Field(default=False, description="With `result`: whether the tool failed")


class RespondTool:
    """respond."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def tools(self) -> list[Tool]:
        return [tool(self.respond, "Answer an agent's calls", "works")]

    async def respond(
        self,
        ctx: Context,
        session_id: SessionId,
        responses: Annotated[list[CallAnswer], Field(min_length=1, max_length=100, description="One for each call")],
        wait_seconds: WaitSeconds = 45,
    ) -> results.SessionResult:
        """Answer what a session waits for when its status is `needs_approval` or `needs_input`: allow or deny the
        calls under `pending`, or give the results of tools that you run yourself. The agent goes on once all of them
        are answered. Ask the person you work for before you allow what they would want to know of."""
        service = await self._door.service()
        try:
            await whole(service.send_events(session_id, [_event(response) for response in responses]))
        except InvalidRequest as error:
            raise ToolError(_in_words_of_this_door(str(error))) from None
        (view,) = await rest(self._door, ctx, [await service.view(session_id)], "send_message", "all", wait_seconds)
        return await answers.session(service, view, self._door.budget)


def _in_words_of_this_door(problem: str) -> str:
    """The use-case names the wire's fields; a caller of this tool has never seen them."""
    return re.sub(r"^events\.(\d+)(\.(?:custom_)?tool_use_id)?", r"responses.\1", problem)


def _event(response: CallAnswer) -> dict[str, Any]:
    """The answer as the wire's event. Raises ToolError when it is neither a decision nor a result, or both."""
    if (response.allow is None) == (response.result is None):
        raise ToolError(f"{response.call_id}: give `allow` for a call that needs approval, `result` for one of yours.")
    if response.allow is None:
        text = response.result or "(no output)"
        return {
            "type": "user.custom_tool_result",
            "custom_tool_use_id": response.call_id,
            "content": [{"type": "text", "text": text if text.strip() else "(no output)"}],
            "is_error": response.is_error,
        }
    reason = {"deny_message": response.reason} if response.reason and not response.allow else {}
    return {
        "type": "user.tool_confirmation",
        "tool_use_id": response.call_id,
        "result": "allow" if response.allow else "deny",
        **reason,
    }
