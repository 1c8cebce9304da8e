"""A session at work: read, decide, act, append, until there is nothing to do.

The loop holds nothing that the log does not: kill it anywhere, and the next one folds the log and goes on. What to do
is decided in `decide.py`; `asking`, `compacting` and `hands` do it. Above: `supervisor`, which runs one loop a session.
It knows neither doors nor SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from server import events
from server.events import NewEvent
from server.ids import now
from server.sessions import tracing
from server.sessions.asking import Asking
from server.sessions.conversation.compacting import Compacting
from server.sessions.decide import (
    AskModel,
    CloseRequest,
    Interrupt,
    MakeRoom,
    Park,
    Rest,
    Resume,
    RunTools,
    Stop,
    Work,
    next_work,
)
from server.sessions.ending import turn_end
from server.sessions.hands import GRACE, Hands
from server.sessions.interrupting import UntilInterrupted
from server.sessions.means import Means
from server.sessions.record import Record
from server.sessions.spec import Spec, thaw
from server.store.store import SessionRow

INTERRUPTED = "Tool execution was interrupted before completion. Please retry."
"""The wire's own words for a call that an interrupt closed."""
TOO_MANY_REQUESTS = (
    "The turn was ended after {} model requests (setting requests_per_turn). Send a message to let the agent go on."
)
AGAIN = {"passing": True}
"""Beside an error: the next turn is not bound to fail as this one did."""


class Loop:
    """Drives one session until it rests."""

    def __init__(self, means: Means, row: SessionRow, spec: Spec) -> None:
        self._means = means
        self._record = Record(means.log, row.id, row.thread_id, means.limits)
        self._equip(spec)

    def _equip(self, spec: Spec) -> None:
        """Work with this spec from now on."""
        self._spec = spec
        means = self._means
        self._record.limits = replace(means.limits, tariff=means.tariff(spec), window=means.window(spec.model))
        self._asking = Asking(self._means, self._record, spec)
        self._compacting = Compacting(self._means, self._record, spec, self._asking)
        self._hands = Hands(self._means, self._record, spec)

    @property
    def size(self) -> int:
        """Characters of its conversation: what it takes up in memory is about twice as much."""
        return self._record.transcript.size

    def wake(self) -> None:
        """Something was appended by somebody else: look."""
        self._record.wake()

    async def run(self, yields: Callable[[], bool]) -> bool:
        """Work until there is nothing to do, or a turn is over and this one `yields` to others. Whether there is more.

        Raises StaleWriter when another engine has taken over.
        """
        self.wake()
        await self._record.read_on()
        with tracing.agent(self._record.session_id, self._spec):
            return await self._work(yields)

    async def take_interrupts(self) -> bool:
        """Do what interrupts ask and nothing else: for a session that waits. Whether it rests then."""
        self.wake()
        await self._record.read_on()
        while not isinstance(work := self._next(), Rest) and self._record.state.interrupted:
            await self._act(work)
            await self._record.read_on()
        return isinstance(self._next(), Rest)

    def _next(self) -> Work:
        return next_work(self._record.state, self._record.limits)

    async def _work(self, yields: Callable[[], bool]) -> bool:
        began = self._record.state.turns
        while not isinstance(work := self._next(), Rest):
            if self._record.state.status == "idle" and self._record.state.turns > began and yields():
                return True
            if self._record.spec is not None and self._record.state.status == "idle":
                self._equip(thaw(self._record.spec))  # the session was updated, which it can be only while it is idle
                self._record.spec = None
            await self._act(work)
            await self._record.read_on()
        return False

    async def _act(self, work: Work) -> None:
        match work:
            case CloseRequest(start_id) if start_id == self._hands.begun and not self._record.state.interrupted:
                self._hands.begun = None
                async with self._until_interrupted():
                    await self._asking.send(start_id)
            case CloseRequest(start_id):
                await self._record.append_if_newest([self._asking.broken_off(start_id)])
            case Interrupt(input_ids):
                await self._interrupt(input_ids)
            case RunTools(calls):
                async with self._until_interrupted():
                    await self._hands.run(calls)
            case Park(awaited):
                parked = {"type": "requires_action", "event_ids": list(awaited)}
                await self._record.append_if_newest(self._turn_end(parked))
            case Resume():
                await self._record.append_if_newest(events.turn_started(self._record.thread, self._spec.agent_name))
            case MakeRoom():
                await self._make_room(work)
            case AskModel():
                async with self._until_interrupted():
                    await self._asking.ask(work)
            case Stop():
                await self._stop(work)

    async def _make_room(self, work: MakeRoom) -> None:
        if work.way != "compact":
            await self._compacting.clear(work)
        elif self._compacting.cut(work):
            async with self._until_interrupted():
                await self._compacting.summarize(work)
        else:
            await self._stop(Stop("retries_exhausted", work.deliver, full=True))

    def _until_interrupted(self) -> UntilInterrupted:
        """Around what may take long: an interrupt that arrives meanwhile ends it, the model at once, tools by being
        cancelled."""
        return UntilInterrupted(self._record.news, self._interrupt_is_waiting, self._ease)

    async def _interrupt_is_waiting(self) -> bool:
        return (await self._record.ahead()).interrupted

    async def _ease(self, over: asyncio.Future[None]) -> None:
        """Running tools are stopped in the sandbox and may still report; everything else ends at once."""
        if self._hands.busy:
            await self._hands.cancel()
            await asyncio.wait({over}, timeout=GRACE)

    async def _interrupt(self, input_ids: tuple[str, ...]) -> None:
        """Close what is open, say that the interrupt was taken, and be idle."""
        await self._hands.cancel_sent()
        record = self._record
        new = [
            events.tool_result(record.thread, call.id, [events.text(INTERRUPTED)], is_error=True)
            for call in record.state.calls
        ]
        new.append(events.delivered(record.thread, input_ids))
        if record.state.unfinished:
            new += self._turn_end({"type": "end_turn"})
        await record.append_if_newest(new)

    async def _stop(self, stop: Stop) -> None:
        thread = self._record.thread
        begins = stop.full and self._record.state.status == "idle"
        new = events.turn_started(thread, self._spec.agent_name) if begins else []
        new += [events.delivered(thread, stop.deliver)] if stop.deliver else []
        if stop.limit is not None:
            words = TOO_MANY_REQUESTS.format(stop.limit)
            new.append(events.session_error(thread, "tool_use_limit_reached_error", words, "exhausted", private=AGAIN))
        if stop.full:
            new.append(self._compacting.limit_reached())
        await self._record.append_if_newest([*new, *self._turn_end({"type": stop.reason})])

    def _turn_end(self, reason: Mapping[str, Any]) -> list[NewEvent]:
        return turn_end(self._record.state, self._record.thread, self._spec.agent_name, reason, now())
