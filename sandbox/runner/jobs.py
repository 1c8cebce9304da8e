"""File operations, each in a child that does nothing else meanwhile.

Above: `core`. Below: `child`, `loop`. A FIFO, an endless file or a catastrophic pattern blocks only its own child,
which is killed when its time is over or when it is cancelled. One child that did its call quickly is kept a while
for the next; a sandbox that only runs commands has none. It knows nothing of what the operations do.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Optional

from sandbox import wire
from sandbox.runner.child import MAX_HANDED, Child
from sandbox.runner.loop import Loop, Timer
from sandbox.runner.output import DRAIN_BYTES, READ_BYTES

JOB_SECONDS = 120.0
"""A file operation is quick; two minutes is a search through a very large tree."""
MAX_JOBS = 16
"""Children at once; further ones wait. More would only share the same cores and eat the pids limit."""
MAX_WAITING = 256
"""Operations that wait for a child; more are refused."""
KEEP_SECONDS = 60.0
"""For the kept child to be needed again: about 2 MB, given back by a sandbox that waits for its model or its human."""
KEEP_CALLS = 100
"""A child is then replaced: what an operation may leave behind stays small, and forking is a hundredth of the cost."""
QUICK_SECONDS = 1.0
SMALL_BYTES = 1 << 20
"""A child whose call took longer, or whose answer was larger, may have grown: it is not kept."""
KILLED = "The operation was killed before it ended (out of memory, or by another process)."

Done = Callable[[wire.Result], None]
Ended = Callable[[Optional[wire.Result], Optional[Child]], None]
"""The result, None where the call was never begun; and the child, where it may be kept."""


class Jobs:
    """Runs calls in children, MAX_JOBS at once, in the order they came."""

    def __init__(self, loop: Loop, workspace: str, seconds: float = JOB_SECONDS) -> None:
        self._loop, self._workspace, self._seconds = loop, workspace, seconds
        self._running: Dict[str, Job] = {}
        self._waiting: Deque[Any] = deque()
        self._kept: Optional[Child] = None
        self._patience: Optional[Timer] = None

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
        self._waiting.clear()
        for job in list(self._running.values()):
            job.stop({"cancelled": True}, "The runner ends.")
        self._let_go()

    def _start_next(self) -> None:
        while self._waiting and len(self._running) < MAX_JOBS:
            call, done = self._waiting.popleft()
            try:
                child = self._child(call)
            except OSError as error:
                done(failed(call.op_id, f"The sandbox cannot start a process: {error.strerror}. Stop some first."))
                continue
            self._running[call.op_id] = Job(self._loop, call.op_id, child, self._seconds, self._ended(call, done))

    def _ended(self, call: wire.Call, done: Done) -> Ended:
        def ended(result: Optional[wire.Result], child: Optional[Child]) -> None:
            self._running.pop(call.op_id, None)
            if child is not None:
                self._keep(child)
            if result is None:
                self._waiting.appendleft((call, done))
            else:
                done(result)
            self._start_next()

        return ended

    # --- the kept child -----------------------------------------------------------------------------------------------

    def _child(self, call: wire.Call) -> Child:
        """One that does the call: the kept one, where that can have it, or one forked with it."""
        if self._kept is not None and len(call.body) <= MAX_HANDED:
            child, self._kept = self._kept, None
            if child.hand(call):
                return child
            child.end()
        return Child(self._loop, self._workspace, call)

    def _keep(self, child: Child) -> None:
        """Have it for the next call, unless there is one or it is worn."""
        if self._kept is not None or child.calls >= KEEP_CALLS:
            child.end()
            return
        self._kept = child
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self._loop.call_later(KEEP_SECONDS, self._let_go)

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.end()
            self._kept = None


class Job:
    """One call in one child."""

    def __init__(self, loop: Loop, op_id: str, child: Child, seconds: float, done: Ended) -> None:
        self._loop, self._op_id, self._child, self._done = loop, op_id, child, done
        self._decoder = wire.Decoder()
        self._size = 0
        self._began = time.monotonic()
        self._over = False
        loop.selector.register(child.answers, selectors.EVENT_READ, self._readable)
        self._timer = loop.call_later(seconds, lambda: self._time_out(seconds))

    def stop(self, meta: Dict[str, Any], why: str) -> None:
        if not self._over:
            self._finish(wire.Result(self._op_id, False, why.encode(), meta), keep=False)

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
                untouched = self._child.untouched()
                self._finish(None if untouched else failed(self._op_id, KILLED), keep=False)
                return
            budget -= len(data)
            self._size += len(data)
            for frame in self._decoder.feed(data):
                quick = time.monotonic() - self._began < QUICK_SECONDS
                self._finish(wire.parse_result(frame), keep=quick and self._size < SMALL_BYTES)
                return

    def _finish(self, result: Optional[wire.Result], keep: bool) -> None:
        self._over = True
        self._timer.cancel()
        self._loop.forget(self._child.answers)
        if not keep:
            self._child.end()
        self._done(result, self._child if keep else None)


def failed(op_id: str, why: str, meta: Optional[Dict[str, Any]] = None) -> wire.Result:
    """An error result that says `why`."""
    return wire.Result(op_id, False, why.encode("utf-8", "replace"), meta or {})
