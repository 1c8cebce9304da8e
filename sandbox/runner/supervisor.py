"""The process above each bash.

Above: `shell` in PID 1, over two pipes. Below: bash and everything that it starts. As a child subreaper it stays the
ancestor of whatever a command does to hide (setsid, double fork, nohup), so all of it can be found and killed; and as
a process of its own it can take its time for that while PID 1 serves others. The agent may kill it: then PID 1 kills
what is left. It knows nothing of commands, time limits or output.

Lines from PID 1                                  answered by
    interrupt NEWER    signal the shell and what is newer than the call, as Ctrl-C would
    sweep NEWER        kill what is newer than the call, not the shell      swept LEFT
    renew NEWER CWD    the same and the shell too; start a new one          up PID | failed MESSAGE
    spawn CWD          start a shell (after the old one ended)              up PID | failed MESSAGE
NEWER is `TICK` or `TICK,PID,...`: what began at clock tick TICK or later, but for these (and all below them), which
an earlier call started within that same tick. Unasked: `exit CODE` when the shell ends. CWD is hexadecimal.
The end of the pipe means: kill all, and end.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import Dict, List, NamedTuple, NoReturn

from sandbox.runner import procs
from sandbox.runner.loop import exit_code

STATUS_FD = 250
"""Where the shell reports the end of a command: above what scripts use, below bash's own 255 and any usual limit."""
KILL_SECONDS = 4.0
"""For killing a tree; 5 to 40 ms are usual, a fork bomb on a loaded machine takes longest."""
BASH = ["bash", "--norc", "--noprofile", "--noediting", "-i"]


class Pipes(NamedTuple):
    """The supervisor's ends: commands in, reports out, and the two descriptors that each new shell inherits."""

    commands: int
    reports: int
    shell_input: int
    shell_status: int


def run(pipes: Pipes, env: Dict[str, str], cwd: str, home: str) -> NoReturn:
    """The life of a freshly forked supervisor. Never returns."""
    try:
        os.setsid()
        procs.close_others(pipes)
        procs.adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # `kill $PPID` by mistake shall not cost the shell
        Supervisor(pipes, env, home).serve(cwd)
    finally:
        os._exit(1)


class Supervisor:
    """Obeys PID 1, reaps, reports."""

    def __init__(self, pipes: Pipes, env: Dict[str, str], home: str) -> None:
        self._pipes, self._env, self._home = pipes, env, home
        self._shell = 0
        self._lines = b""
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        os.set_blocking(pipes.shell_input, True)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def serve(self, cwd: str) -> None:
        self._start(cwd)
        while True:
            ready = select.select([self._pipes.commands, self._wake], [], [])[0]
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if self._pipes.commands in ready and not self._read_commands():
                self._kill("0", and_shell=True)
                return

    def _read_commands(self) -> bool:
        data = os.read(self._pipes.commands, 65536)
        self._lines += data
        *lines, self._lines = self._lines.split(b"\n")
        for line in lines:
            self._obey(*line.decode().split(" "))
        return bool(data)

    def _obey(self, verb: str, *words: str) -> None:
        if verb == "interrupt":
            self._interrupt(words[0])
        elif verb == "sweep":
            self._report(f"swept {self._kill(words[0], and_shell=False)}")
        elif verb == "renew":
            self._kill(words[0], and_shell=True)
            self._start(bytes.fromhex(words[1]).decode(errors="surrogateescape"))
        elif verb == "spawn":
            self._start(bytes.fromhex(words[0]).decode(errors="surrogateescape"))

    def _report(self, line: str) -> None:
        os.write(self._pipes.reports, line.encode() + b"\n")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._shell:
                self._shell = 0
                self._report(f"exit {exit_code(status)}")

    def _find(self, newer: str) -> List[int]:
        since, *keep = map(int, newer.split(","))
        return procs.below(procs.table(), os.getpid(), {self._shell}, since, frozenset(keep))

    def _interrupt(self, newer: str) -> None:
        """Ctrl-C for a shell without a terminal. All are stopped first and the shell is signalled before its children:
        bash abandons the whole command only if it has the signal when a child dies of it, else it goes on with the
        next command of the line."""
        pids = ([self._shell] if self._shell else []) + self._find(newer)
        for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGCONT):
            procs.send(pids, number)

    def _kill(self, newer: str, and_shell: bool) -> int:
        if and_shell and self._shell:
            procs.send([self._shell], signal.SIGKILL)
        return procs.kill_all(lambda: self._find(newer), self._reap, KILL_SECONDS)

    def _start(self, cwd: str) -> None:
        """Fork a new shell. What the old one left unread in its input must not reach the new one."""
        self._reap_shell()
        os.set_blocking(self._pipes.shell_input, False)
        try:
            while os.read(self._pipes.shell_input, 65536):
                pass
        except BlockingIOError:
            pass
        os.set_blocking(self._pipes.shell_input, True)
        try:
            pid = os.fork()
        except OSError as error:
            self._report(f"failed {error.strerror}")
            return
        if pid == 0:
            self._become_bash(cwd)
        self._shell = pid
        self._report(f"up {pid}")

    def _reap_shell(self) -> None:
        """Wait for a killed shell, so that its end is not taken for that of the new one."""
        if self._shell:
            procs.send([self._shell], signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._shell, 0)
            self._shell = 0

    def _become_bash(self, cwd: str) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            for number in (
                signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT,
                signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ,
            ):  # fmt: skip
                signal.signal(number, signal.SIG_DFL)  # an ignored one would stay ignored in all that bash starts
            os.setsid()
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(self._pipes.shell_input, 0)
            os.dup2(null, 1)  # prompts and remarks on missing job control are nobody's output
            os.dup2(null, 2)
            os.dup2(self._pipes.shell_status, STATUS_FD)
            for folder in (cwd, self._home, "/"):
                try:
                    os.chdir(folder)
                    break
                except OSError:
                    continue
            os.execvpe(BASH[0], BASH, self._env)
        except OSError as error:
            self._report(f"failed {BASH[0]}: {error.strerror}")
        finally:
            os._exit(127)
