"""What the kernel is asked: prctl, descriptors, the table of processes, and the end of everything below a process.

Above: `supervisor`, `core`, `shell`, `child`. It decides nothing; callers say whom to spare.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import AbstractSet, Callable, Dict, List, NamedTuple, Sequence

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36

TABLE_TRIES = 20
"""A fork bomb may never hold still; the next round of killing sees what this one missed."""
STEP_SECONDS = 0.002
"""Pause between two rounds of killing: enough for the kernel to take the killed ones down."""


class Process(NamedTuple):
    """A row of the table. `start` is in clock ticks since boot (10 ms each), `state` the letter of /proc."""

    parent: int
    state: str
    start: int


def _prctl(option: int, value: int) -> None:
    # ctypes' C half alone: the Python half would cost 4 ms and 1 MB of every sandbox.
    try:
        import _ctypes

        self_handle = _ctypes.dlopen(None, 0)  # type: ignore[arg-type, unused-ignore]  # None: this very program
        _ctypes.call_function(_ctypes.dlsym(self_handle, "prctl"), (option, value, 0, 0, 0))
    except ImportError:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def adopt_orphans() -> None:
    """Descendants whose parent dies become children of this process, whatever they did to hide."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide() -> None:
    """Deny this process's memory, environment and descriptors to others of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Be killed when the process that forked this one ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def close_all(fds: Sequence[int]) -> None:
    """Close each of these descriptors."""
    for fd in fds:
        os.close(fd)


def close_others(keep: Sequence[int]) -> None:
    """For a forked child: let go of PID 1's descriptors. A pipe or socket held here would never end."""
    low = 3
    for fd in [*sorted(keep), 4096]:
        os.closerange(low, fd)
        low = fd + 1


def ticks_now() -> int:
    """Now, as the table's `start` counts. A process started from here on has at least this value."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def pids() -> List[int]:
    """The numbers of every process that /proc shows."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def table() -> Dict[int, Process]:
    """Every process that /proc shows, zombies included.

    /proc is read row by row: a process whose parent ended meanwhile seems to hang in the air and would be overlooked.
    So the table is read again until every parent is in it, TABLE_TRIES times at most.
    """
    for _ in range(TABLE_TRIES):
        rows = _read_table()
        if all(row.parent == 0 or row.parent in rows for row in rows.values()):
            break
    return rows


def _read_table() -> Dict[int, Process]:
    rows = {}
    for pid in pids():
        try:
            fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
            try:
                raw = os.read(fd, 1024)
            finally:
                os.close(fd)
        except OSError:
            continue  # it ended meanwhile
        fields = raw[raw.rfind(b")") + 2 :].split()
        if len(fields) > 19:
            rows[pid] = Process(int(fields[1]), fields[0].decode(), int(fields[19]))
    return rows


def below(
    rows: Dict[int, Process], root: int, through: AbstractSet[int], since: int = 0, keep: AbstractSet[int] = frozenset()
) -> List[int]:
    """The living descendants of `root` that started at tick `since` or later, parents first.

    An older process is spared with all below it, unless it is in `through`: then only its children are looked at.
    `keep` is spared likewise. Scans parents instead of /proc/PID/task/*/children, which gVisor lacks.
    """
    children: Dict[int, List[int]] = {}
    for pid, row in rows.items():
        children.setdefault(row.parent, []).append(pid)
    found, todo = [], list(children.get(root, ()))
    while todo:
        pid = todo.pop(0)
        if pid in through:
            todo += children.get(pid, ())
        elif pid in keep:
            continue
        elif rows[pid].start >= since:
            if rows[pid].state not in "ZX":
                found.append(pid)
            todo += children.get(pid, ())
    return found


def send(pids: List[int], number: int) -> None:
    """Signal each process that is still there."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def kill_round(victims: List[int]) -> None:
    """Stop all, so that none forks while the others die; then kill all."""
    send(victims, signal.SIGSTOP)
    send(victims, signal.SIGKILL)


def kill_all(find: Callable[[], List[int]], reap: Callable[[], None], seconds: float) -> int:
    """Kill what `find` finds until it finds nothing. How many are left when `seconds` are over (0 is success)."""
    deadline = time.monotonic() + seconds
    while True:
        victims = find()
        if not victims:
            return 0
        kill_round(victims)
        reap()
        if time.monotonic() > deadline:
            return len(victims)
        time.sleep(STEP_SECONDS)
        reap()
