"""What all tests share. Every test is bounded: one that hangs ends the run, with the stacks of all threads."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator

import pytest

HANG_SECONDS = 400.0


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    assert sys.__stderr__ is not None
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
