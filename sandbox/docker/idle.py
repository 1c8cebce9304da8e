"""When a sandbox that nobody uses is frozen. Pure.

Above: `container`. A frozen sandbox costs memory and no processor time, and thaws in 30 ms at the next call; stopping
and removing are the caller's to decide, because they lose processes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IdleSettings:
    """Bounds of idleness, in seconds."""

    pause_after: float = 60.0
    """Without an operation. Sooner, and a thinking model's own pauses would freeze its background build. 0 = never."""
    background_for: float = 900.0
    """How long background processes that use the processor put the pause off: a build may end, a busy loop may not."""
    busy_share: float = 0.02
    """Of one processor. A waiting server is far under it, a compiler far over."""


def should_pause(quiet: float, share: float, settings: IdleSettings) -> bool:
    """Whether to freeze now: `quiet` seconds without an operation, `share` of a processor used since the last look."""
    if not settings.pause_after or quiet < settings.pause_after:
        return False
    return share < settings.busy_share or quiet >= settings.pause_after + settings.background_for
