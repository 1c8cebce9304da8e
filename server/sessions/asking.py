"""Ask the model: deliver what waits, stream the answer, append it or its failure.

Above: `loop`. Below: the provider, `answer.py`, which says what an answer means, and `retrying.py`, which says what
follows from a failure. That is stored with it: a wait that the process does not outlive goes on in the next one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from server import events
from server.errors import DayCapReached, ModelContextTooLong, ModelError, ModelRefusedRequest
from server.events import NewEvent, Permission
from server.ids import new_id, now
from server.providers import BlockStarted, Chunk, ModelRequest, ModelResponse, ModelUsage, TextDelta, UsageSoFar
from server.sessions import tracing
from server.sessions.answer import read_answer, wire_usage
from server.sessions.decide import AskModel, MakeRoom, next_need, next_work
from server.sessions.log import Delta, Log
from server.sessions.means import Means
from server.sessions.money.budget import Need, allowance
from server.sessions.record import Record
from server.sessions.retrying import verdict
from server.sessions.spec import Spec
from server.sessions.state import seconds_between, spent

Answering = Callable[[str, int], Awaitable[list[NewEvent]]]
"""Sends the request whose start has this id, for so many tokens at most; gives the events of its answer."""


class Asking:
    """The model's end of one session."""

    def __init__(self, means: Means, record: Record, spec: Spec) -> None:
        self._means = means
        self._record = record
        self._spec = spec
        self._due: tuple[str | None, float] = (None, 0.0)
        """When the model may be asked again after the failure of that time, by our own steady clock."""
        self._sent = ""
        """The start of the request that was sent last, and what the provider has counted of its answer."""
        self._counted: UsageSoFar | None = None

    async def ask(self, work: AskModel) -> None:
        """Begin the request in the log, then send it; after a failure, once it is time to."""
        async with self.due(work) as due:
            if isinstance(due, AskModel):
                await self._send(await self.begin(due.deliver))

    @asynccontextmanager
    async def due(self, work: AskModel | MakeRoom) -> AsyncIterator[AskModel | MakeRoom | None]:
        """A place among the requests under way, once the model may be asked, or asked again. What comes meanwhile goes
        with the request, so it gives what is due by then: this work, as a rule; None where that is not due any more."""
        if work.attempt:
            async with self._means.turns.aside(self._record.session_id):
                await self._means.pace.sleep(self._left())
        async with self._means.models.place(self._record.session_id) as waited:
            yield await self._anew(work) if waited or work.attempt else work

    async def _anew(self, work: AskModel | MakeRoom) -> AskModel | MakeRoom | None:
        await self._record.read_on()
        due = next_work(self._record.state, self._record.limits)
        if isinstance(due, AskModel) and isinstance(work, AskModel) and due.attempt == work.attempt:
            return due
        return work if due == work else None

    async def begin(self, deliver: Sequence[str] = (), purpose: str | None = None) -> str:
        """Log that a request begins, with the inputs that it delivers. Returns the start's id."""
        record = self._record
        new: list[NewEvent] = []
        if record.state.status != "running":
            new += events.turn_started(record.thread, self._spec.agent_name)
        if deliver:
            new.append(events.delivered(record.thread, deliver))
        start = events.model_request_start(record.thread, purpose)
        await record.append([*new, start])
        return start.id

    async def send(self, start_id: str) -> None:
        """Send the request whose start is in the log, and append its answer or its failure."""
        async with self._means.models.place(self._record.session_id):
            await self._send(start_id)

    async def _send(self, start_id: str) -> None:
        if self._spec.in_sandbox:
            self._means.sandboxes.prepare(self._record.session_id, self._spec)
        await self.within_bounds(start_id, self._answer)

    async def within_bounds(self, start_id: str, answer: Answering) -> None:
        """Append what comes of a request, asked within what may be spent, or what follows from its failure."""
        self._sent, self._counted = start_id, None
        try:
            async with self._means.spending.reserve(self._need()) as most:
                await self._record.append(await self._outcome(start_id, most, answer))
        except DayCapReached as error:
            await self._record.append(self._failure(start_id, error))

    def _need(self) -> Need:
        """The request at its worst, with an answer that the session's budget has room for.

        `decide` has let it through; a budget that was lowered since is overdrawn by a short answer at most.
        """
        state = self._record.state
        request = next_need(state, self._means.tariff(self._spec))
        if state.budget is None:
            return request
        room = allowance(state.budget, spent(state, state.at), request, begins=False)
        return replace(request, answer=room or request.least)

    async def _outcome(self, start_id: str, max_tokens: int, answer: Answering) -> list[NewEvent]:
        try:
            if words := self._means.room.trouble:
                raise ModelRefusedRequest(f"The model was not asked. {words}")
            return await answer(start_id, max_tokens)
        except ModelContextTooLong:
            return [self.broken_off(start_id, too_long=True)]
        except ModelError as error:
            return self._failure(start_id, error)

    def request(self, max_tokens: int, upto: int | None = None) -> ModelRequest:
        """The request that the conversation, or its first `upto` messages, make."""
        spec, said = self._spec, self._record.transcript
        tools, messages = [*spec.tools, *said.tools], said.messages(upto)
        options = {**spec.options, "betas": list(said.betas)} if said.betas else spec.options
        return ModelRequest(spec.model, spec.system, tools, messages, max_tokens, options)

    def broken_off(self, start_id: str, *, too_long: bool = False) -> NewEvent:
        """The end of a request without an answer: what the provider had counted of it by then is owed all the same.
        Nobody knows that of a request which another process had sent. `too_long`: a shorter one would be answered."""
        thread, counted = self._record.thread, self._counted
        if too_long or counted is None or start_id != self._sent:
            known = {"too_long": True} if too_long else None
            return events.model_request_end(thread, start_id, wire_usage(ModelUsage()), is_error=True, raw=known)
        cost = self._means.prices.cost_usd(counted.model, counted.usage)
        raw = {
            "usage": dict(vars(counted.usage)),
            "cost_usd": None if cost is None else str(cost),
            "model": counted.model,
        }
        return events.model_request_end(thread, start_id, wire_usage(counted.usage), is_error=True, raw=raw)

    def _left(self) -> float:
        """Seconds until the model may be asked again. The wall clock counts only for a wait that began in another
        process, and never makes it longer than it was meant to be."""
        state, clock = self._record.state, self._means.pace.monotonic
        if self._due[0] != state.failed_at:
            waited = min(seconds_between(state.failed_at, now()), state.retry_wait)
            self._due = (state.failed_at, clock() + state.retry_wait - waited)
        return max(0.0, self._due[1] - clock())

    async def _answer(self, start_id: str, max_tokens: int) -> list[NewEvent]:
        spec, record = self._spec, self._record
        deltas = _Deltas(self._means.log, record.session_id, record.state.seq)
        with tracing.chat(record.session_id, spec) as span:
            try:
                response = await self.receive(self.request(max_tokens), deltas.show)
            except ModelError as error:
                tracing.failed(span, spec, error.error_type)
                raise
            cost = self._means.prices.cost_usd(response.model, response.usage)
            tracing.answered(span, response, cost)
        answer = read_answer(
            record.thread,
            start_id,
            response,
            permission=self._permission,
            custom=spec.custom,
            event_id=deltas.event_id,
            cost=cost,
            earlier=record.transcript.server_calls,
        )
        # A sandbox that is there already gets its calls logged as dispatched in the same transaction.
        incarnation = self._means.sandboxes.incarnation(record.session_id) if answer.runnable else None
        if incarnation is None:
            return answer.events
        sent = [
            events.dispatched(record.thread, call.id, incarnation)
            for call in answer.runnable
            if call.public is not None and call.public["name"] in spec.in_sandbox
        ]
        return [*answer.events, *sent]

    def _permission(self, name: str) -> Permission:
        """The session's policy on a tool; what it was offered on the way, to look things up, may always run."""
        offered = any(tool["name"] == name for tool in self._record.transcript.tools)
        return "allow" if offered else self._spec.permission(name)

    async def receive(self, request: ModelRequest, show: Callable[[Chunk], None]) -> ModelResponse:
        """Ask, show what comes of the answer, and give the whole of it. Raises ModelError leaves."""
        stream: AsyncIterator[Chunk] = self._means.provider(self._spec.model).stream(request)
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if isinstance(chunk, ModelResponse):
                    return chunk
                if isinstance(chunk, UsageSoFar):
                    self._counted = chunk
                else:
                    show(chunk)
        raise ModelError("The model's stream ended without an answer.")

    def _failure(self, start_id: str, error: ModelError) -> list[NewEvent]:
        record, means = self._record, self._means
        then = verdict(error, record.state.failures + 1, means.limits, means.pace.jitter())
        status = "retrying" if then.again else "exhausted"
        private: dict[str, Any] = {"wait": then.wait, "passing": type(error).retryable}
        if isinstance(error, DayCapReached):
            private["ending"] = error.ending
        words = f"{error}{then.words}"
        ended = self.broken_off(start_id)
        told = events.session_error(record.thread, error.error_type, words, status, private=private)
        self._due = ((told.public or {})["processed_at"], means.pace.monotonic() + then.wait)
        new = [ended, told]
        return [*new, *events.turn_rescheduled(record.thread, self._spec.agent_name)] if then.again else new


class _Deltas:
    """Publishes text as it comes, under the id that its event will have."""

    def __init__(self, log: Log, session_id: str, after: int) -> None:
        self._log, self._session_id, self._after = log, session_id, after
        self._ids: dict[int, str] = {}
        self._types: dict[int, str] = {}
        self._written: dict[int, int] = {}

    def event_id(self, index: int) -> str:
        return self._ids.setdefault(index, new_id("sevt"))

    def show(self, chunk: Chunk) -> None:
        match chunk:
            case BlockStarted(index, kind) if kind in ("text", "thinking"):
                self._types[index] = "agent.message" if kind == "text" else "agent.thinking"
                self._publish(index, "")
            case TextDelta(index, text):
                self._publish(index, text)

    def _publish(self, index: int, text: str) -> None:
        kind, at = self._types.get(index, "agent.message"), self._written.get(index, 0)
        self._written[index] = at + len(text)
        self._log.publish(Delta(self._session_id, self.event_id(index), kind, text, self._after, at))
