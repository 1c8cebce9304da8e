"""A session at work: read, decide, act, append, until there is nothing to do.

The loop holds nothing that the log does not: kill it anywhere, and the next one folds the log and goes on. What to do
is decided in `decide.py`; this file does it. Above: `supervisor`, which runs one loop a session. Below: the log, the
provider, the session's sandbox. It knows neither doors nor SQL.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from sandbox.errors import SandboxError, SandboxGone
from sandbox.protocol import Sandbox
from sandbox.wire import Call
from server import events
from server.errors import ModelError
from server.events import NewEvent, StoredEvent
from server.ids import new_id, now
from server.providers import BlockStarted, Chunk, ModelProvider, ModelRequest, ModelResponse, ModelUsage, TextDelta
from server.providers.pricing import Prices
from server.sessions.answer import read_answer, wire_usage
from server.sessions.decide import (
    AskModel,
    CloseRequest,
    Interrupt,
    Limits,
    Rest,
    RunTools,
    Stop,
    Work,
    backoff,
    next_work,
)
from server.sessions.log import Delta, Log
from server.sessions.sandboxes import Sandboxes
from server.sessions.spec import Spec
from server.sessions.state import OpenCall, SessionState, dump, fold
from server.sessions.transcript import Transcript
from server.sessions.usage import session_usage
from server.store.store import HeadMoved, SessionRow
from server.tools import BadArguments
from server.tools.render import Content, render
from server.tools.toolset import IN_SANDBOX

logger = logging.getLogger(__name__)

INTERRUPTED = "Tool execution was interrupted before completion. Please retry."
"""The wire's own words for a call that an interrupt closed."""
UNKNOWABLE = (
    "The sandbox was lost while this call was running: it may or may not have taken effect. Look at the files before"
    " you do it again."
)
TOO_MANY_REQUESTS = (
    "The turn was ended after {} model requests (setting requests_per_turn). Send a message to let the agent go on."
)
INTERRUPT_GRACE = 10.0
"""Seconds that running tools get to stop after an interrupt before their calls are closed without a result."""


@dataclass(frozen=True)
class Means:
    """What every loop of this process works with."""

    log: Log
    provider: Callable[[str], ModelProvider]
    """The provider for a model's name."""
    sandboxes: Sandboxes
    prices: Prices
    limits: Limits


