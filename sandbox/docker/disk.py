"""The soft disk bound of a sandbox: when to measure, what a measurement means, and what the model is told.

Above: `container`. Below: nothing; the measuring itself is handed in. An engine without a quota file system cannot
bound a volume, so the workspace is measured after operations and every few seconds while one runs. A single file has
a hard bound besides (`options`, fsize).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from sandbox.wire import Result

INTERVAL_SECONDS = 5.0
"""While operations run. A disk that takes 500 MB/s lets 2.5 GB through in this time: the bound is soft."""
LONG_SECONDS = 1.0
"""An operation that ran at least this long is measured at its end, whenever the last measurement was."""
NEAR = 0.8
"""From this share of the bound on, the end of every operation is measured: the interval is too coarse there."""

Verdict = Literal["fine", "over", "growing"]
Measure = Callable[[], Awaitable[int]]


def judge(used: int, before: int, bound: int) -> Verdict:
    """Bytes used now and at the measurement before, against the bound. "over" alone must not stop a command: it may be
    the `rm` that puts things right."""
    if used <= bound:
        return "fine"
    return "growing" if used > before else "over"


def is_due(since_last: float, lasted: float, used: int, bound: int) -> bool:
    """Whether the end of an operation that lasted so many seconds calls for a measurement."""
    return since_last >= INTERVAL_SECONDS or lasted >= LONG_SECONDS or used >= NEAR * bound


def explain(result: Result, used: int, bound: int, stopped: bool) -> Result:
    """The result with a note that says that the bound is passed and what to do; failed, where it was stopped for it."""
    what = "the command was stopped: " if stopped else ""
    note = (
        f"{what}the workspace holds {used >> 20} MB, its bound is {bound >> 20} MB; delete what is not needed, "
        "or commands that write more will be stopped"
    )
    found = result.meta.get("notes")
    notes = [*(found if isinstance(found, list) else []), note]
    return result._replace(ok=result.ok and not stopped, meta={**result.meta, "notes": notes, "disk_exceeded": True})


class DiskBound:
    """The bound of one workspace. All operations of a sandbox share its measurements."""

    def __init__(self, bound: int, measure: Measure) -> None:
        self.bound = bound
        self.used = 0
        self._measure = measure
        self._last = time.monotonic()  # a new workspace is empty: the first command need not wait for a measurement
        self._verdict: Verdict = "fine"
        self._measuring = asyncio.Lock()

    async def check(self) -> Verdict:
        """Measure, unless that was done within the interval, and judge."""
        async with self._measuring:
            if time.monotonic() - self._last < INTERVAL_SECONDS:
                return self._verdict  # "growing" stays said: every operation that runs beside must hear it
            return await self._look()

    async def after(self, lasted: float) -> Verdict:
        """At the end of an operation: measure if that is due, and judge."""
        async with self._measuring:
            if is_due(time.monotonic() - self._last, lasted, self.used, self.bound):
                return await self._look()
            return self._verdict

    async def _look(self) -> Verdict:
        before = self.used
        self.used = await self._measure()
        self._last = time.monotonic()
        self._verdict = judge(self.used, before, self.bound)
        return self._verdict
