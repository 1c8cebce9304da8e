"""What all tests share. Every test is bounded: one that hangs ends the run, with the stacks of all threads."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a machine that is busy is no failure
settings.load_profile("untimed")

HANG_SECONDS = 400.0


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    assert sys.__stderr__ is not None
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What could not run here is said loudly, not in a line among others."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)})
    if not reasons:
        return
    terminalreporter.section(f"{len(skipped)} TESTS DID NOT RUN HERE", red=True, bold=True)
    for reason in reasons:
        terminalreporter.line(reason.removeprefix("Skipped: "), yellow=True)
    terminalreporter.line("With a container engine: `make engine` (Debian or Ubuntu, root), then `make image`.")
