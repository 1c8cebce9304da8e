"""Reading what happened in a session, event by event."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import Field

from server.doors.mcp.brevity import fitting, head_and_tail, shortened, weight, without_data
from server.doors.mcp.door import Door
from server.doors.mcp.results import Transcript
from server.doors.mcp.tools.parameters import SessionId
from server.doors.mcp.tools.tool import tool
from server.events import LISTED_TYPES
from server.sessions.history import Numbered

TALK = frozenset(
    name
    for name in LISTED_TYPES
    if name.startswith(("user.", "agent.", "session.status_", "session.error")) and name != "agent.thinking"
)
"""What is worth reading; the rest is bookkeeping."""
FRAME = 1_500
"""Bytes of a page beside its events."""
SHARE = 4
"""An event in a list gets at most this part of the budget; beyond it, head and tail are shown."""


class TranscriptTools:
    """read_transcript."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def tools(self) -> list[Tool]:
        return [tool(self.read_transcript, "Read transcript", "reads")]

    async def read_transcript(
        self,
        session_id: SessionId,
        after: Annotated[
            int, Field(ge=0, description="Event number: only what came after it is shown; 0 begins at the start")
        ] = 0,
        limit: Annotated[int, Field(ge=1, le=500, description="Events a page; a page is also bounded in bytes")] = 50,
        offset: Annotated[
            int | None,
            Field(ge=0, description="Read one long event: the first after `after`, from this character of its text on"),
        ] = None,
        everything: Annotated[
            bool,
            Field(
                description="Also bookkeeping: model requests and what each cost, usage, threads; rarely worth reading"
            ),
        ] = False,
    ) -> Transcript:
        """What happened in a session, oldest first: messages, tool calls and their results, errors. For the result
        alone get_session is enough. Follow a session by giving next_after as `after`. A long event is shown as head and
        tail and says how to read all of it."""
        service = await self._door.service()
        newest = (await service.view(session_id)).state.seq
        after = min(after, newest)  # a number that is still to come would hide what comes before it
        budget = self._door.budget - FRAME
        if offset is not None:
            return portion(session_id, after, await service.transcript(session_id, after, 2), offset, budget)
        types = () if everything else TALK
        listed = await service.transcript(session_id, after, limit + 1, types, costs=everything)
        return page(session_id, after, listed, limit, budget)


def page(session_id: str, after: int, listed: Sequence[Numbered], limit: int, budget: int) -> Transcript:
    """As many whole events as fit. Events of one number (inputs delivered together) are never parted."""
    shown: list[dict[str, Any]] = []
    for number, body in listed:
        begins = not shown or shown[-1]["number"] != number
        event = {"number": number, **_short(session_id, number, body, budget // SHARE)}
        if shown and begins and (len(shown) >= limit or weight([*shown, event]) > budget):
            break
        shown.append(event)
    more = len(shown) < len(listed)
    last = max([after, *(event["number"] for event in shown)])
    words = f"read_transcript(session_id={session_id!r}, after={last}) goes on from here."
    if not more:
        words = f"That is all so far. {words}"
    return Transcript(session_id=session_id, events=shown, next_after=last, more=more, next=words)


def portion(session_id: str, after: int, listed: Sequence[Numbered], offset: int, budget: int) -> Transcript:
    """A portion of the first event's text. Raises ToolError when there is none."""
    if not listed:
        raise ToolError(f"read_transcript: session {session_id} has no event after number {after}.")
    number, body = listed[0]
    text = whole_text(body)
    rest = text[offset:]
    part = rest[: fitting(rest, budget - 500)]
    end = offset + len(part)
    following = end if end < len(text) else None
    words = f"read_transcript(session_id={session_id!r}, after={number}) shows what came next."
    if following is not None:
        words = (
            f"{len(text) - end:,} characters are left: read_transcript(session_id={session_id!r}, after={after},"
            f" offset={following})."
        )
    head = {"number": number, "type": body["type"], "id": body["id"], "characters": len(text)}
    return Transcript(
        session_id=session_id,
        events=[head],
        portion=part,
        next_after=after if following is not None else number,
        next_offset=following,
        more=following is not None or len(listed) > 1,
        next=words,
    )


def whole_text(body: Mapping[str, Any]) -> str:
    """An event's text: that of its content where it has nothing else, or the event as JSON."""
    content = body.get("content")
    if isinstance(content, list) and content and all(block.get("type") == "text" for block in content):
        return "\n".join(str(block["text"]) for block in content)
    return json.dumps(without_data(body), ensure_ascii=False)


def _short(session_id: str, number: int, body: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The event, held to `most` bytes or so: its long texts first, and as a text of its own if that is not enough."""
    body = without_data(body)
    if weight(body) <= most:
        return dict(body)
    pointer = f"read_transcript(session_id={session_id!r}, after={number - 1}, offset=0) shows this event whole"
    for each in (most // 2, most // 8):
        less: dict[str, Any] = shortened(body, each, pointer)
        if weight(less) <= most:
            return less
    text = head_and_tail(json.dumps(body, ensure_ascii=False), most, pointer)
    return {"id": body["id"], "type": body["type"], "shortened": text}
