"""Waits between two model requests that tests need not sit through.

Above: scenarios. Below: `server.sessions.means.Pace`, which the application takes in the place of the real one.
"""

from __future__ import annotations

import asyncio

from server.sessions.means import Pace


class Waits:
    """Every wait that was asked for, in seconds, without jitter. Each is over at once; with `hold`, on `release`."""

    def __init__(self, *, hold: bool = False) -> None:
        self.seconds: list[float] = []
        self.pace = Pace(sleep=self._sleep, monotonic=lambda: 0.0, jitter=lambda: 0.0)
        self._hold = hold
        self._began = asyncio.Event()
        self._released = asyncio.Event()

    async def _sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._began.set()
        await (self._released.wait() if self._hold else asyncio.sleep(0))

    async def began(self) -> None:
        """Return once somebody waits."""
        await self._began.wait()

    def release(self) -> None:
        """End this wait, and let those to come be over at once."""
        self._released.set()