class Loop:
    """Drives one session until it rests."""

    def __init__(self, means: Means, row: SessionRow, spec: Spec) -> None:
        self._means = means
        self._id = row.id
        self._thread = row.thread_id
        self._spec = spec
        self._state = SessionState()
        self._transcript = Transcript()
        self._retry_after: float | None = None
        self._running: dict[str, Sandbox] = {}
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Something was appended by somebody else: look."""
        self._news.set()

    async def run(self) -> None:
        """Work until there is nothing to do. Raises StaleWriter when another engine has taken over."""
        await self._read_on()
        while not isinstance(work := next_work(self._state, self._means.limits), Rest):
            await self._act(work)
            await self._read_on()

    # --- reading and writing the log ---------------------------------------------------------------------------------

    async def _read_on(self) -> None:
        self._news.clear()
        self._take(await self._means.log.read(self._id, self._state.seq))

    def _take(self, stored: Sequence[StoredEvent]) -> None:
        for event in stored:
            if event.seq == self._state.seq + 1:
                self._state = fold(self._state, (event,))
                self._transcript.apply(event)

    async def _append(self, new: Sequence[NewEvent]) -> None:
        stored = await self._means.log.append(self._id, new, attention=True)
        if stored[0].seq > self._state.seq + 1:  # somebody appended in between
            self._take(await self._means.log.read(self._id, self._state.seq))
        self._take(stored)

    async def _append_if_newest(self, new: Sequence[NewEvent]) -> None:
        """Append what was decided on all there is; nothing is appended when something has come that was not known."""
        seq = self._state.seq
        ahead = [
            StoredEvent(seq + n, self._id, e.thread_id, e.id, e.type, e.public, e.private) for n, e in enumerate(new, 1)
        ]
        after = fold(self._state, ahead)
        at_rest = isinstance(next_work(after, self._means.limits), Rest)
        try:
            stored = await self._means.log.append(
                self._id, new, if_head=seq, attention=not at_rest, fold=dump(after) if at_rest else None
            )
        except HeadMoved:
            return  # decide again with what came
        self._take(stored)

    # --- acting ------------------------------------------------------------------------------------------------------

    async def _act(self, work: Work) -> None:
        match work:
            case CloseRequest(start_id):
                await self._append_if_newest([self._failed_request(start_id)])
            case Interrupt(input_ids):
                await self._interrupt(input_ids)
            case RunTools(calls):
                await self._until_interrupted(self._run_tools(calls))
            case AskModel(deliver, attempt):
                await self._until_interrupted(self._ask(deliver, attempt))
            case Stop():
                await self._stop(work)

    async def _until_interrupted(self, act: Awaitable[None]) -> None:
        """Do it, but let an interrupt that arrives meanwhile end it: the model at once, tools by being cancelled."""
        doing = asyncio.ensure_future(act)
        try:
            while not doing.done():
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait({doing, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if self._news.is_set() and not doing.done() and await self._interrupt_is_waiting():
                    await self._cancel(doing)
        finally:
            if not doing.done():
                doing.cancel()
                await asyncio.wait({doing})
        if not doing.cancelled():
            doing.result()

    async def _interrupt_is_waiting(self) -> bool:
        self._news.clear()
        ahead = await self._means.log.read(self._id, self._state.seq)
        return any(item.type == "user.interrupt" for item in fold(self._state, ahead).queue)

    async def _cancel(self, doing: asyncio.Future[None]) -> None:
        """Running tools are stopped in the sandbox and may still report; everything else ends at once."""
        for op_id, sandbox in list(self._running.items()):
            try:
                await asyncio.wait_for(sandbox.cancel(op_id), INTERRUPT_GRACE)
            except (SandboxError, TimeoutError) as error:
                logger.warning("cancelling %s: %s", op_id, error)
        if self._running:
            await asyncio.wait({doing}, timeout=INTERRUPT_GRACE)
        if not doing.done():
            doing.cancel()
            await asyncio.wait({doing})

    async def _interrupt(self, input_ids: tuple[str, ...]) -> None:
        """Close what is open, say that the interrupt was taken, and be idle."""
        new = [
            events.tool_result(self._thread, call.id, [events.text(INTERRUPTED)], is_error=True)
            for call in self._state.calls
        ]
        new.append(events.delivered(self._thread, input_ids))
        if self._state.status != "idle":
            new += self._turn_end("end_turn")
        await self._append_if_newest(new)

    async def _stop(self, stop: Stop) -> None:
        new = [events.delivered(self._thread, stop.deliver)] if stop.deliver else []
        if stop.limit is not None:
            words = TOO_MANY_REQUESTS.format(stop.limit)
            new.append(events.session_error(self._thread, "tool_use_limit_reached_error", words, "exhausted"))
        await self._append_if_newest([*new, *self._turn_end(stop.reason)])

    def _turn_end(self, reason: str) -> list[NewEvent]:
        details = None
        if reason == "refusal":
            refusal = self._state.refusal or {}
            category, explanation = refusal.get("category"), refusal.get("explanation")
            details = {"type": "refusal", "category": category, "explanation": explanation}
        usage = session_usage(self._state, now())
        return events.turn_ended(self._thread, self._spec.agent_name, {"type": reason}, usage, details)

    # --- the model ---------------------------------------------------------------------------------------------------

    async def _ask(self, deliver: tuple[str, ...], attempt: int) -> None:
        """Deliver what waits, ask the model, and append its answer or its failure."""
        if attempt:
            await asyncio.sleep(backoff(attempt, self._retry_after, random.random()))
        new: list[NewEvent] = []
        if self._state.status != "running":
            new += events.turn_started(self._thread, self._spec.agent_name)
        if deliver:
            new.append(events.delivered(self._thread, deliver))
        start = events.model_request_start(self._thread)
        await self._append([*new, start])
        if self._spec.in_sandbox:
            self._means.sandboxes.prepare(self._id, self._spec)
        try:
            await self._append(await self._answer(start.id))
        except ModelError as error:
            await self._append_failure(start.id, error)

    async def _answer(self, start_id: str) -> list[NewEvent]:
        spec = self._spec
        provider = self._means.provider(spec.model)
        request = ModelRequest(
            spec.model, spec.system, spec.tools, self._transcript.messages(), spec.max_tokens, spec.options
        )
        deltas = _Deltas(self._means.log, self._id, self._state.seq)
        response = await _receive(provider.stream(request), deltas)
        cost = self._means.prices.cost_usd(response.model, response.usage)
        answer = read_answer(
            self._thread,
            start_id,
            response,
            enabled=spec.in_sandbox,
            event_id=deltas.event_id,
            cost=cost,
            earlier=self._transcript.server_calls,
        )
        # A sandbox that is there already gets its calls logged as dispatched in the same transaction.
        incarnation = self._means.sandboxes.incarnation(self._id)
        if incarnation is None:
            return answer.events
        sent = [events.dispatched(self._thread, call.id, incarnation) for call in answer.calls]
        return [*answer.events, *sent]

    async def _append_failure(self, start_id: str, error: ModelError) -> None:
        self._retry_after = error.retry_after
        again = error.retryable and self._state.failures + 1 <= self._means.limits.retries
        new = [
            self._failed_request(start_id),
            events.session_error(self._thread, error.error_type, str(error), "retrying" if again else "exhausted"),
        ]
        if again:
            new += events.turn_rescheduled(self._thread, self._spec.agent_name)
        await self._append(new)

    def _failed_request(self, start_id: str) -> NewEvent:
        return events.model_request_end(self._thread, start_id, wire_usage(ModelUsage()), is_error=True)

    # --- tools -------------------------------------------------------------------------------------------------------

    async def _run_tools(self, calls: tuple[OpenCall, ...]) -> None:
        """Run the calls of one answer side by side; each result is appended when it is there."""
        refused = [(call, reason) for call in calls if (reason := _refusal(call))]
        for call, reason in refused:
            await self._append([self._result(call, [events.text(reason)], is_error=True)])
        if rest := [call for call in calls if not _refusal(call)]:
            await self._run_in_sandbox(rest)

    async def _run_in_sandbox(self, calls: list[OpenCall]) -> None:
        ids = {call.id for call in calls}
        try:
            async with self._means.sandboxes.use(self._id, self._spec) as sandbox:
                await self._dispatch(calls, sandbox)
                sent = [call for call in self._state.calls if call.id in ids]
                await _side_by_side([self._run_call(call, sandbox) for call in sent])
        except SandboxGone as gone:
            logger.warning("%s: %s", self._id, gone)
            await self._close_calls(ids, UNKNOWABLE)
        except SandboxError as error:
            await self._close_calls(ids, f"No sandbox could be used: {error}")

    async def _dispatch(self, calls: list[OpenCall], sandbox: Sandbox) -> None:
        """Log which life of the sandbox the calls go to, before they go."""
        new = [
            events.dispatched(self._thread, call.id, sandbox.incarnation) for call in calls if call.incarnation is None
        ]
        if new:
            await self._append(new)

    async def _run_call(self, call: OpenCall, sandbox: Sandbox) -> None:
        if call.incarnation != sandbox.incarnation:
            await self._append([self._result(call, [events.text(UNKNOWABLE)], is_error=True)])
            return
        operation, body = IN_SANDBOX[call.name].prepare(call.input)
        self._running[call.id] = sandbox
        try:
            result = await sandbox.call(Call(call.id, operation, self._thread, body))
        finally:
            del self._running[call.id]
        content, is_error = render(result)
        await self._append([self._result(call, content, is_error=is_error)])
        await sandbox.settle([call.id])

    async def _close_calls(self, ids: set[str], reason: str) -> None:
        still_open = [call for call in self._state.calls if call.id in ids]
        new = [self._result(call, [events.text(reason)], is_error=True) for call in still_open]
        if new:
            await self._append(new)

    def _result(self, call: OpenCall, content: Content | list[Any], *, is_error: bool) -> NewEvent:
        news = [events.text(f"[{line}]\n") for line in self._means.sandboxes.take_news(self._id)]
        return events.tool_result(self._thread, call.id, [*news, *content], is_error=is_error)


class _Deltas:
    """Publishes text as it comes, under the id that its event will have."""

    def __init__(self, log: Log, session_id: str, after: int) -> None:
        self._log, self._session_id, self._after = log, session_id, after
        self._ids: dict[int, str] = {}
        self._types: dict[int, str] = {}

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
        kind = self._types.get(index, "agent.message")
        self._log.publish(Delta(self._session_id, self.event_id(index), kind, text, self._after))


async def _receive(stream: AsyncIterator[Chunk], deltas: _Deltas) -> ModelResponse:
    async with aclosing(stream) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if isinstance(chunk, ModelResponse):
                return chunk
            deltas.show(chunk)
    raise ModelError("The model's stream ended without an answer.")


async def _side_by_side(acts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run them together; when one fails the others are cancelled and its own error is raised."""
    if len(acts) == 1:
        await acts[0]
        return
    try:
        async with asyncio.TaskGroup() as group:
            for act in acts:
                group.create_task(act)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _refusal(call: OpenCall) -> str | None:
    """Why a call is answered without being run, if so."""
    if call.note:
        return call.note
    if not call.allowed:
        return f"There is no tool {call.name!r} here. Use the tools that you were given."
    try:
        IN_SANDBOX[call.name].prepare(call.input)
    except BadArguments as error:
        return str(error)
    return None
