"""Whether the disk of the data folder has room for new work.

A log that cannot be written is the end of every session at once, so the room is watched, and new work refused before
there is none: what runs then still has the rest to say what came of it. Above: the use-cases that begin something, the
loop before it asks a model, the watchers. Below: the file system.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from server.errors import NoRoom

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""A look costs microseconds, but on a network's disk it may cost milliseconds; a disk fills up over many seconds."""
WATCH_SECONDS = 10.0
"""Between looks that nobody asks for, so that it is said before somebody is refused."""
AGAIN = 1.25
"""Times the least that must be free until new work is taken again: at the bound itself it would go to and fro."""

Free = Callable[[Path], int]
"""The bytes that are free where this folder is."""


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def scarce(before: bool, free: int, least: int) -> bool:
    """Whether there is too little room, given whether there was before."""
    return free < least * (AGAIN if before else 1)


class Room:
    """What is free, and whether it is enough."""

    def __init__(self, folder: Path, least: int, free: Free = free_bytes) -> None:
        """`least`: bytes below which there is too little; 0 never is."""
        self._folder = folder
        self._least = least
        self._measure = free
        self._looked = float("-inf")
        self._free = 0
        self._scarce = False

    @property
    def free(self) -> int:
        """Bytes, a second old at most."""
        self._look()
        return self._free

    @property
    def trouble(self) -> str:
        """What to say to whoever wants new work done; "" when there is room."""
        self._look()
        return _words(self._free, self._least) if self._scarce else ""

    def check(self) -> None:
        """Raises NoRoom when nothing new should be begun."""
        if words := self.trouble:
            raise NoRoom(words)

    async def watch(self) -> None:
        """Look now and then, for ever, for the log's sake. Run it in a task of its own."""
        while True:
            self._look()
            await asyncio.sleep(WATCH_SECONDS)

    def _look(self) -> None:
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._free, self._looked = self._measure(self._folder), time.monotonic()
        before, self._scarce = self._scarce, scarce(self._scarce, self._free, self._least)
        if self._scarce and not before:
            logger.warning("%s: %s", self._folder, _words(self._free, self._least))
        elif before and not self._scarce:
            logger.warning("%s: there is room again, %d MB; new work is taken", self._folder, self._free // 10**6)


def _words(free: int, least: int) -> str:
    return (
        f"The server's disk is nearly full: {free // 10**6:,} MB are free. New work is taken again above"
        f" {least * AGAIN / 10**6:,.0f} MB: free some space, for example by deleting sessions (setting min_free_mb)."
        " Reading, interrupting, archiving and deleting work as always."
    )
