"""One bash call on its way: its files, its output, its clock.

Above: `shell`, which decides when a call starts, is stopped and is over. Below: `output`, `loop`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import stat
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from sandbox.runner import procs
from sandbox.runner.loop import Loop, Timer
from sandbox.runner.output import DRAIN_BYTES, Outputs, read_some
from sandbox.runner.supervisor import STATUS_FD
from sandbox.wire import Bash, Call, Result

LIVE_SECONDS = 0.1
LIVE_BYTES = 16 << 10
"""Live output: at most this much this often; enough for a reader's eye. The newest is sent, the result has it all."""
GRACE_SECONDS = 0.05
"""For output that trails the end of a call while something still holds the pipe (`> >(tee log)`)."""

Emit = Callable[[str, bytes], None]


class Command:
    """A call that the shell is running. Made when it starts, ended by `result`."""

    def __init__(self, loop: Loop, outputs: Outputs, emit: Emit, call: Call, operation: Bash) -> None:
        self.call, self.operation = call, operation
        self.nonce = os.urandom(8).hex()
        self.newer = "0"
        self.exit_code: Optional[int] = None
        self.stopped_by = ""
        self.notes: List[str] = []
        self.on_end_of_output: Callable[[], None] = lambda: None
        self._loop, self._outputs, self._emit = loop, outputs, emit
        self._capture = outputs.capture(call.op_id)
        self._live = bytearray()
        self._timers: Dict[str, Timer] = {}
        self._started = time.monotonic()
        self._pipe = -1
        self._paths: Tuple[str, str] = ("", "")

    def prepare(self, folders: Sequence[str], last_tick: int) -> bytes:
        """Make the script and the output pipe; returns what to type into the shell. `last_tick` is when the call
        before it ended. Raises OSError."""
        script, fifo = make_files(folders, self.nonce, (self.operation.command or "").encode("utf-8", "surrogatepass"))
        self._paths = (script, fifo)
        self._pipe = open_fifo(fifo)
        self._loop.selector.register(self._pipe, selectors.EVENT_READ, self._readable)
        self.newer = since_now(last_tick)
        self._started = time.monotonic()
        # Sourced, not eval'd: in a sourced file bash keeps silent about jobs, and an interrupt still abandons it.
        run = f"\\. {quote(script)} </dev/null >{quote(fifo)} 2>&1 {STATUS_FD}>&-\n"
        return run.encode() + self.status_line()

    def status_line(self) -> bytes:
        """Makes the shell report the exit code and directory under this call's nonce. A line of its own: an interrupt
        discards the line that it meets."""
        return f'\\builtin printf \'%s\\0%s\\0%s\\0\' {self.nonce} "$?" "$PWD" >&{STATUS_FD}\n'.encode()

    def after(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        """Start the timer `name`, ended with the command at the latest; an older one of that name is cancelled."""
        self.cancel_timer(name)
        self._timers[name] = self._loop.call_later(seconds, callback)

    def cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def drain(self) -> bool:
        """Read what is there now. True at the end of the output (nobody holds the pipe any more)."""
        budget = DRAIN_BYTES
        while self._pipe >= 0 and budget > 0:
            data = read_some(self._pipe)
            if data is None:
                return False
            if not data:
                self._close_pipe()
                break
            budget -= len(data)
            self._capture.feed(data)
            self._live += data[-LIVE_BYTES:]
            if "live" not in self._timers:
                self.after("live", LIVE_SECONDS, self._send_live)
        return self._pipe < 0

    def result(self, ok: bool, meta: Dict[str, Any]) -> Result:
        """The end: timers and pipe are let go; a pipe that is still held goes on being read into a file. `tidy` is
        to follow."""
        for name in list(self._timers):
            self.cancel_timer(name)
        if self._pipe >= 0:
            self._loop.forget(self._pipe)
            path = self._outputs.listen_late(self.call.op_id, self._pipe)
            self._pipe = -1
            self.notes.append(f"A background process keeps the output open; what it still writes goes to {path}.")
        body, about = self._capture.finish()
        self._outputs.keep(self._capture.spill)
        about.update(meta)
        about["seconds"] = round(time.monotonic() - self._started, 3)
        if self.notes:
            about["notes"] = self.notes
        return Result(self.call.op_id, ok, body, about)

    def tidy(self) -> None:
        """Remove its files, once nobody waits for the result any more."""
        for path in self._paths:
            remove(path)

    def _readable(self, _mask: int) -> None:
        if self.drain():
            self.on_end_of_output()

    def _close_pipe(self) -> None:
        self._loop.forget(self._pipe)
        os.close(self._pipe)
        self._pipe = -1

    def _send_live(self) -> None:
        self._timers.pop("live", None)
        if self._live:
            self._emit(self.call.op_id, bytes(self._live[-LIVE_BYTES:]))
            self._live.clear()


def since_now(last_tick: int) -> str:
    """What the supervisor is told to find what this call starts. A tick is 10 ms: where the call before ended in this
    very one, the processes that live now are named; a look that calls with a model between them seldom need."""
    tick = procs.ticks_now()
    living = procs.pids() if tick <= last_tick else ()
    return ",".join(map(str, (tick, *living)))


def make_files(folders: Sequence[str], name: str, script: bytes) -> Tuple[str, str]:
    """A file with the script and a FIFO beside it, in the first folder that takes them (/tmp may be full).
    Returns their paths. Raises the last folder's OSError."""
    problem: Optional[OSError] = None
    for folder in folders:
        paths = f"{folder}/{name}.sh", f"{folder}/{name}.out"
        try:
            write_new(paths[0], script)
            os.mkfifo(paths[1], 0o600)
            return paths
        except OSError as error:
            problem = error
            for path in paths:
                remove(path)
    raise problem or OSError("no folder for the command's files")


def write_new(path: str, data: bytes) -> None:
    """A file that was not there before. Its folder is made when it is missing: the agent may have removed it. Raises
    OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, flags, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def open_fifo(path: str) -> int:
    """The reading end, non-blocking. Raises OSError, also when it is no FIFO (any more)."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} was replaced")
    return fd


def remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def quote(text: str) -> str:
    """As one word of the shell's."""
    return "'" + text.replace("'", "'\\''") + "'"
