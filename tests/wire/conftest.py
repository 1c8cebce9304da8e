"""One server for all tests of the wire that leave nothing behind; who needs one of its own starts it (`served`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.served import Site, served


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A real `skiff serve` with bubblewrap sandboxes, whose log tells of every request."""
    with served("local", log_level="INFO") as running:
        yield running
