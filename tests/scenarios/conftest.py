"""Every scenario plays on each kind of sandbox that the machine has."""

from __future__ import annotations

import pytest

from tests.support.sandboxes import BACKENDS
from tests.support.scenario import Stage, stage_for


@pytest.fixture(params=BACKENDS)
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return stage_for(request.param, monkeypatch)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """For what does not depend on the sandbox."""
    return stage_for("local", monkeypatch)


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """For what only a container engine can do."""
    return stage_for(request.param, monkeypatch)
