"""The runner's event loop: file objects, timers and children, waited for together.

Above: everything else in the runner registers callbacks here. Below: `selectors`, SIGCHLD.
Convention for file objects: `loop.selector.register(fileobj, events, callback)`; the loop calls `callback(mask)`.
It does not know frames, shells or jobs.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import selectors
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple


class Timer:
    """A callback to come. `cancel` makes it never come."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Optional[Callable[[], None]] = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Runs callbacks on one thread until `stop`."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._timers: List[Tuple[float, int, Timer]] = []
        self._count = 0
        self._children: Dict[int, Callable[[int], None]] = {}
        self._running = True
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler must exist for the wakeup fd to be written
        self.selector.register(self._wake_read, selectors.EVENT_READ, self._reap)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, timer))
        return timer

    def watch_child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call `callback(exit code)` (128 + number for a signal) when the child `pid` has ended."""
        self._children[pid] = callback

    def children(self) -> List[int]:
        """Children somebody waits for. Any other child of this process is an orphan it adopted."""
        return list(self._children)

    def forget(self, fileobj: Any) -> None:
        """Unregister, if registered."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(fileobj)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            for key, mask in self.selector.select(self._next_timeout()):
                # an earlier callback of this batch may have closed it, and its number may have a new owner
                if self.selector.get_map().get(key.fileobj) is key:
                    self._guard(key.fileobj, key.data, mask)
            self._run_timers()

    def _next_timeout(self) -> Optional[float]:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                self._guard(None, timer.callback)

    def _guard(self, fileobj: Any, callback: Callable[..., None], *arguments: int) -> None:
        """PID 1 outlives its own mistakes: one is written to stderr, and the file that met it is let go."""
        try:
            callback(*arguments)
        except Exception:
            sys.excepthook(*sys.exc_info())
            if fileobj is not None and fileobj != self._wake_read:
                self.forget(fileobj)

    def _reap(self, _mask: int) -> None:
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass
        self.reap()

    def reap(self) -> None:
        """Collect every child that has ended, adopted orphans too: unreaped, they would fill the pids limit."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            callback = self._children.pop(pid, None)
            if callback is not None:
                self._guard(None, callback, exit_code(status))


def exit_code(status: int) -> int:
    """A wait status as shells write it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
