"""What a session has to do next: `next_work(state, limits) -> Work`, pure.

The loop asks again after every step, and after every restart: the answer depends on the log alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from server.sessions.conversation.context import Window, what_makes_room
from server.sessions.money.budget import Need, Tariff, allowance
from server.sessions.state import OpenCall, SessionState, spent


@dataclass(frozen=True)
class Limits:
    """Bounds of a turn. Each is a setting."""

    retries: int = 6
    """Tries after a failed model request, in a row, before the turn is given up."""
    patience: float = 600.0
    """The longest wait, in seconds, that a provider may ask for between two tries."""
    requests_per_turn: int = 200
    """Model requests in one turn: a loop that goes round and round ends here, and says so."""
    tariff: Tariff | None = None
    """What this session's requests take. None for those who only look: what is under way they cannot judge."""
    window: Window = field(default_factory=Window)
    """How much the session's model can take in."""


@dataclass(frozen=True)
class CloseRequest:
    """A model request was lost with the process that made it: note its end, then ask again."""

    start_id: str


@dataclass(frozen=True)
class Interrupt:
    """Close what is open, deliver these interrupts, and be idle."""

    input_ids: tuple[str, ...]


@dataclass(frozen=True)
class RunTools:
    """Calls without a result that nobody has to be asked about, in the order in which the model made them."""

    calls: tuple[OpenCall, ...]


@dataclass(frozen=True)
class Park:
    """Stand still until somebody outside has answered these calls; the turn goes on then."""

    awaited: tuple[str, ...]


@dataclass(frozen=True)
class Resume:
    """Every answer has come: the parked turn goes on."""


@dataclass(frozen=True)
class AskModel:
    """Deliver these inputs (maybe none) and ask the model. `attempt` counts failures before this request."""

    deliver: tuple[str, ...]
    attempt: int


@dataclass(frozen=True)
class MakeRoom:
    """There is too little room for the next request in the model's context: make some first."""

    way: Literal["clear", "compact", "clear_all"]
    """Clear old results, ask for a summary, or clear all results, those of the newest calls too."""
    attempt: int
    deliver: tuple[str, ...]
    """The inputs that the next request will deliver."""


@dataclass(frozen=True)
class Stop:
    """The turn is over, for this reason (an event `type` of the wire's stop reasons)."""

    reason: str
    deliver: tuple[str, ...] = ()
    """Inputs that came too late for this turn but were flushed by its failure; the next turn's model sees them."""
    limit: int | None = None
    """The bound on model requests in a turn, when that is what ended it: it has to be said."""
    full: bool = False
    """No room could be made in the model's context: that has to be said, too."""


@dataclass(frozen=True)
class Rest:
    """Nothing to do."""


Work = CloseRequest | Interrupt | RunTools | Park | Resume | AskModel | MakeRoom | Stop | Rest


def next_work(state: SessionState, limits: Limits) -> Work:
    """The next step of a session in this state."""
    if state.status == "terminated":
        return Rest()
    if state.open_request is not None:
        return CloseRequest(state.open_request)
    interrupts = tuple(item.id for item in state.queue if item.type == "user.interrupt")
    if interrupts:
        return Interrupt(interrupts)
    if state.calls:
        return _calls(state)
    if state.held:
        return Rest()
    waiting = tuple(item.id for item in state.queue)
    if state.status != "idle" and (reason := _given_up(state, limits)):
        return Stop(reason, waiting, None if state.failures else limits.requests_per_turn)
    if (waiting or state.owed or state.paused) and not _affordable(state, limits):
        return Stop("budget_reached")
    if state.paused and not state.context.crowded:
        return AskModel((), state.failures)  # what waits is delivered once the paused answer is whole
    if state.status == "idle" and state.owed and state.turn_requests >= limits.requests_per_turn:
        return Resume()  # the turn that was parked goes on, and ends at its bound
    if waiting or state.owed or state.paused:
        return _ask(state, limits, waiting)
    return Stop("refusal" if state.refusal is not None else "end_turn") if state.unfinished else Rest()


def _ask(state: SessionState, limits: Limits, waiting: tuple[str, ...]) -> Work:
    """Ask the model, or first make room for the request."""
    # A new turn asks at once: it does not wait for what the turn before it failed at.
    attempt = 0 if state.status == "idle" else state.failures
    way = what_makes_room(state.context, sum(item.tokens for item in state.queue), limits.window)
    if way is None:
        return AskModel(waiting, attempt)
    if way == "full":
        return Stop("retries_exhausted", waiting, full=True)
    return MakeRoom(way, attempt, waiting)


def _calls(state: SessionState) -> Work:
    """What may run runs at once; then the turn is parked, and goes on when the last answer has come."""
    runnable, awaited = tuple(call for call in state.calls if not call.awaits), state.awaited
    if state.status == "idle" and not awaited:
        return Resume()
    if state.status != "idle" and runnable:
        return RunTools(runnable)
    said = tuple((state.stop_reason or {}).get("event_ids", ()))
    return Rest() if state.status == "idle" and said == awaited else Park(awaited)


def _given_up(state: SessionState, limits: Limits) -> str | None:
    """Why this turn must not ask the model again, if so. Only at a point where it would."""
    if state.failures and (state.hopeless or state.failures > limits.retries):
        return "retries_exhausted"
    if state.owed and state.turn_requests >= limits.requests_per_turn:
        return "retries_exhausted"
    return None


def _affordable(state: SessionState, limits: Limits) -> bool:
    """Whether the session's budget has room for its next request."""
    if state.budget is None or limits.tariff is None:
        return True
    begins = state.status == "idle" and not state.goes_on
    return allowance(state.budget, spent(state, state.at), next_need(state, limits.tariff), begins=begins) > 0


def next_need(state: SessionState, tariff: Tariff) -> Need:
    """The session's next request at its worst, with what waits for it. Before the first whole answer nothing is
    measured, and the head of the prompt is guessed too."""
    head = tariff.head if state.context.tokens == state.context.since else 0
    prompt = head + state.context.tokens + sum(item.tokens for item in state.queue)
    return Need(prompt, tariff.max_tokens, tariff.rates)
