"""File operations, each in a short-lived child of its own.

Above: `core`. Below: `child`, `loop`. A FIFO, an endless file or a catastrophic pattern blocks only its own child,
which is killed when its time is over or when it is cancelled. From the first operation on a spare child waits for the
next one; a sandbox that only runs commands does not pay for it. It knows nothing of what the operations do.
"""

from __future__ import annotations

import contextlib
import os
import selectors
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional

from sandbox import wire
from sandbox.runner.child import Child, read_answer
from sandbox.runner.loop import Loop
from sandbox.runner.output import DRAIN_BYTES, READ_BYTES

JOB_SECONDS = 120.0
"""A file operation is quick; two minutes is a search through a very large tree."""
MAX_JOBS = 16
"""Children at once; further ones wait. More would only share the same cores and eat the pids limit."""
MAX_WAITING = 256
"""Operations that wait for a child; more are refused."""
KILLED = "The operation was killed before it ended (out of memory, or by another process)."

Done = Callable[[wire.Result], None]


class Jobs:
    """Runs calls in children, MAX_JOBS at once, in the order they came."""

    def __init__(self, loop: Loop, workspace: str, seconds: float = JOB_SECONDS) -> None:
        self._loop, self._workspace, self._seconds = loop, workspace, seconds
        self._running: Dict[str, Job] = {}
        self._waiting: Deque[Any] = deque()
        self._spare: Optional[Child] = None
        self._closed = False

    def submit(self, call: wire.Call, done: Done) -> None:
        if len(self._waiting) >= MAX_WAITING:
            done(failed(call.op_id, f"{MAX_WAITING} file operations are waiting already; wait for them first"))
            return
        self._waiting.append((call, done))
        self._start_next()

    def cancel(self, op_id: str) -> bool:
        """Stop it. False when it is not here (any more)."""
        job = self._running.get(op_id)
        if job is not None:
            job.stop({"cancelled": True}, "Cancelled.")
            return True
        for waiting in self._waiting:
            if waiting[0].op_id == op_id:
                self._waiting.remove(waiting)
                waiting[1](wire.Result(op_id, False, b"Cancelled.", {"cancelled": True}))
                return True
        return False

    def close(self) -> None:
        self._closed = True
        self._waiting.clear()
        if self._spare is not None:
            self._spare.end()
            self._spare = None
        for job in list(self._running.values()):
            job.stop({"cancelled": True}, "The runner ends.")

    def _start_next(self) -> None:
        while self._waiting and len(self._running) < MAX_JOBS:
            call, done = self._waiting.popleft()
            try:
                child = self._child(call)
            except OSError as error:
                done(failed(call.op_id, f"The sandbox cannot start a process: {error.strerror}. Stop some first."))
                continue
            self._running[call.op_id] = Job(self._loop, call.op_id, child, self._seconds, self._ended(call.op_id, done))

    def _ended(self, op_id: str, done: Done) -> Done:
        def ended(result: wire.Result) -> None:
            self._running.pop(op_id, None)
            done(result)
            self._start_next()
            self._loop.call_later(0, self._keep_spare)  # the answer goes out first

        return ended

    def _child(self, call: wire.Call) -> Child:
        """One that does the call: the spare, where it can have it, or one forked with it."""
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.hand(call):
                return spare
            spare.end()
        return Child(self._loop, self._workspace, call)

    def _keep_spare(self) -> None:
        """Without one, where the sandbox has no process left, the next operation forks for itself."""
        if self._spare is None and not self._closed:
            with contextlib.suppress(OSError):
                self._spare = Child(self._loop, self._workspace)


class Job:
    """One call in one child."""

    def __init__(self, loop: Loop, op_id: str, child: Child, seconds: float, done: Done) -> None:
        self._loop, self._op_id, self._child, self._done = loop, op_id, child, done
        self._answer: List[bytes] = []
        self._size = 0
        self._over = False
        loop.selector.register(child.answers, selectors.EVENT_READ, self._readable)
        self._timer = loop.call_later(seconds, lambda: self._time_out(seconds))

    def stop(self, meta: Dict[str, Any], why: str) -> None:
        if not self._over:
            self._finish(wire.Result(self._op_id, False, why.encode(), meta))

    def _time_out(self, seconds: float) -> None:
        self.stop({"timed_out": True}, f"Stopped: the operation took more than {seconds:g} s.")

    def _readable(self, _mask: int) -> None:
        budget = DRAIN_BYTES
        while budget > 0:
            try:
                data = os.read(self._child.answers, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._finish(read_answer(self._op_id, b"".join(self._answer)) or failed(self._op_id, KILLED))
                return
            budget -= len(data)
            self._size += len(data)
            if self._size > wire.MAX_BODY + wire.MAX_HEADER:
                self.stop({}, "The answer is too large to send.")
                return
            self._answer.append(data)

    def _finish(self, result: wire.Result) -> None:
        self._over = True
        self._timer.cancel()
        self._loop.forget(self._child.answers)
        self._child.end()
        self._done(result)


def failed(op_id: str, why: str, meta: Optional[Dict[str, Any]] = None) -> wire.Result:
    """An error result that says `why`."""
    return wire.Result(op_id, False, why.encode("utf-8", "replace"), meta or {})
