"""What follows from a failed model request."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import ModelContextTooLong, ModelError, ModelOverloaded, ModelRateLimited, ModelRefusedRequest
from server.sessions.decide import Limits
from server.sessions.retrying import Verdict, backoff, verdict

LIMITS = Limits(retries=2, patience=600)


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        ((1, None, 0.0), 1),
        ((2, None, 0.0), 2),
        ((5, None, 0.0), 16),
        ((6, None, 0.0), 30),
        ((50, None, 0.0), 30),
        ((1, None, 1.0), 0.75),
        ((6, 0.0, 0.5), 0),
        ((1, 42.0, 0.0), 42),
        ((1, 40.0, 1.0), 44),
        ((1, 500.0, 1.0), 505),
    ],
)
def test_the_wait_before_another_try_grows_is_spread_and_honours_the_provider(arguments: Any, seconds: float) -> None:
    assert backoff(*arguments) == seconds


@pytest.mark.parametrize(
    ("error", "failures", "again"),
    [
        (ModelOverloaded("busy"), 1, True),
        (ModelOverloaded("busy"), 2, True),
        (ModelOverloaded("busy"), 3, False),
        (ModelRateLimited("slow", retry_after=600), 1, True),
        (ModelRateLimited("slow", retry_after=601), 1, False),
        (ModelRateLimited("slow", retry_after=float("inf")), 1, False),
        (ModelRefusedRequest("no"), 1, False),
        (ModelContextTooLong("long"), 1, False),
    ],
)
def test_only_what_may_pass_is_tried_again_and_within_bounds(error: ModelError, failures: int, again: bool) -> None:
    assert verdict(error, failures, LIMITS, 0.5).again is again


@pytest.mark.parametrize(
    ("seconds", "words"), [(700, "more than 11 minutes"), (8_000, "more than 2 hours"), (1e6, "more than 11 days")]
)
def test_a_wait_that_is_too_long_is_said(seconds: float, words: str) -> None:
    assert words in verdict(ModelRateLimited("slow", retry_after=seconds), 1, LIMITS, 0).words


def test_an_error_that_will_not_pass_gets_no_words_of_ours() -> None:
    assert verdict(ModelRefusedRequest("no"), 9, LIMITS, 0) == Verdict(False)
