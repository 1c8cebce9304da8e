"""Every story plays against a real `skiff serve` with each kind of sandbox that the machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.sandboxes import BACKENDS, require
from tests.support.served import Site, served


@pytest.fixture(scope="session", params=BACKENDS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A server of its own, for all stories of one kind of sandbox; they leave nothing behind in it."""
    require(request.param)
    with served(request.param) as running:
        yield running
