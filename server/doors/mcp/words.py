"""How a session stands and what to call next, in the words of this door. Pure.

Above: `results`. Below: the view of a session. Hosts show the model nothing else, so these words have to say it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from server.doors.mcp.progress import activity

if TYPE_CHECKING:
    from server.sessions.service import SessionView
    from server.sessions.state import SessionState

Status = Literal["running", "idle", "needs_approval", "needs_input", "failed", "archived"]


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


def next_words(view: SessionView) -> str:
    """What to call next, in words."""
    key, state = f"session_id={view.id!r}", view.state
    match status(view):
        case "running":
            return (
                f"Still working ({activity(view)}). Call wait(session_ids=[{view.id!r}]) for the result;"
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
    if state.held:
        return _held_words(view)
    if state.ending == "day_cap_reached":
        return (
            "The server's cap for the day ended the turn: `error` says which. After midnight UTC, or once the operator"
            f" has raised it, send_message({key}, message='Go on.') goes on; files and history are kept."
        )
    if not state.turns:
        return f"Nothing was asked yet. Call send_message({key}, message=...) to give the agent its task."
    if stop_reason(state) == "end_turn":
        return (
            f"The turn is over; `reply` is its result. read_workspace({key}) shows the files; send_message({key},"
            f" message=...) goes on; delete_session({key}) cleans up when you need nothing more of it."
        )
    if stop_reason(state) == "interrupted":
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
        f"The turn ended early ({stop_reason(state)}). send_message({key}, message=...) tries again; files and history"
        " are kept."
    )


def _held_words(view: SessionView) -> str:
    """What to do about a budget that is reached."""
    state = view.state
    so_far = "The work stands still in the middle" if state.goes_on or state.queue else "The turn is over"
    bounds = ", ".join(
        f"{bound['used']:.10g} of {bound['limit']:.10g} {name}" for name, bound in view.budget_left.items()
    )
    return (
        f"The session's budget is reached ({bounds} used). {so_far}, and `reply` is what the agent has said;"
        f" read_workspace(session_id={view.id!r}) shows the files. To go on, ask whoever pays, then"
        f" send_message(session_id={view.id!r}, message='Go on.', budget={{...}}) with a higher bound than was used."
    )


def brief_words(view: SessionView) -> str:
    """The same for one of many sessions."""
    if status(view) == "running":
        return "Still working: wait for it again later."
    return "get_session says how to go on."


def stop_reason(state: SessionState) -> str | None:
    """Why the last turn ended; what the wire calls end_turn although it was cut short has a word of its own here."""
    if state.held:
        return "budget_reached"  # that is what matters next, whatever ended the turn
    return None if state.stop_reason is None else state.ending or str(state.stop_reason.get("type"))


def error_of(state: SessionState) -> str | None:
    """What keeps or kept the model from answering; nothing once it answered again."""
    if state.failures:
        return state.last_error
    if stop_reason(state) == "retries_exhausted":
        return (
            f"The turn was stopped after {state.turn_requests} model requests (setting requests_per_turn)."
            " A new message lets the agent go on."
        )
    return None
