"""What a session does next: one row a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.sessions.decide import (
    AskModel,
    CloseRequest,
    Interrupt,
    Limits,
    Park,
    Rest,
    Resume,
    RunTools,
    Stop,
    Work,
    next_work,
)
from server.sessions.state import OpenCall, QueuedInput, SessionState

LIMITS = Limits(retries=2, requests_per_turn=5)
MESSAGE = QueuedInput("m", "user.message", 1)
STOP = QueuedInput("i", "user.interrupt", 2)
CALL = OpenCall("c", "bash", {}, True)
ASKS = OpenCall("a", "bash", {}, True, awaits="confirmation")
OUTSIDE = OpenCall("o", "lookup", {}, True, awaits="result")
RUNNING = SessionState(status="running")
PARKED = SessionState(calls=(ASKS, OUTSIDE), stop_reason={"type": "requires_action", "event_ids": ["a", "o"]})

ROWS: dict[str, tuple[SessionState, Work]] = {
    "nothing was ever said": (SessionState(), Rest()),
    "a message to an idle session": (SessionState(queue=(MESSAGE,)), AskModel(("m",), 0)),
    "a message after a turn that failed": (
        SessionState(queue=(MESSAGE,), failures=3, hopeless=True), AskModel(("m",), 0),
    ),
    "a message steers a running one": (replace(RUNNING, queue=(MESSAGE,), owed=True), AskModel(("m",), 0)),
    "a message as the turn ends": (replace(RUNNING, queue=(MESSAGE,)), AskModel(("m",), 0)),
    "a lost request is closed first of all": (
        replace(RUNNING, open_request="r", queue=(STOP,), calls=(CALL,)), CloseRequest("r"),
    ),
    "an interrupt goes before calls and messages": (
        replace(RUNNING, queue=(MESSAGE, STOP), calls=(CALL,)), Interrupt(("i",)),
    ),
    "an interrupt of an idle session is only delivered": (SessionState(queue=(STOP,)), Interrupt(("i",))),
    "calls go before messages": (replace(RUNNING, queue=(MESSAGE,), calls=(CALL,), owed=True), RunTools((CALL,))),
    "tools were answered": (replace(RUNNING, owed=True), AskModel((), 0)),
    "all was said": (RUNNING, Stop("end_turn")),
    "the model refused": (replace(RUNNING, refusal={}), Stop("refusal")),
    "a failure that may pass": (SessionState(status="rescheduling", owed=True, failures=2), AskModel((), 2)),
    "too many failures": (SessionState(status="rescheduling", owed=True, failures=3), Stop("retries_exhausted")),
    "a failure for good flushes what waits": (
        replace(RUNNING, owed=True, failures=1, hopeless=True, queue=(MESSAGE,)), Stop("retries_exhausted", ("m",)),
    ),
    "the last request of a turn": (replace(RUNNING, owed=True, turn_requests=4), AskModel((), 0)),
    "too many requests": (replace(RUNNING, owed=True, turn_requests=5), Stop("retries_exhausted", limit=5)),
    "too many requests, but its last calls are answered": (
        replace(RUNNING, calls=(CALL,), turn_requests=5), RunTools((CALL,)),
    ),
    "what nobody is asked about runs first": (replace(RUNNING, calls=(ASKS, CALL, OUTSIDE)), RunTools((CALL,))),
    "then the turn is parked": (replace(RUNNING, calls=(ASKS, OUTSIDE)), Park(("a", "o"))),
    "parked, and nobody has answered": (PARKED, Rest()),
    "parked, and a message came meanwhile": (replace(PARKED, queue=(MESSAGE,)), Rest()),
    "some are answered: the rest is said again": (replace(PARKED, calls=(CALL, OUTSIDE)), Park(("o",))),
    "all are answered": (replace(PARKED, calls=(CALL,)), Resume()),
    "all are answered, and none is left to run": (replace(PARKED, calls=(), owed=True), AskModel((), 0)),
    "an interrupt of a parked turn": (replace(PARKED, queue=(STOP,)), Interrupt(("i",))),
    "terminated, whatever waits": (SessionState(status="terminated", queue=(MESSAGE,), calls=(CALL,)), Rest()),
}  # fmt: skip


@pytest.mark.parametrize(("state", "work"), ROWS.values(), ids=ROWS.keys())
def test_the_next_step_follows_from_the_state_alone(state: SessionState, work: Work) -> None:
    assert next_work(state, LIMITS) == work
