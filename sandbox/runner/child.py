"""A forked child that does one file operation. It may be forked before there is one, and then waits for it.

Above: `jobs`. Below: `files` (in the child), `procs`. Forking takes milliseconds, most of them in copying pages that
both sides touch: a child that is there already saves them. It knows nothing of queues or time limits.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import struct
from typing import List, NoReturn, Optional

from sandbox import wire
from sandbox.runner import procs
from sandbox.runner.loop import Loop
from sandbox.runner.output import READ_BYTES

MAX_HANDED = 1 << 15
"""The largest payload that a waiting child is handed: with its header it fits a pipe, so one write is enough."""
_SIZE = struct.Struct("!I")


class Child:
    """PID 1's side of a child: its process and its two pipes."""

    def __init__(self, loop: Loop, workspace: str, call: Optional[wire.Call] = None) -> None:
        """Fork. It does `call` at once, or waits for `hand`. Raises OSError when no process or descriptor is left."""
        from sandbox.runner import files  # noqa: F401  # here, once, so that no child pays for it

        pipes: List[int] = []
        try:
            for _ in range(2):
                pipes += os.pipe()
            self._pid = os.fork()
        except OSError:
            procs.close_all(pipes)
            raise
        orders, self._orders, self.answers, answers = pipes
        if self._pid == 0:
            live(orders, answers, workspace, call)
        procs.close_all((orders, answers))
        os.set_blocking(self._orders, False)
        os.set_blocking(self.answers, False)
        self._lives = True
        loop.watch_child(self._pid, self._ended)

    def _ended(self, _code: int) -> None:
        self._lives = False

    def hand(self, call: wire.Call) -> bool:
        """Give a waiting child its call. False when it will do nothing of it: it was killed, or the call is large."""
        if not self._lives or len(call.body) > MAX_HANDED:
            return False
        procs.send([self._pid], signal.SIGCONT)  # the agent may have stopped it
        try:
            order = wire.encode(call.frame())
            return os.write(self._orders, order) == len(order)
        except (OSError, ValueError):
            return False

    def end(self) -> None:
        """Close the pipes, and kill it with whatever it started. Once only."""
        procs.close_all((self._orders, self.answers))
        if self._lives:
            procs.send([-self._pid, self._pid], signal.SIGKILL)  # its group, and it before it has made one


def live(orders: int, answers: int, workspace: str, call: Optional[wire.Call]) -> NoReturn:
    """The child's life: wait for the call where there is none yet, do it, write the answer, end."""
    try:
        os.setpgid(0, 0)
        procs.die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        procs.close_others((orders, answers))
        gc.disable()  # it would touch, and so copy, every page
        call = call or receive(orders)
        if call is not None:
            answer = memoryview(work(call, workspace))
            while answer:
                answer = answer[os.write(answers, answer) :]
    finally:
        os._exit(0)


def receive(orders: int) -> Optional[wire.Call]:
    """The call that `hand` wrote; None when none will come."""
    decoder = wire.Decoder()
    while True:
        data = os.read(orders, READ_BYTES)
        if not data:
            return None
        for frame in decoder.feed(data):
            return wire.parse_call(frame)


def work(call: wire.Call, workspace: str) -> bytes:
    """Do the call; its answer for `read_answer`."""
    from sandbox.runner import files

    try:
        ok, body, meta = files.perform(call.operation, call.body, workspace)
    except Exception as error:  # a bug or a hostile file: the model is told, the runner lives
        ok, body, meta = False, f"{call.kind} failed: {type(error).__name__}: {error}".encode(), {}
    header = json.dumps({"ok": ok, "meta": meta}).encode()
    return _SIZE.pack(len(header)) + header + body


def read_answer(op_id: str, answer: bytes) -> Optional[wire.Result]:
    """The result in what a child wrote; None when it died first and wrote less."""
    with contextlib.suppress(struct.error, ValueError):
        size = _SIZE.unpack_from(answer)[0]
        header = json.loads(answer[_SIZE.size : _SIZE.size + size])
        return wire.Result(op_id, header["ok"], answer[_SIZE.size + size :], header["meta"])
    return None
