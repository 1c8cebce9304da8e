"""Whether a failed model request is tried again in this turn, and when. Pure.

Above: `asking`, which stores the verdict with the failure, so that it outlives the process. Below: nothing.
docs/model-failures.md shows what comes of it for every cause.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import ModelError
from server.sessions.decide import Limits

FIRST_SECONDS, LAST_SECONDS = 1.0, 30.0
"""The first wait, doubled from failure to failure, and the longest. With six tries that is a minute and a half, which
most overloads do not outlast."""
SPREAD = 0.25
"""How much of a wait chance decides, so that sessions that failed together do not return together."""
WISH_SPREAD, MAX_WISH_SPREAD = 0.1, 5.0
"""The same for a wait that the provider asked for: never shorter, a little longer, by at most so many seconds."""


@dataclass(frozen=True)
class Verdict:
    """What follows from a failure. `wait`: seconds until the next try; `words`: what the error adds for people."""

    again: bool
    wait: float = 0.0
    words: str = ""


def verdict(error: ModelError, failures: int, limits: Limits, jitter: float) -> Verdict:
    """What follows from this error, the one that makes it `failures` in a row; `jitter` in [0, 1].

    A provider that asks for a longer wait than `limits.patience` ends the turn: asking earlier would be refused, and
    nobody wants a turn that sleeps for hours.
    """
    if not error.retryable:
        return Verdict(False)
    if error.retry_after is not None and error.retry_after > limits.patience:
        return Verdict(False, words=f" It asks to wait {_span(error.retry_after)}; a message after that tries again.")
    if failures > limits.retries:
        return Verdict(False, words=f" Given up after {failures} failed requests in a row.")
    return Verdict(True, backoff(failures, error.retry_after, jitter))


def backoff(failures: int, retry_after: float | None, jitter: float) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4 ... 30, or what the provider asks for."""
    if retry_after is not None:
        return retry_after + jitter * min(MAX_WISH_SPREAD, WISH_SPREAD * retry_after)
    return float(min(LAST_SECONDS, FIRST_SECONDS * 2.0 ** (failures - 1))) * (1 - jitter * SPREAD)


def _span(seconds: float) -> str:
    """Such as "45 minutes"; what nobody would wait for in seconds."""
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"more than {min(seconds, 1e12) // size:.0f} {name}"
    return f"{seconds:.0f} seconds"
