"""What every part of the MCP door works with."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.doors.mcp.brevity import BUDGET

if TYPE_CHECKING:
    from server.doors.mcp.turns import Handle
    from server.sessions.service import Service

GRACE = 5.0
"""Seconds for which a call that may become a task is answered inline: most short turns end within them, and a host
shows nothing before."""


@dataclass(frozen=True)
class Door:
    """The way to the use-cases, and this door's bounds."""

    service: Callable[[], Awaitable[Service]]
    """Gives the use-cases, waiting for their start if need be. Raises a SkiffError when they cannot be had."""
    budget: int = BUDGET
    """Bytes of one result."""
    grace: float = GRACE
    """Seconds before a call becomes a task, where the client takes tasks."""


@dataclass
class Offer:
    """The client of this request takes tasks: a tool that would wait long may leave a handle here instead."""

    grace: float
    handle: Handle | None = None


offered: contextvars.ContextVar[Offer | None] = contextvars.ContextVar("skiff_task_offer", default=None)
"""The offer of the request that is being answered; None where tasks are not taken."""
