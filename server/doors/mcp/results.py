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

if TYPE_CHECKING:
    from server.sessions.service import SessionView
    from server.sessions.state import SessionState
    from server.sessions.workspace import File, Folder

MAX_PENDING = 20
"""Calls shown as waiting: more than any model makes in one answer; the rest shows once these are answered."""
MAX_PENDING_INPUT = 8_000
"""Bytes of their inputs together: enough to judge a command by."""
MAX_ERROR = 1_000
"""Bytes of an error: providers' messages are a sentence or two, but some quote the request."""

Status = Literal["running", "idle", "needs_approval", "needs_input", "failed", "archived"]


class TokenUsage(BaseModel):
    """Tokens of the whole session."""

    input_tokens: int = Field(description="Tokens of input that no cache held")
    output_tokens: int = Field(description="Tokens that the model wrote")
    cache_read_input_tokens: int = Field(description="Tokens read from the prompt cache")
    cache_creation_input_tokens: int = Field(description="Tokens written to the prompt cache")
    web_search_requests: int = Field(description="Web searches that the model provider made")


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
        description="Why the last turn ended: end_turn, interrupted, max_tokens, retries_exhausted, refusal; or"
        " requires_action, when it waits for `respond`"
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


def status(view: SessionView) -> Status:
    """The session's status in the words of this door (see DESIGN.md)."""
    state = view.state
    if view.row.archived_at:
        return "archived"
    if state.status == "terminated":
        return "failed"
    if not view.settled:
        return "running"
    if not state.parked:
        return "idle"
    return "needs_approval" if any(call.awaits == "confirmation" for call in state.calls) else "needs_input"


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
        activity=activity(state),
        turns=state.turns,
        cost_usd=_dollars(state),
        cursor=state.seq,
        created_at=view.row.created_at,
    )


def session(view: SessionView, budget: int, reply_number: int | None = None, *, brief: bool = False) -> SessionResult:
    """The session in full; the reply is held to `budget` bytes, with a pointer to the event that it stands in.

    `brief`, for one of many: it points to get_session for the rest, and for what to do next.
    """
    state = view.state
    usage = state.usage
    pointer = "get_session shows more" if brief else _pointer(view.id, reply_number)
    error = _error(state)
    return SessionResult(
        session_id=view.id,
        title=view.row.title,
        model=view.spec.model,
        status=status(view),
        stop_reason=_stop(state),
        pending=[] if brief else pending(view),
        reply=None if state.reply is None else head_and_tail(state.reply, budget, pointer),
        error=None if error is None else head_and_tail(error, min(budget, MAX_ERROR), "read_transcript shows it all"),
        activity=activity(state),
        next=_brief_words(view) if brief else next_words(view),
        turns=state.turns,
        tool_calls=state.tool_calls,
        usage=TokenUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            cache_creation_input_tokens=usage.cache_creation_5m_input_tokens + usage.cache_creation_1h_input_tokens,
            web_search_requests=usage.web_search_requests,
        ),
        cost_usd=_dollars(state),
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


def next_words(view: SessionView) -> str:
    """What to call next, in words."""
    key, state = f"session_id={view.id!r}", view.state
    match status(view):
        case "running":
            return (
                f"Still working ({activity(state)}). Call wait(session_ids=[{view.id!r}]) for the result;"
                " the work goes on meanwhile, so do other useful work first if you have any."
            )
        case "archived" | "failed":
            return f"It takes nothing new. read_transcript({key}) shows what happened; create_session starts anew."
        case "needs_approval" | "needs_input":
            return (
                f"The agent waits for the answers to its calls under `pending`. Call respond({key},"
                " responses=[{'call_id': ..., 'allow': true or false}]), or 'result' for a tool of yours;"
                f" interrupt({key}) lets it stop without."
            )
    if not state.turns:
        return f"Nothing was asked yet. Call send_message({key}, message=...) to give the agent its task."
    if _stop(state) == "end_turn":
        return (
            f"The turn is over; `reply` is its result. read_workspace({key}) shows the files; send_message({key},"
            f" message=...) goes on; delete_session({key}) cleans up when you need nothing more of it."
        )
    if _stop(state) == "interrupted":
        return (
            f"The turn was interrupted: `reply` is only what the agent had said until then. send_message({key},"
            " message=...) goes on; files and history are kept."
        )
    if state.ending:
        return (
            f"The answer was cut off ({state.ending}), so `reply` is not whole. send_message({key}, message='Go on.')"
            " lets the agent finish."
        )
    if state.hopeless and not state.passing:
        return (
            "The model refused the request, and would refuse it again: `error` says why. Once that is put right (a key,"
            f" credit or a model is the operator's to set), send_message({key}, message=...) goes on; files and"
            " history are kept."
        )
    return (
        f"The turn ended early ({_stop(state)}). send_message({key}, message=...) tries again; files and history are"
        " kept."
    )


def _brief_words(view: SessionView) -> str:
    """The same for one of many sessions."""
    if status(view) == "running":
        return "Still working: wait for it again later."
    return "get_session says how to go on."


def _stop(state: SessionState) -> str | None:
    """Why the last turn ended; what the wire calls end_turn although it was cut short has a word of its own here."""
    return None if state.stop_reason is None else state.ending or str(state.stop_reason.get("type"))


def _error(state: SessionState) -> str | None:
    """What keeps or kept the model from answering; nothing once it answered again."""
    if state.failures:
        return state.last_error
    if _stop(state) == "retries_exhausted":
        return (
            f"The turn was stopped after {state.turn_requests} model requests (setting requests_per_turn)."
            " A new message lets the agent go on."
        )
    return None


def _dollars(state: SessionState) -> float | None:
    return None if state.usage.cost_usd is None else float(Decimal(state.usage.cost_usd))


def _pointer(session_id: str, number: int | None) -> str:
    """How to read the whole reply; `{offset}` is filled in by `head_and_tail`."""
    if number is None:
        return f"read_transcript(session_id={session_id!r}) shows the whole"
    return f"read_transcript(session_id={session_id!r}, after={number - 1}, offset={{offset}}) goes on from here"
