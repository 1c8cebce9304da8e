"""Talking to agents and waiting for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import BeforeValidator, Field

from server.doors.mcp import answers, results
from server.doors.mcp.door import Door, offered
from server.doors.mcp.tools.parameters import RequestKey, SessionId, WaitSeconds
from server.doors.mcp.tools.tool import tool
from server.doors.mcp.turns import Handle, Kind
from server.doors.mcp.waiting import wait, whole
from server.doors.mcp.words import next_words
from server.errors import AtBudget

if TYPE_CHECKING:
    from server.sessions.service import SessionView


def _as_list(value: Any) -> Any:
    """A single id is taken for a list of one: models write it so."""
    return [value] if isinstance(value, str) else value


SessionIds = Annotated[
    list[SessionId],
    BeforeValidator(_as_list),
    Field(min_length=1, max_length=20, description="The sessions to wait for, 1 to 20"),
]
"""At most 20: each still gets a readable share of the result's bytes (see `answers`)."""


class MessageTools:
    """send_message and wait."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def tools(self) -> list[Tool]:
        return [
            tool(self.send_message, "Send message", "works", core=True),
            tool(self.wait, "Wait for sessions", "reads", core=True),
        ]

    async def send_message(
        self,
        ctx: Context,
        session_id: SessionId,
        message: Annotated[str, Field(description="What the agent should do or know next", min_length=1)],
        wait_seconds: WaitSeconds = 45,
        request_key: RequestKey = None,
        budget: Annotated[
            float | dict[str, Any] | None,
            Field(
                description="Raise the session's bounds: US dollars in all, or those of {usd, tokens, turns, seconds}"
                " that are to change; null in it takes one away. Dollars only where it was created with some."
            ),
        ] = None,
    ) -> results.SessionResult:
        """Give an agent its next message. An idle one starts a turn with it; a working one gets it before its next
        step, so you can steer it. The answer holds the reply if the turn ends within wait_seconds; else it says
        `running`: call wait(session_ids=[...]) later, and do other work meanwhile."""
        service = await self._door.service()
        try:
            view = await whole(service.send_message(session_id, message, request_key, bounds(budget)))
        except AtBudget:
            raise ToolError(f"Not sent. {next_words(await service.view(session_id))}") from None
        (view,) = await rest(self._door, ctx, [view], "send_message", "all", wait_seconds)
        return await answers.session(service, view, self._door.budget)

    async def wait(
        self,
        ctx: Context,
        session_ids: SessionIds,
        mode: Annotated[
            Literal["any", "all"], Field(description="any: until the first of them rests; all: until each of them does")
        ] = "any",
        wait_seconds: WaitSeconds = 45,
    ) -> results.WaitResult:
        """Wait until agents come to rest, and get their replies. Returns at once for those that rest already. Work does
        not depend on it: prefer other useful work of your own, and call this when you need the results. Do not redo
        what an agent is doing."""
        service = await self._door.service()
        ids = list(dict.fromkeys(session_ids))
        views = [await service.view(session_id) for session_id in ids]
        views = await rest(self._door, ctx, views, mode, mode, wait_seconds)
        return await answers.sessions(service, views, self._door.budget)


def bounds(budget: float | dict[str, Any] | None) -> dict[str, Any] | None:
    """A budget as the use-cases take it: a plain number is one of US dollars."""
    return {"usd": budget} if isinstance(budget, int | float) else budget


async def rest(
    door: Door, ctx: Context, views: list[SessionView], kind: Kind, mode: Literal["any", "all"], seconds: float
) -> list[SessionView]:
    """Wait for the sessions, telling progress; where the client takes tasks, offer one after a while instead."""
    service = await door.service()
    offer = offered.get()
    patience = seconds if offer is None else min(seconds, offer.grace)
    after = await wait(service, [view.id for view in views], mode, patience, ctx.report_progress)
    enough = any if mode == "any" else all
    if offer is not None and seconds > offer.grace and not enough(view.settled for view in after):
        offer.handle = Handle.now(kind, views)
    return after
