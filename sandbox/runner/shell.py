"""One live bash for a thread: its queue of calls, their time limits, and how each ends.

Above: `core`. Below: `supervisor` (a process, over two pipes), `command`. Directory, variables, functions and
background jobs live from call to call; calls run one after another. How a call can end:

    status      the shell reports exit code and directory                      done
    exit        the shell ended (`exit`, `exec`, `set -e`, kill)               new shell, note, done
    time, cancel   interrupt a few times; status came: sweep what is newer     done
                it did not come: renew, killing the shell too                  note, done
    lost        the supervisor died                                            PID 1 kills what is left, note, done

It does not know frames or the journal.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections import deque
from typing import Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple

from sandbox.runner import procs, supervisor
from sandbox.runner.command import GRACE_SECONDS, Command, Emit
from sandbox.runner.jobs import Done, failed
from sandbox.runner.loop import Loop
from sandbox.runner.output import Outputs, read_some
from sandbox.wire import Bash, Call, Result

DEFAULT_TIMEOUT_MS = 120_000
MAX_QUEUE = 64
"""Calls of one thread that wait; the model sends a handful at once."""
INTERRUPT_PAUSES = (0.01, 0.02, 0.04, 0.08, 0.2)
"""Waits after each interrupt, seconds. A program that handles the first one lets bash go on with the next command of
the line, so the second comes soon; a shell that has not answered after a third of a second is stuck."""
ANSWER_SECONDS = supervisor.KILL_SECONDS + 2
"""For an answer of the supervisor; after it the supervisor is killed."""
MAX_STATUS = 1 << 16
"""Unread bytes of the status pipe: a few paths. More is not ours."""
TIMED_OUT, CANCELLED = 124, 130
"""Exit codes of stopped calls, as `timeout` and Ctrl-C give them."""
SETUP = b"set +H +o history; unset HISTFILE; PS1= PS2=\n"
"""No history expansion (an exclamation mark is text), no history file, no prompt."""


class Settings(NamedTuple):
    """What every shell of a runner is given."""

    env: Dict[str, str]
    workspace: str
    scratch: Sequence[str]
    """Folders for scripts and output pipes, the first usable one is taken."""
    max_timeout_ms: int


class Services(NamedTuple):
    """What a shell needs of the runner around it."""

    loop: Loop
    outputs: Outputs
    emit: Emit
    kill_orphans: Callable[[Callable[[], None]], None]
    """Kill the processes whose supervisor died, then call back."""


class Link:
    """PID 1's ends of the pipes to a supervisor and its shell."""

    def __init__(self, settings: Settings, cwd: str) -> None:
        """Fork the supervisor. Raises OSError when the sandbox has no process or descriptor left."""
        pipes: List[int] = []
        try:
            for _ in range(4):
                pipes += os.pipe()
            self.pid = os.fork()
        except OSError:
            procs.close_all(pipes)
            raise
        commands, self.commands, self.reports, reports, shell_input, self.input, self.status, status = pipes
        theirs = supervisor.Pipes(commands, reports, shell_input, status)
        if self.pid == 0:
            supervisor.run(theirs, settings.env, cwd, settings.workspace)
        procs.close_all(theirs)
        for fd in (self.commands, self.reports, self.input, self.status):
            os.set_blocking(fd, False)

    def close(self, loop: Loop) -> None:
        for fd in (self.reports, self.status):
            loop.forget(fd)
        procs.close_all((self.commands, self.reports, self.input, self.status))


