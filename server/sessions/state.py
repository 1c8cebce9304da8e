"""What a session is at one moment: `SessionState`, small and JSON-able, so that it can be cached beside the session.

Above: `fold`, which makes it from the log, and whoever looks at it. Below: the parts that have files of their own.
Nothing here is ever mutated: a state that somebody holds stays true for its `seq`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from server.providers import ModelUsage
from server.sessions.conversation.context import Context
from server.sessions.money.budget import Budget, Spent

VERSION = 2
"""Of the fold. Raised when logs that are there already fold to other states: what is cached of them is made anew."""


@dataclass(frozen=True)
class QueuedInput:
    """An input that no delivered row names yet."""

    id: str
    type: str
    seq: int
    size: int = 0
    """Characters that its text and data have."""
    tokens: int = 0
    """What it will add to the model's context, estimated."""


@dataclass(frozen=True)
class OpenCall:
    """A tool call without a result. `incarnation` is the sandbox life it was sent to, None before it is sent."""

    id: str
    name: str
    input: Mapping[str, Any]
    allowed: bool
    note: str | None = None
    """An error that answers the call without running it (malformed input, cut off answer)."""
    incarnation: str | None = None
    awaits: Literal["confirmation", "result"] | None = None
    """What somebody outside has to send before the call can go on: a word on it, or the result of a client's tool."""


@dataclass(frozen=True)
class Usage(ModelUsage):
    """Tokens of the whole session, and its cost where every price was known."""

    cost_usd: str | None = "0"
    """Exact decimal as text; None once a request was served by a model without a known price."""


@dataclass(frozen=True)
class SessionState:
    """The fold of a session's events up to and including `seq`."""

    seq: int = 0
    status: str = "idle"
    stop_reason: Mapping[str, Any] | None = None
    queue: tuple[QueuedInput, ...] = ()
    calls: tuple[OpenCall, ...] = ()
    open_request: str | None = None
    """The id of a span.model_request_start without its end: a request that is under way, or was lost."""
    owed: bool = False
    """The model owes an answer: something was delivered, or its tools have been answered."""
    ending: str | None = None
    """What the wire's stop reasons have no word for: `interrupted`, or the model's own reason for a cut answer."""
    paused: bool = False
    """The provider paused its answer: it goes on before anything else is said."""
    failures: int = 0
    """Failed model requests in a row."""
    hopeless: bool = False
    """The last failure is not tried again in this turn."""
    passing: bool = False
    """The last failure may be over by the time of the next message."""
    failed_at: str | None = None
    """When the last request failed; `retry_wait` seconds after it the model is asked again."""
    retry_wait: float = 0.0
    last_error: str | None = None
    turns: int = 0
    tool_calls: int = 0
    requests: int = 0
    turn_requests: int = 0
    reply: str | None = None
    """The newest text of the latest turn: adjacent agent.message events together (one answer may hold many)."""
    reply_open: bool = False
    """The next agent.message goes on with `reply`; otherwise it begins a new one."""
    refusal: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    context: Context = field(default_factory=Context)
    """How full the model's context is."""
    activity: str = ""
    """What happened last, for progress: a few words."""
    active_since: str | None = None
    active_seconds: float = 0.0
    """Time in which the session worked, up to the last idle; `active_since` is the start of the turn that runs."""
    at: str | None = None
    """When the newest event happened that has a time."""
    turn_cost_usd: str | None = "0"
    """What the latest turn cost so far; as `usage.cost_usd`."""
    budget: Budget | None = None
    held: bool = False
    """The budget is reached: nothing is asked until it is raised or removed, whatever waits."""

    @property
    def interrupted(self) -> bool:
        """An interrupt waits to be taken."""
        return any(item.type == "user.interrupt" for item in self.queue)

    @property
    def parked(self) -> bool:
        """The turn stands still until somebody outside answers its calls."""
        return self.status == "idle" and bool(self.calls)

    @property
    def unfinished(self) -> bool:
        """A turn is not over, and clients have not been told that it is: it runs, is parked, or is about to go on."""
        return self.status != "idle" or (self.stop_reason or {}).get("type") == "requires_action"

    @property
    def goes_on(self) -> bool:
        """It is idle, but its turn is not over: it was parked, or the budget held it up."""
        stopped = (self.stop_reason or {}).get("type")
        if stopped == "budget_reached":
            return self.owed or self.paused
        return stopped == "requires_action" and bool(self.calls or self.owed)

    @property
    def awaited(self) -> tuple[str, ...]:
        """The calls that somebody outside has to answer, oldest first."""
        return tuple(call.id for call in self.calls if call.awaits)


def dump(state: SessionState) -> dict[str, Any]:
    """The state as JSON-able data, for the cache beside the session."""
    return {"version": VERSION, **asdict(state)}


def load(data: Mapping[str, Any]) -> SessionState:
    """The inverse of `dump`. Raises TypeError for data of another version of the program: fold from the start then."""
    values = dict(data)
    if values.pop("version", None) != VERSION:
        raise TypeError("a state of another version of the fold")
    values["queue"] = tuple(QueuedInput(**item) for item in values["queue"])
    values["calls"] = tuple(OpenCall(**item) for item in values["calls"])
    values["usage"] = Usage(**values["usage"])
    values["budget"] = Budget(**values["budget"]) if values.get("budget") else None
    values["context"] = Context(**{**values["context"], "recent": tuple(values["context"]["recent"])})
    return SessionState(**values)


def size(content: Iterable[Mapping[str, Any]]) -> int:
    """Characters of text and data in these blocks."""
    sources = ((block, block.get("source") or {}) for block in content)
    return sum(len(block.get("text") or "") + len(source.get("data") or "") for block, source in sources)


def spent(state: SessionState, at: str | None = None) -> Spent:
    """What the session has used up, with the time of a running turn up to `at`."""
    usage = state.usage
    tokens = (
        usage.input_tokens
        + usage.output_tokens
        + usage.cache_read_input_tokens
        + usage.cache_creation_5m_input_tokens
        + usage.cache_creation_1h_input_tokens
    )
    usd = None if usage.cost_usd is None else Decimal(usage.cost_usd)
    return Spent(usd, tokens, state.turns, active_seconds(state, at))


def active_seconds(state: SessionState, at: str | None = None) -> float:
    """Seconds in which the session worked; those of a running turn up to `at`."""
    return round(state.active_seconds + seconds_between(state.active_since, at), 6)


def seconds_between(start: str | None, end: str | None) -> float:
    """Seconds from one wire timestamp to another; 0 where one is missing or the clock went back."""
    if not start or not end:
        return 0.0
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
