"""Run the model's calls in the session's sandbox, each at most once, and append what came of them.

Above: `loop`. Below: `sandboxes` and the tools' operations. Which life of the sandbox a call goes to is logged before
it goes; a call that an earlier life may have run is answered with an error that says so, never run again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from sandbox.errors import SandboxError, SandboxGone
from sandbox.protocol import Sandbox
from sandbox.wire import Call, Operation
from server import events
from server.events import NewEvent
from server.sessions import tracing
from server.sessions.conversation.recall import recall
from server.sessions.decide import AskModel, next_work
from server.sessions.means import Means
from server.sessions.record import Record
from server.sessions.spec import Spec
from server.sessions.state import OpenCall
from server.tools import BadArguments
from server.tools.recall import RECALL, read_query
from server.tools.render import Content, render
from server.tools.toolset import IN_SANDBOX

logger = logging.getLogger(__name__)

UNKNOWABLE = (
    "The sandbox was lost while this call was running: it may or may not have taken effect. Look at the files before"
    " you do it again."
)
GRACE = 10.0
"""Seconds that running calls get to stop after an interrupt before they are closed without a result."""
ATTACHMENTS = 10
"""Connections that may break under the calls of one answer: a long command on a distant engine sees a few."""
REACH_SECONDS, REACH_PAUSE = 30.0, 0.5
"""How long a sandbox in which calls run may be out of reach, and the pause between two looks: an engine is back from
its own restart within five seconds."""

Prepared = tuple[Operation, bytes]
"""An operation of the runner's, and its payload."""


class _Patience:
    """How often, and for how long, calls wait for their sandbox to be heard again."""

    def __init__(self) -> None:
        self._breaks = 0
        self._until = time.monotonic() + REACH_SECONDS

    def ends(self, error: SandboxError, sent: bool) -> bool:
        """Whether this trouble is the last. Calls that were never sent need no patience: one more try for a sandbox
        that died meanwhile, and none while there is none to be had."""
        if isinstance(error, SandboxGone):
            self._breaks, self._until = self._breaks + 1, time.monotonic() + REACH_SECONDS
            return self._breaks >= (ATTACHMENTS if sent else 2)
        return not sent or time.monotonic() > self._until