class Shell:
    """The shell of one thread."""

    def __init__(self, services: Services, settings: Settings) -> None:
        self._services, self._loop, self._settings = services, services.loop, settings
        self._queue: Deque[Tuple[Call, Bash, Done]] = deque()
        self._link: Optional[Link] = None
        self._shell_lives = False
        self._cwd = settings.workspace
        self._command: Optional[Command] = None
        self._done: Done = lambda result: None
        self._next: Callable[[], None] = lambda: None
        self._state = "idle"
        self._last_tick = 0
        self._news: List[str] = []
        self._status = self._reports = b""

    # --- what core asks -----------------------------------------------------------------------------------------------

    def submit(self, call: Call, operation: Bash, done: Done) -> None:
        """Queue a call; `done` gets its result, at once if it is refused."""
        problem = refusal(operation, self._settings.max_timeout_ms)
        if not problem and len(self._queue) >= MAX_QUEUE:
            problem = f"{MAX_QUEUE} commands wait for this shell already. Wait for their results first."
        if problem:
            done(failed(call.op_id, problem))
            return
        self._queue.append((call, operation, done))
        self._start_next()

    def cancel(self, op_id: str) -> bool:
        """Stop a call, waiting or running. False when it is not here (any more)."""
        if self._command is not None and self._command.call.op_id == op_id:
            self._stop("cancelled")
            return True
        for waiting in self._queue:
            if waiting[0].op_id == op_id:
                self._queue.remove(waiting)
                waiting[2](failed(op_id, "Cancelled before it began.", {"cancelled": True}))
                return True
        return False

    def close(self) -> None:
        """Let the supervisor kill everything and end."""
        if self._link is not None:
            self._link.close(self._loop)
            self._link = None

    # --- a call begins ------------------------------------------------------------------------------------------------

    def _start_next(self) -> None:
        if self._command is not None or not self._queue:
            return
        call, operation, self._done = self._queue.popleft()
        command = Command(self._loop, self._services.outputs, self._services.emit, call, operation)
        command.notes += self._news
        self._news = []
        self._command = command
        if operation.restart:
            self._restart(command)
        elif self._shell_lives:
            self._type(command)
        else:
            self._bring_up(command, lambda: self._type(command))

    def _restart(self, command: Command) -> None:
        """A fresh shell in the workspace; everything the old one started is killed."""
        self._cwd = self._settings.workspace
        if self._link is None:
            self._bring_up(command, lambda: self._type(command))
        else:
            self._tell("restarting", f"renew 0 {self._hex_cwd()}", lambda: self._type(command))

    def _bring_up(self, command: Command, then: Callable[[], None]) -> None:
        """There is no shell, or none any more: start one in the last directory."""
        if self._link is not None:
            self._tell("starting", f"spawn {self._hex_cwd()}", then)
            return
        self._state, self._next = "starting", then
        try:
            self._link = Link(self._settings, self._cwd)
        except OSError as error:
            self._refuse(command, error.strerror)
            return
        self._status = self._reports = b""
        pid = self._link.pid
        self._loop.watch_child(pid, lambda _code: None)
        self._loop.selector.register(self._link.reports, selectors.EVENT_READ, self._report_readable)
        self._loop.selector.register(self._link.status, selectors.EVENT_READ, self._status_readable)
        self._expect_answer(command)

    def _type(self, command: Command) -> None:
        """Give the shell the command; from here its clock runs."""
        if command.stopped_by or not command.operation.command:
            self._finish(command)
            return
        link = self._link
        try:
            text = command.prepare(self._settings.scratch, self._last_tick)
            if link is None:
                raise OSError("the shell is gone")
            os.write(link.input, text)
        except OSError as error:
            self._refuse(command, str(error))
            return
        self._state = "running"
        timeout_ms = command.operation.timeout_ms or DEFAULT_TIMEOUT_MS
        command.after("limit", timeout_ms / 1000, lambda: self._stop("timed_out"))

    # --- a call ends --------------------------------------------------------------------------------------------------

    def _status_readable(self, _mask: int) -> None:
        data = read_some(self._link.status) if self._link else None
        if not data:
            return
        self._status = (self._status + data)[-MAX_STATUS:]
        while self._status.count(b"\0") >= 3:
            nonce, code, cwd, self._status = self._status.split(b"\0", 3)
            command = self._command
            if command is not None and nonce[-16:] == command.nonce.encode() and code.isdigit():
                self._cwd = os.fsdecode(cwd)
                self._status_came(command, int(code))

    def _status_came(self, command: Command, code: int) -> None:
        if self._state == "running":
            command.exit_code = code
            self._trail(command)
        elif self._state == "interrupting":
            command.cancel_timer("interrupt")
            self._tell("sweeping", f"sweep {command.newer}", lambda: self._trail(command))

    def _trail(self, command: Command) -> None:
        """The command is over. Take what it wrote last; wait a little if something still holds the pipe."""
        self._state = "trailing"
        command.cancel_timer("limit")
        if command.drain():
            self._finish(command)
            return
        command.on_end_of_output = lambda: self._finish(command)
        command.after("grace", GRACE_SECONDS, lambda: self._finish(command))

    def _stop(self, why: str) -> None:
        """Time is over, or the server cancelled."""
        command = self._command
        if command is None or command.stopped_by or self._state == "trailing":
            return
        command.stopped_by = why
        if self._state == "running":
            self._state = "interrupting"
            command.cancel_timer("limit")
            self._interrupt(command, 0)

    def _interrupt(self, command: Command, turn: int) -> None:
        if turn == len(INTERRUPT_PAUSES):
            self._replace(command, "It did not react to an interrupt, so the shell was killed.")
            return
        self._send(f"interrupt {command.newer}")
        if turn and self._link is not None:  # the earlier line may be what the interrupt met
            with contextlib.suppress(OSError):
                os.write(self._link.input, command.status_line())
        command.after("interrupt", INTERRUPT_PAUSES[turn], lambda: self._interrupt(command, turn + 1))

    def _replace(self, command: Command, why: str) -> None:
        """Kill the stuck shell with all that is newer than the call; start one in the old directory."""
        command.notes.append(
            f"{why} A new one was started in {self._cwd}: variables and functions are lost, files and older "
            "background processes are not."
        )
        self._tell("renewing", f"renew {command.newer} {self._hex_cwd()}", lambda: self._trail(command))

    def _shell_ended(self, code: int) -> None:
        """The supervisor reports the end of the shell: expected only when it was told to kill it."""
        self._shell_lives = False
        command, note = self._command, f"The shell ended (exit code {code})."
        if command is None or self._state == "trailing":
            self._news.append(f"{note} A new one was started in {self._cwd}: variables and functions are lost.")
        elif self._state in ("running", "interrupting"):
            command.cancel_timer("interrupt")
            command.exit_code = code
            command.notes.append(f"{note} A new one was started in {self._cwd}: variables and functions are lost.")
            verb = f"renew {command.newer}" if command.stopped_by else "spawn"
            self._tell("renewing", f"{verb} {self._hex_cwd()}", lambda: self._trail(command))

    def _finish(self, command: Command) -> None:
        """Answer, and go on with the next call."""
        self._state, self._command, self._last_tick = "idle", None, procs.ticks_now()
        if command.stopped_by == "timed_out":
            seconds = (command.operation.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000
            command.notes.insert(0, f"Timed out after {seconds:g} s; it was stopped with everything it had started.")
            result = command.result(False, {"exit_code": TIMED_OUT, "timed_out": True})
        elif command.stopped_by:
            command.notes.insert(0, "Cancelled; it was stopped with everything it had started.")
            result = command.result(False, {"exit_code": CANCELLED, "cancelled": True})
        elif command.exit_code is None:
            command.notes.insert(0, f"The shell was restarted in {self._cwd}.")
            result = command.result(True, {"exit_code": 0})
        else:
            if command.operation.restart:
                command.notes.insert(0, "The shell was restarted before the command.")
            result = command.result(True, {"exit_code": command.exit_code})
        self._answer(command, result)

    def _refuse(self, command: Command, why: Optional[str]) -> None:
        """The sandbox cannot run it: no process, no file, no descriptor left."""
        self._state, self._command = "idle", None
        command.notes.append(f"The sandbox cannot start it: {why}. Stop processes or delete files, then try again.")
        self._answer(command, command.result(False, {}))

    def _answer(self, command: Command, result: Result) -> None:
        done, self._done = self._done, lambda _result: None
        done(result)
        command.tidy()
        self._start_next()

    # --- the supervisor -----------------------------------------------------------------------------------------------

    def _hex_cwd(self) -> str:
        return os.fsencode(self._cwd).hex()

    def _tell(self, state: str, line: str, then: Callable[[], None]) -> None:
        """Send a verb and go on with `then` at its answer."""
        self._state, self._next = state, then
        if not line.startswith("sweep"):
            self._shell_lives = False
        self._send(line)
        if self._command is not None:
            self._expect_answer(self._command)

    def _send(self, line: str) -> None:
        if self._link is None:
            return
        procs.send([self._link.pid], signal.SIGCONT)  # the agent may have stopped it
        try:
            os.write(self._link.commands, line.encode() + b"\n")
        except OSError:
            procs.send([self._link.pid], signal.SIGKILL)

    def _expect_answer(self, command: Command) -> None:
        pid = self._link.pid if self._link else 0
        command.after("answer", ANSWER_SECONDS, lambda: procs.send([pid], signal.SIGKILL) if pid else None)

    def _report_readable(self, _mask: int) -> None:
        data = read_some(self._link.reports) if self._link else None
        if data is None:
            return
        if not data:
            self._lost()
            return
        *lines, self._reports = (self._reports + data).split(b"\n")
        for line in lines:
            verb, _, rest = line.decode("utf-8", "replace").partition(" ")
            self._reported(verb, rest)

    def _reported(self, verb: str, rest: str) -> None:
        if verb == "exit":
            self._shell_ended(int(rest))
        elif verb == "up":
            self._shell_lives = True
            if self._link is not None:
                os.write(self._link.input, SETUP)
            self._answered()
        elif verb == "swept":
            self._answered()
        elif verb == "failed" and self._command is not None:
            self._shell_lives = False
            if self._state == "renewing":  # the command itself is over: its result stands, the next call tries again
                self._command.notes.append(f"No new shell could be started: {rest}.")
                self._answered()
            else:
                self._refuse(self._command, rest)

    def _answered(self) -> None:
        if self._command is not None:
            self._command.cancel_timer("answer")
        then, self._next = self._next, lambda: None
        then()

    def _lost(self) -> None:
        """The supervisor was killed: its descendants are PID 1's children now, and nobody's jobs."""
        link, self._link, self._shell_lives = self._link, None, False
        if link is not None:
            procs.send([link.pid], signal.SIGKILL)  # it may only have closed its end
            link.close(self._loop)
        command = self._command
        note = f"The shell and its background processes were killed. A new one was started in {self._cwd}."
        if command is None or self._state == "trailing":
            self._news.append(note)
            self._kill_orphans(link, lambda: None)
            return
        for name in ("limit", "interrupt", "answer"):
            command.cancel_timer(name)
        command.notes.append(note)
        if command.exit_code is None:
            command.exit_code = 128 + signal.SIGKILL
        self._state = "lost"
        self._kill_orphans(link, lambda: self._trail(command))

    def _kill_orphans(self, link: Optional[Link], then: Callable[[], None]) -> None:
        """Once the supervisor is reaped: its pipe ends before its descendants become PID 1's."""
        if link is not None and link.pid in self._loop.children():
            self._loop.watch_child(link.pid, lambda _code: self._services.kill_orphans(then))
        else:
            self._services.kill_orphans(then)


def refusal(operation: Bash, max_timeout_ms: int) -> str:
    """What is wrong with a call, in words for the model; empty when nothing is."""
    command, timeout = operation.command, operation.timeout_ms
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        return "timeout_ms must be a whole number of milliseconds, 0 for the default."
    if timeout > max_timeout_ms:
        return f"timeout_ms {timeout} is more than the allowed {max_timeout_ms}. Run it in the background instead."
    if command is not None and not isinstance(command, str):
        return "command must be text."
    if not command and not operation.restart:
        return "command is required (or restart: true)."
    if command and "\0" in command:
        return "command contains a NUL byte, which bash cannot run."
    return ""
