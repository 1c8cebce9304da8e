"""What the tools answer. Each result is sufficient by itself: hosts show the model nothing else.

Above: `tools`, `turns`. Below: views of the service. Pure.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypeIs

from server.doors.mcp.brevity import head_and_tail
from server.doors.mcp.progress import activity
from server.doors.mcp.words import Status, brief_words, error_of, next_words, status, stop_reason

if TYPE_CHECKING:
    from server.sessions.sandboxing.workspace import File, Folder
    from server.sessions.service import SessionView

MAX_PENDING = 20
"""Calls shown as waiting: more than any model makes in one answer; the rest shows once these are answered."""
MAX_PENDING_INPUT = 8_000
"""Bytes of their inputs together: enough to judge a command by."""
MAX_ERROR = 1_000
"""Bytes of an error: providers' messages are a sentence or two, but some quote the request."""


class TokenUsage(BaseModel):
    """Tokens of the whole session."""

    input_tokens: int = Field(description="Tokens of input that no cache held")
    output_tokens: int = Field(description="Tokens that the model wrote")
    cache_read_input_tokens: int = Field(description="Tokens read from the prompt cache")
    cache_creation_input_tokens: int = Field(description="Tokens written to the prompt cache")
    web_search_requests: int = Field(description="Web searches that the model provider made")
    cache_hit_ratio: float | None = Field(
        description="Share of the latest turn's prompt tokens that the prompt cache held; null before its answer"
    )


class Measure(BaseModel):
    """One bound of a budget."""

    limit: float
    used: float
    left: float


class BudgetLeft(BaseModel):
    """What a session may use up, and what is left of it."""

    usd: Measure | None = Field(default=None, description="US dollars, at list price")
    tokens: Measure | None = Field(default=None, description="Tokens of all kinds and all requests")
    turns: Measure | None = None
    seconds: Measure | None = Field(default=None, description="Seconds at work")


class SessionSummary(BaseModel):
    """A session in one line."""

    session_id: str
    title: str | None = None
    status: Status = Field(description="running: work goes on; idle: it waits for a message; the others say themselves")
    activity: str = Field(description="What the agent does now, or did last")
    turns: int = Field(description="Turns so far")
    cost_usd: float | None = Field(description="Model cost so far in US dollars; null when a price is unknown")
    cursor: int = Field(description="Number of the newest event: read_transcript(after=cursor) shows only what is new")
    created_at: str


class PendingCall(BaseModel):
    """A call of the agent's that waits for an answer."""

    call_id: str
    needs: Literal["approval", "result"] = Field(description="approval: allow or deny it; result: run it yourself")
    tool: str
    input: str = Field(description="Its input, as JSON; a long one is shortened")


class SessionResult(BaseModel):
    """A session: how it stands, what it answered, and what to call next."""

    session_id: str
    title: str | None = None
    model: str = Field(description="The model that the agent runs on")
    status: Status = Field(description="running: work goes on; idle: it waits for a message; the others say themselves")
    stop_reason: str | None = Field(
        description="Why the last turn ended: end_turn, interrupted, max_tokens, retries_exhausted, refusal,"
        " budget_reached, day_cap_reached; or requires_action, when it waits for `respond`"
    )
    pending: list[PendingCall] = Field(default=[], description="The calls that wait for `respond`")
    reply: str | None = Field(description="The agent's latest message in its latest turn")
    error: str | None = Field(description="What went wrong, when the model could not be asked")
    activity: str = Field(description="What the agent does now, or did last")
    next: str = Field(description="What to call next")
    turns: int = Field(description="Turns so far")
    tool_calls: int = Field(description="Tool calls so far")
    usage: TokenUsage
    cost_usd: float | None = Field(description="Model cost so far in US dollars; null when a price is unknown")
    turn_cost_usd: float | None = Field(description="That of its latest turn")
    budget: BudgetLeft | None = Field(default=None, description="Its bounds, where it has any, and what is left")
    cursor: int = Field(description="Number of the newest event: read_transcript(after=cursor) shows only what is new")


class WaitResult(BaseModel):
    """How the sessions stand, in the order asked."""

    sessions: list[SessionResult]
    next: str = Field(description="What to call next")


class SessionList(BaseModel):
    """A page of sessions, newest first."""

    sessions: list[SessionSummary]
    next_cursor: str | None = Field(description="Give this as `cursor` for the next page; null at the end")
    next: str = Field(description="What to call next")


class Deleted(BaseModel):
    """The session is gone, with its history, sandbox and files."""

    session_id: str
    deleted: bool
    next: str = Field(description="What to call next")


class FolderEntry(BaseModel):
    """An entry of a folder."""

    name: str
    type: str = Field(description="file, dir, link or other")
    size: int | None = Field(description="Bytes, for a file")


