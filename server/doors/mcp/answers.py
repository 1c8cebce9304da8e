"""From the service's views to results, looking up what a shortened reply has to point to.

Above: `tools`, `turns`. Below: `results`, and the service for the number of the event that a long reply stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel

from server.doors.mcp import results
from server.doors.mcp.brevity import weight

if TYPE_CHECKING:
    from server.sessions.service import Service, SessionView

FRAME = 3_000
"""Bytes of a session's result beside its reply: at most half of it the title and the error, which are bounded."""
PENDING_FRAME = 300
"""Bytes of a call that waits for an answer, beside its input."""
BRIEF_FRAME = 800
"""The same where several sessions share the budget, and each says less of what to do next."""
LEAST = 150
"""Bytes of a reply that are shown even where many sessions share the budget."""


async def session(service: Service, view: SessionView, budget: int) -> results.SessionResult:
    """The session in full, at most `budget` bytes."""
    (view,) = await service.with_waiting([view])
    waiting = sum(weight(call.input) + PENDING_FRAME for call in results.pending(view))
    room = max(LEAST, budget - FRAME - waiting)
    reply = view.state.reply
    number = await _reply_number(service, view) if reply is not None and weight(reply) > room else None
    return results.session(view, room, number)


async def sessions(service: Service, views: Sequence[SessionView], budget: int) -> results.WaitResult:
    """Several sessions, sharing the budget."""
    if len(views) == 1:
        return results.waited([await session(service, views[0], budget)])
    room = max(LEAST, budget // len(views) - BRIEF_FRAME)
    views = await service.with_waiting(views)
    return results.waited([results.session(view, room, brief=True) for view in views])


def as_tool_result(answer: BaseModel) -> CallToolResult:
    """What a tool call gives that returns this model."""
    text = answer.model_dump_json(indent=2)
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=answer.model_dump(mode="json")
    )


async def _reply_number(service: Service, view: SessionView) -> int | None:
    """The number of the event that holds the view's reply."""
    found = await service.newest(view, "agent.message")
    return found[0] if found else None
