"""What each frame from the server means.

Above: `__main__`. Below: `journal`, `shell`, `jobs`, `net`, `stream`. One owner at a time: the highest epoch that
attached; frames of a lower one are refused. An operation runs at most once in a life of the runner.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from sandbox import wire
from sandbox.runner import procs
from sandbox.runner.jobs import Jobs, failed
from sandbox.runner.journal import Journal
from sandbox.runner.loop import Loop
from sandbox.runner.output import Outputs
from sandbox.runner.shell import Services, Settings, Shell
from sandbox.runner.stream import Stream

MAX_SHELLS = 32
"""Threads with a live shell, each two processes of about 3 MB."""
ORPHAN_SECONDS = 2.0
"""For killing what a dead supervisor left, before everything but PID 1 is killed."""


class Options(NamedTuple):
    """The runner's flags."""

    workspace: str = "/workspace"
    home: str = ""
    max_timeout_ms: int = 3_600_000
    exit_on_eof: bool = False
    net: bool = False


class Runner:
    """Answers frames until the stream ends (with `exit_on_eof`) or for ever."""

    def __init__(self, loop: Loop, read_fd: int, write_fd: int, options: Options) -> None:
        self._loop, self._options = loop, options
        self._incarnation = os.urandom(16).hex()
        self._stream = Stream(loop, read_fd, write_fd, self.handle)
        self._stream.on_eof = self._input_ended
        self._journal = Journal()
        self._jobs = Jobs(loop, options.workspace)
        self._shells: Dict[str, Shell] = {}
        self._running: Dict[str, Callable[[str], bool]] = {}
        outputs = Outputs(loop, os.path.join(options.workspace, ".skiff", "outputs"))
        self._services = Services(loop, outputs, self._emit, self._kill_orphans)
        self._settings = shell_settings(options)
        self._verbs: Dict[str, Callable[[Dict[str, Any], wire.Frame], None]] = {
            "start": self._start,
            "cancel": self._cancel,
            "settle": self._settle,
            "ping": self._ping,
        }
        self._net: Any = None
        if options.net:
            from sandbox.runner.net import NetListener

            self._net = NetListener(loop.selector, self._stream.send)
            self._net.start()

    def handle(self, frame: wire.Frame) -> None:
        """Do what a frame says. A mistake of the runner's own fails the operation, never the stream."""
        try:
            self._handle(frame)
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            op_id = frame.header.get("op")
            if isinstance(op_id, str) and op_id in self._journal and self._journal.result(op_id) is None:
                self._done(failed(op_id, f"The sandbox's runner failed: {type(error).__name__}: {error}"))

    def _handle(self, frame: wire.Frame) -> None:
        if frame.type == "attach" and frame.epoch >= max(1, self._stream.epoch):
            self._attach(frame.epoch)
        elif frame.epoch < self._stream.epoch or self._stream.epoch == 0:
            self._refuse(f"epoch {frame.epoch} does not own this sandbox")
        elif frame.type in self._verbs:
            self._verbs[frame.type](frame.header, frame)
        elif frame.type.startswith("net.") and self._net is not None:
            self._net.handle(frame)
        else:
            self._refuse(f"frame type {frame.type!r} is not known here")

    def _attach(self, epoch: int) -> None:
        first = self._stream.epoch == 0
        if epoch > self._stream.epoch:
            self._stream.drop_pending()
            if self._net is not None:
                self._net.reset_all()
        self._stream.epoch = epoch
        hello = {"version": wire.VERSION, "incarnation": self._incarnation, "python": sys.version.split()[0]}
        self._send({"t": "hello", **hello, "ops": self._journal.states()})
        if first:
            self._beat()

    def _beat(self) -> None:
        self._send({"t": "beat"})
        self._loop.call_later(wire.BEAT_SECONDS, self._beat)

    def _send(self, header: Dict[str, Any], body: bytes = b"") -> None:
        self._stream.send(wire.Frame(header, body))

    def _refuse(self, why: str) -> None:
        self._send({"t": "refused", "why": why})

    # --- operations ---------------------------------------------------------------------------------------------------

    def _start(self, header: Dict[str, Any], frame: wire.Frame) -> None:
        op_id = header.get("op")
        if not isinstance(op_id, str):
            self._refuse("start without an op")
        elif op_id in self._journal:
            result = self._journal.result(op_id)
            if result is not None:
                self._stream.send(result.frame())
        else:
            self._start_new(op_id, frame)

    def _start_new(self, op_id: str, frame: wire.Frame) -> None:
        problem = self._journal.full()
        try:
            call = wire.parse_call(frame)
        except ValueError as error:
            problem = str(error)
        if problem:
            self._stream.send(failed(op_id, f"The sandbox did not take the operation: {problem}.").frame())
            return
        self._journal.begin(op_id)
        if isinstance(call.operation, wire.Bash):
            shell = self._shell(call.thread)
            if shell is None:
                self._done(failed(op_id, f"{MAX_SHELLS} threads have a shell already; no further one can be started."))
                return
            self._running[op_id] = shell.cancel
            shell.submit(call, call.operation, self._done)
        else:
            self._running[op_id] = self._jobs.cancel
            self._jobs.submit(call, self._done)

    def _shell(self, thread: str) -> Optional[Shell]:
        if thread not in self._shells:
            if len(self._shells) >= MAX_SHELLS:
                return None
            self._shells[thread] = Shell(self._services, self._settings)
        return self._shells[thread]

    def _done(self, result: wire.Result) -> None:
        self._running.pop(result.op_id, None)
        try:
            self._stream.send(result.frame())
        except ValueError as error:
            result = failed(result.op_id, f"The operation ended, but its result cannot be sent: {error}")
            self._stream.send(result.frame())
        self._journal.finish(result)

    def _emit(self, op_id: str, data: bytes) -> None:
        self._send({"t": "output", "op": op_id}, data)

    def _cancel(self, header: Dict[str, Any], _frame: wire.Frame) -> None:
        cancel = self._running.get(str(header.get("op")))
        if cancel is not None:
            cancel(str(header["op"]))

    def _settle(self, header: Dict[str, Any], _frame: wire.Frame) -> None:
        ops = header.get("ops")
        self._journal.settle(ops if isinstance(ops, list) else [])

    def _ping(self, header: Dict[str, Any], _frame: wire.Frame) -> None:
        self._send({"t": "pong", "n": header.get("n")})

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _kill_orphans(self, then: Callable[[], None]) -> None:
        """Kill this process's adopted children with all below them, in rounds, other shells and jobs spared."""
        self._kill_orphan_round(time.monotonic() + ORPHAN_SECONDS, then)

    def _kill_orphan_round(self, deadline: float, then: Callable[[], None]) -> None:
        self._loop.reap()
        victims = self._orphans()
        if not victims:
            then()
            return
        procs.kill_round(victims)
        if time.monotonic() > deadline:
            if os.getpid() == 1:  # one system call that nothing outruns; other threads' shells die too, and are told
                procs.send([-1], 9)
            then()
            return
        self._loop.call_later(procs.STEP_SECONDS, lambda: self._kill_orphan_round(deadline, then))

    def _orphans(self) -> List[int]:
        return procs.below(procs.table(), os.getpid(), set(), keep=set(self._loop.children()))

    def _input_ended(self) -> None:
        """A container's stdin stays open without an owner; with pipes the owner is gone for good."""
        if self._options.exit_on_eof:
            self.close()
            self._loop.stop()

    def close(self) -> None:
        self._jobs.close()
        for shell in self._shells.values():
            shell.close()


def shell_settings(options: Options) -> Settings:
    """Environment and folders of every shell."""
    home = options.home or os.path.join(options.workspace, ".home")
    env = dict(os.environ)
    env.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    env.setdefault("LANG", "C.UTF-8")
    # no terminal: programs shall neither colour, page nor ask
    env.update(HOME=home, TERM="dumb", PAGER="cat", GIT_TERMINAL_PROMPT="0")
    name = f".skiff-{os.urandom(4).hex()}"
    scratch = [os.path.join(folder, name) for folder in ("/tmp", "/dev/shm", os.path.join(options.workspace, ".skiff"))]
    return Settings(env, options.workspace, scratch, options.max_timeout_ms)
