"""A session's place among the sandboxes: its sandbox while attached, who uses it, and what is being done to it.

Above: `sandboxes` and its helpers, which share it. It decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from sandbox.protocol import Sandbox


@dataclass(eq=False)
class Place:
    """One session's. It is there as long as something of it is under way; everything else stands in the database."""

    session_id: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the sandbox is made, stopped, put away or brought back."""
    sandbox: Sandbox | None = None
    users: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    since: float = 0.0
    """When it got the sandbox that it has."""
    at_work: bool = False
    """Its session is in the middle of a turn."""
    promised: bool = False
    """The log says, or is about to say, that calls go to this life of the sandbox."""
    news: list[str] = field(default_factory=list)
    """What the agent has to be told with its next result; the row has it too."""
    told: bool = False
    """It was, and the row does not know that yet."""
    making: asyncio.Task[Sandbox | None] | None = None
    mounting: asyncio.Task[None] | None = None
    """Something that the session was given while its sandbox was live is on its way into it."""
    storing: asyncio.Task[None] | None = None
    """Its files are on their way into an archive."""
    reserved: bool = False
    """One of the live sandboxes that are allowed is being made for it."""

    @property
    def counts(self) -> bool:
        """Whether it takes up one of the live sandboxes that are allowed."""
        return self.sandbox is not None or self.reserved

    @property
    def unused(self) -> bool:
        """It has a sandbox that could be stopped now without breaking off a call."""
        return bool(self.sandbox) and not (self.users or self.promised or self.lock.locked())

    @property
    def empty(self) -> bool:
        """Nothing is lost when it is forgotten."""
        busy = self.sandbox or self.users or self.making or self.mounting or self.storing
        return not (busy or self.at_work or self.lock.locked())

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What is under way for it."""
        return {task for task in (self.making, self.mounting, self.storing) if task is not None}


class Places(dict[str, Place]):
    """Where something is under way, by session."""

    def at(self, session_id: str) -> Place:
        """The session's place, made where there is none."""
        place = self.get(session_id)
        if place is None:
            place = self[session_id] = Place(session_id)
        return place

    def forget_if_empty(self, place: Place) -> None:
        """Keep only those where something is under way: there are as many sessions as anybody likes."""
        if place.empty and self.get(place.session_id) is place:
            del self[place.session_id]
