"""File operations, each in a short-lived forked child.

Above: `core`. Below: `files` (in the child), `loop`. A FIFO, an endless file or a catastrophic pattern blocks only its
own child, which is killed when its time is over or when it is cancelled. It knows nothing of what the operations do.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import struct
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NoReturn, Optional

from sandbox import wire
from sandbox.runner import procs
from sandbox.runner.loop import Loop
from sandbox.runner.output import DRAIN_BYTES, READ_BYTES

JOB_SECONDS = 120.0
"""A file operation is quick; two minutes is a search through a very large tree."""
MAX_JOBS = 16
"""Children at once; further ones wait. More would only share the same cores and eat the pids limit."""
MAX_WAITING = 256
"""Operations that wait for a child; more are refused."""
_SIZE = struct.Struct("!I")

Done = Callable[[wire.Result], None]


class Jobs:
    """Runs calls in children, MAX_JOBS at once, in the order they came."""

    def __init__(self, loop: Loop, workspace: str, seconds: float = JOB_SECONDS) -> None:
        self._loop, self._workspace, self._seconds = loop, workspace, seconds
        self._running: Dict[str, Job] = {}
        self._waiting: Deque[Any] = deque()

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
        for job in list(self._running.values()):
            job.stop({"cancelled": True}, "The runner ends.")

    def _start_next(self) -> None:
        while self._waiting and len(self._running) < MAX_JOBS:
            call, done = self._waiting.popleft()
            try:
                self._running[call.op_id] = Job(
                    self._loop, call, self._workspace, self._seconds, self._ended(call.op_id, done)
                )
            except OSError as error:
                done(failed(call.op_id, f"The sandbox cannot start a process: {error.strerror}. Stop some first."))

    def _ended(self, op_id: str, done: Done) -> Done:
        def ended(result: wire.Result) -> None:
            self._running.pop(op_id, None)
            done(result)
            self._start_next()

        return ended


class Job:
    """One call in one child."""

    def __init__(self, loop: Loop, call: wire.Call, workspace: str, seconds: float, done: Done) -> None:
        self._loop, self._call, self._done = loop, call, done
        self._answer: List[bytes] = []
        self._size = 0
        self._over = False
        preload()
        self._fd, write_fd = os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._fd)
            os.close(write_fd)
            raise
        if self._pid == 0:
            work(call, workspace, write_fd)
        os.close(write_fd)
        os.set_blocking(self._fd, False)
        loop.watch_child(self._pid, lambda _code: None)
        loop.selector.register(self._fd, selectors.EVENT_READ, self._readable)
        self._timer = loop.call_later(seconds, lambda: self._time_out(seconds))

    def stop(self, meta: Dict[str, Any], why: str) -> None:
        if not self._over:
            self._finish(wire.Result(self._call.op_id, False, why.encode(), meta))

    def _time_out(self, seconds: float) -> None:
        self.stop({"timed_out": True}, f"Stopped: the operation took more than {seconds:g} s.")

    def _readable(self, _mask: int) -> None:
        budget = DRAIN_BYTES
        while budget > 0:
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._finish(read_answer(self._call.op_id, b"".join(self._answer)))
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
        self._loop.forget(self._fd)
        os.close(self._fd)
        if self._pid in self._loop.children():
            with contextlib.suppress(OSError):
                os.killpg(self._pid, signal.SIGKILL)  # with whatever it started
        self._done(result)


def preload() -> None:
    """Import the operations here, once, so that no child pays for it."""
    from sandbox.runner import files  # noqa: F401


def work(call: wire.Call, workspace: str, fd: int) -> NoReturn:
    """The child's life: do it, write the answer, end."""
    try:
        os.setpgid(0, 0)
        procs.die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from sandbox.runner import files

        try:
            ok, body, meta = files.perform(call.operation, call.body, workspace)
        except Exception as error:  # a bug or a hostile file: the model is told, the runner lives
            ok, body, meta = False, f"{call.operation.kind} failed: {type(error).__name__}: {error}".encode(), {}
        header = json.dumps({"ok": ok, "meta": meta}).encode()
        answer = memoryview(_SIZE.pack(len(header)) + header + body)
        while answer:
            answer = answer[os.write(fd, answer) :]
    finally:
        os._exit(0)


def read_answer(op_id: str, answer: bytes) -> wire.Result:
    """The result in what a child wrote; a child that died first wrote less."""
    try:
        size = _SIZE.unpack_from(answer)[0]
        header = json.loads(answer[_SIZE.size : _SIZE.size + size])
        return wire.Result(op_id, header["ok"], answer[_SIZE.size + size :], header["meta"])
    except (struct.error, ValueError):
        return failed(op_id, "The operation was killed before it ended (out of memory, or by another process).")


def failed(op_id: str, why: str, meta: Optional[Dict[str, Any]] = None) -> wire.Result:
    """An error result that says `why`."""
    return wire.Result(op_id, False, why.encode("utf-8", "replace"), meta or {})
