"""A forked child that does file operations, one at a time.

Above: `jobs`. Below: `files` (in the child), `procs`. Forking and then copying the pages that both sides touch takes
milliseconds: a child that has done its call can be handed the next one. It knows nothing of queues or time limits.
"""

from __future__ import annotations

import gc
import os
import select
import signal
from typing import List, NoReturn

from sandbox import wire
from sandbox.runner import procs
from sandbox.runner.loop import Loop
from sandbox.runner.output import READ_BYTES

MAX_HANDED = 1 << 15
"""The largest payload that a waiting child is handed: with its header it fits a pipe, so one write is enough."""


class Child:
    """PID 1's side of a child: its process, and a pipe for each direction."""

    def __init__(self, loop: Loop, workspace: str, call: wire.Call) -> None:
        """Fork a child that does `call`. Raises OSError when the sandbox has no process or descriptor left."""
        from sandbox.runner import files  # noqa: F401  # here, once, so that no child pays for it

        pipes: List[int] = []
        try:
            for _ in range(2):
                pipes += os.pipe()
            self._pid = os.fork()
        except OSError:
            procs.close_all(pipes)
            raise
        self._unread, self._orders, self.answers, answers = pipes
        if self._pid == 0:
            live(self._unread, answers, workspace, call)
        os.close(answers)
        os.set_blocking(self._orders, False)
        os.set_blocking(self.answers, False)
        self.calls = 1
        self._lives = True
        loop.watch_child(self._pid, self._ended)

    def _ended(self, _code: int) -> None:
        self._lives = False

    def hand(self, call: wire.Call) -> bool:
        """Give a waiting child its next call. False when it was killed or the call does not fit the pipe: it has done
        nothing of it, and can only be ended."""
        if not self._lives:
            return False
        procs.send([self._pid], signal.SIGCONT)  # the agent may have stopped it
        self.calls += 1
        try:
            order = wire.encode(call.frame())
            return os.write(self._orders, order) == len(order)
        except (OSError, ValueError):
            return False

    def untouched(self) -> bool:
        """Of one that was killed: whether its call still lies in the pipe, so that another may do it. It takes a call
        out whole before it begins."""
        os.set_blocking(self._unread, False)
        try:
            return bool(os.read(self._unread, 1))
        except BlockingIOError:
            return False

    def end(self) -> None:
        """Close the pipes, and kill it with whatever it started. Once only."""
        procs.close_all((self._unread, self._orders, self.answers))
        if self._lives:
            procs.send([-self._pid, self._pid], signal.SIGKILL)  # its group, and it before it has made one


def live(orders: int, answers: int, workspace: str, call: wire.Call) -> NoReturn:
    """The child's life: do a call, write its result, wait for the next; end when none will come."""
    try:
        os.setpgid(0, 0)
        procs.die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        procs.close_others((orders, answers))
        gc.freeze()  # what PID 1 had is not looked at, and so not copied
        decoder = wire.Decoder()
        answer(answers, call, workspace)
        while True:
            select.select([orders], [], [])  # waiting in read, it would take out a call with its kill on the way
            data = os.read(orders, READ_BYTES)
            if not data:
                break
            for frame in decoder.feed(data):
                answer(answers, wire.parse_call(frame), workspace)
    finally:
        os._exit(0)


def answer(answers: int, call: wire.Call, workspace: str) -> None:
    """Do a call and write its result as a frame."""
    result = work(call, workspace)
    try:
        data = wire.encode(result.frame())
    except ValueError:
        data = wire.encode(wire.Result(call.op_id, False, b"The answer is too large to send.").frame())
    left = memoryview(data)
    while left:
        left = left[os.write(answers, left) :]


def work(call: wire.Call, workspace: str) -> wire.Result:
    """The result of a call, whatever happens."""
    from sandbox.runner import files

    try:
        ok, body, meta = files.perform(call.operation, call.body, workspace)
        return wire.Result(call.op_id, ok, body, meta)
    except Exception as error:  # a bug or a hostile file: the model is told, the runner lives
        why = f"{call.kind} failed: {type(error).__name__}: {error}"
        return wire.Result(call.op_id, False, why.encode("utf-8", "replace"))