class Hands:
    """The sandbox's end of one session."""

    def __init__(self, means: Means, record: Record, spec: Spec) -> None:
        self._means = means
        self._record = record
        self._spec = spec
        self._running: dict[str, Sandbox] = {}
        self.begun: str | None = None
        """A model request whose start was appended together with the last result, and that is still to be sent."""

    @property
    def busy(self) -> bool:
        """Calls are running in the sandbox now."""
        return bool(self._running)

    async def run(self, calls: Sequence[OpenCall]) -> None:
        """Run the calls of one answer side by side; each result is appended when it is there."""
        ready: dict[str, Prepared] = {}
        for call in calls:
            try:
                if call.name == RECALL.name and call.allowed and not call.note:
                    await self._recall(call)
                else:
                    ready[call.id] = prepared(call)
            except BadArguments as refusal:
                await self._append_result(call, [events.text(str(refusal))], is_error=True)
        if ready:
            await self._run_in_sandbox(ready)

    async def cancel(self) -> None:
        """Stop what runs; the results still come, and are appended."""
        for op_id, sandbox in list(self._running.items()):
            try:
                async with asyncio.timeout(GRACE):
                    await sandbox.cancel(op_id)
            except (SandboxError, TimeoutError) as error:
                logger.warning("cancelling %s: %s", op_id, error)

    async def cancel_sent(self) -> None:
        """Stop calls that an engine before this one sent: they may still run, and the shell would wait for them."""
        sent = [call for call in self._record.state.calls if call.incarnation is not None]
        if not sent:
            return
        try:
            async with asyncio.timeout(GRACE), self._use() as sandbox:
                for call in sent:
                    if call.incarnation == sandbox.incarnation:
                        await sandbox.cancel(call.id)
                        await sandbox.settle([call.id])
        except (SandboxError, TimeoutError) as error:
            logger.warning("cancelling the calls of %s: %s", self._record.session_id, error)

    async def _recall(self, call: OpenCall) -> None:
        """Look something up in the log: here, and not in the sandbox, as it only reads. Raises BadArguments."""
        record = self._record
        with tracing.tool(record.session_id, call):
            found = await recall(self._means.log, record.session_id, record.thread, read_query(call.input))
        await self._append_result(call, [events.text(found)], is_error=False)

    def _use(self) -> AbstractAsyncContextManager[Sandbox]:
        return self._means.sandboxes.use(self._record.session_id, self._spec)

    async def _run_in_sandbox(self, ready: Mapping[str, Prepared]) -> None:
        """Until each has a result. A sandbox that cannot be heard any more is attached to again: where it is still the
        same life, calls that were sent go on in it, or their kept results come."""
        patience = _Patience()
        while calls := [call for call in self._record.state.calls if call.id in ready]:
            try:
                await self._run_on(calls, ready)
            except SandboxError as error:
                logger.warning("%s: %s", self._record.session_id, error)
                sent = any(call.incarnation for call in self._record.state.calls if call.id in ready)
                if patience.ends(error, sent):
                    words = f"{UNKNOWABLE} ({error})" if sent else f"No sandbox could be used: {error}"
                    await self._close(ready.keys(), words)
                elif not isinstance(error, SandboxGone):
                    await asyncio.sleep(REACH_PAUSE)

    async def _run_on(self, calls: Sequence[OpenCall], ready: Mapping[str, Prepared]) -> None:
        async with self._use() as sandbox:
            await self._dispatch(calls, sandbox)
            sent = [call for call in self._record.state.calls if call.id in ready]
            await side_by_side([self._run_call(call, sandbox, ready[call.id]) for call in sent])

    async def _dispatch(self, calls: Sequence[OpenCall], sandbox: Sandbox) -> None:
        """Log which life of the sandbox the calls go to, before they go."""
        thread = self._record.thread
        new = [events.dispatched(thread, call.id, sandbox.incarnation) for call in calls if call.incarnation is None]
        if new:
            await self._record.append(new)

    async def _run_call(self, call: OpenCall, sandbox: Sandbox, ready: Prepared) -> None:
        if call.incarnation != sandbox.incarnation:
            await self._append_result(call, [events.text(UNKNOWABLE)], is_error=True)
            return
        operation, body = ready
        self._running[call.id] = sandbox
        try:
            with tracing.tool(self._record.session_id, call) as span:
                result = await sandbox.call(Call(call.id, operation, self._record.thread, body))
                if not result.ok:
                    span.fail("tool_error")
        finally:
            del self._running[call.id]
        content, is_error = render(result)
        await self._append_result(call, content, is_error=is_error)
        await sandbox.settle([call.id])

    async def _append_result(self, call: OpenCall, content: Sequence[Any], *, is_error: bool) -> None:
        """Append a result; when it is the last one, the next request begins in the same transaction.

        A commit costs a good part of a millisecond, and every round of tools would pay it twice. Something that came
        meanwhile has to be delivered first, and a request that has to wait in line has not begun: then the result is
        appended alone.
        """
        record = self._record
        result = self._result(call, content, is_error=is_error)
        asks_next = next_work(record.after([result]), record.limits) == AskModel((), 0)
        start = events.model_request_start(record.thread)
        asks_next = asks_next and not self._means.models.full
        if asks_next and not record.news.is_set() and await record.append_if_newest([result, start]):
            self.begun = start.id
        else:
            await record.append([result])

    async def _close(self, ids: Collection[str], reason: str) -> None:
        """Answer those that are still open. A result whose commit was under way counts: it is looked for first."""
        record = self._record
        while still_open := [call for call in record.state.calls if call.id in ids]:
            new = [self._result(call, [events.text(reason)], is_error=True) for call in still_open]
            if await record.append_if_newest(new):
                return
            await record.read_on()

    def _result(self, call: OpenCall, content: Content | Sequence[Any], *, is_error: bool) -> NewEvent:
        news = [events.text(f"[{line}]\n") for line in self._means.sandboxes.take_news(self._record.session_id)]
        return events.tool_result(self._record.thread, call.id, [*news, *content], is_error=is_error)


def prepared(call: OpenCall) -> Prepared:
    """What the sandbox is to do. Raises BadArguments, with what answers the call, when it is not to be run."""
    if call.note:
        raise BadArguments(call.note)
    if not call.allowed:
        raise BadArguments(f"There is no tool {call.name!r} here. Use the tools that you were given.")
    return IN_SANDBOX[call.name].prepare(call.input)


async def side_by_side(acts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run them together; when one fails the others are cancelled and its own error is raised.

    No TaskGroup: in Python 3.11 and 3.12 it leaves its task marked as being cancelled when one fails, and this task is
    the session's own, which goes on.
    """
    if len(acts) == 1:
        await acts[0]
        return
    tasks = [asyncio.ensure_future(act) for act in acts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        failed = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if failed:
        raise failed[0]