class WorkspacePart(BaseModel):
    """What lies at a path of a workspace: a page of a folder, or a portion of a file."""

    session_id: str
    path: str
    kind: Literal["folder", "text", "image", "binary"]
    entries: list[FolderEntry] | None = Field(default=None, description="folder: this page of its entries")
    total: int | None = Field(default=None, description="folder: entries in all")
    next_after: str | None = Field(default=None, description="folder: give this as `after` to go on")
    text: str | None = Field(default=None, description="text: the portion")
    offset: int | None = Field(default=None, description="file: byte at which this portion begins")
    size: int | None = Field(default=None, description="file: bytes in all")
    media_type: str | None = Field(default=None, description="file: its media type")
    next_offset: int | None = Field(default=None, description="file: give this as `offset` to go on")
    next: str = Field(description="What to call next")


class Written(BaseModel):
    """A file was placed in the workspace."""

    session_id: str
    path: str
    size: int = Field(description="Bytes written")
    next: str = Field(description="What to call next")


class Transcript(BaseModel):
    """A page of a session's events, oldest first, or a portion of one long event."""

    session_id: str
    events: list[dict[str, Any]] = Field(description="Each with `number`, the cursor it stands at, and its own fields")
    portion: str | None = Field(default=None, description="With `offset`: text of the first event from there on")
    next_after: int = Field(description="Give this as `after` to go on")
    next_offset: int | None = Field(default=None, description="With `offset`: give this as `offset` to go on")
    more: bool = Field(description="Whether there is more now")
    next: str = Field(description="What to call next")


def is_folder(found: Folder | File) -> TypeIs[Folder]:
    """Whether a part of a workspace is a folder; told without importing the classes, which `tools/list` can spare."""
    return hasattr(found, "entries")


def pending(view: SessionView) -> list[PendingCall]:
    """The calls that wait for an answer, with inputs that share a bounded room."""
    waiting = [call for call in view.state.calls if call.awaits] if view.state.parked else []
    shown, room = waiting[:MAX_PENDING], MAX_PENDING_INPUT // max(1, min(len(waiting), MAX_PENDING))
    pointer = "read_transcript shows it all"
    return [
        PendingCall(
            call_id=call.id,
            needs="approval" if call.awaits == "confirmation" else "result",
            tool=call.name,
            input=head_and_tail(json.dumps(call.input, ensure_ascii=False), room, pointer),
        )
        for call in shown
    ]


def summary(view: SessionView) -> SessionSummary:
    """The session in one line."""
    state = view.state
    return SessionSummary(
        session_id=view.id,
        title=view.row.title,
        status=status(view),
        activity=activity(view),
        turns=state.turns,
        cost_usd=_dollars(state.usage.cost_usd),
        cursor=state.seq,
        created_at=view.row.created_at,
    )


def session(view: SessionView, room: int, reply_number: int | None = None, *, brief: bool = False) -> SessionResult:
    """The session in full; the reply is held to `room` bytes, with a pointer to the event that it stands in.

    `brief`, for one of many: it points to get_session for the rest, and for what to do next.
    """
    state = view.state
    usage = state.usage
    pointer = "get_session shows more" if brief else _pointer(view.id, reply_number)
    error = error_of(state)
    return SessionResult(
        session_id=view.id,
        title=view.row.title,
        model=view.spec.model,
        status=status(view),
        stop_reason=stop_reason(state),
        pending=[] if brief else pending(view),
        reply=None if state.reply is None else head_and_tail(state.reply, room, pointer),
        error=None if error is None else head_and_tail(error, min(room, MAX_ERROR), "read_transcript shows it all"),
        activity=activity(view),
        next=brief_words(view) if brief else next_words(view),
        turns=state.turns,
        tool_calls=state.tool_calls,
        usage=TokenUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            cache_creation_input_tokens=usage.cache_creation_5m_input_tokens + usage.cache_creation_1h_input_tokens,
            web_search_requests=usage.web_search_requests,
            cache_hit_ratio=state.context.cache_hit_ratio,
        ),
        cost_usd=_dollars(state.usage.cost_usd),
        turn_cost_usd=_dollars(state.turn_cost_usd),
        budget=None if brief else _budget(view),
        cursor=state.seq,
    )


def waited(sessions: list[SessionResult]) -> WaitResult:
    """The sessions that were waited for."""
    running = [one.session_id for one in sessions if one.status == "running"]
    if not running:
        words = "All of them rest, and their replies are here. send_message(session_id, message) goes on with one."
    else:
        words = (
            f"{len(sessions) - len(running)} of {len(sessions)} rest. For the others call"
            f" wait(session_ids={running!r}); their work goes on meanwhile, so do other useful work first if you have"
            " any."
        )
    return WaitResult(sessions=sessions, next=words)


def _budget(view: SessionView) -> BudgetLeft | None:
    bounds = {name: Measure(**bound) for name, bound in view.budget_left.items()}
    return BudgetLeft(**bounds) if bounds else None


def _dollars(exact: str | None) -> float | None:
    return None if exact is None else float(Decimal(exact))


def _pointer(session_id: str, number: int | None) -> str:
    """How to read the whole reply; `{offset}` is filled in by `head_and_tail`."""
    if number is None:
        return f"read_transcript(session_id={session_id!r}) shows the whole"
    return f"read_transcript(session_id={session_id!r}, after={number - 1}, offset={{offset}}) goes on from here"
