"""The official referees of the protocol, each as its own program against ours: the conformance suite and the inspector.

They need Node.js and the npm registry, which a machine may not have: then they are skipped, and it is said. A machine
that must not skip sets SKIFF_REQUIRE_NODE=1.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 6


def _run(script: str) -> str:
    ready = subprocess.run(["bash", "-c", ". scripts/node.sh"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    if ready.returncode != 0:
        if os.environ.get("SKIFF_REQUIRE_NODE") == "1":
            pytest.fail(f"SKIFF_REQUIRE_NODE=1, but: {ready.stderr[-2000:]}")
        pytest.skip(f"no Node.js 22 with the suite can be had here: {ready.stderr.strip()[-300:]}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKIFF_")}
    done = subprocess.run(
        ["bash", f"scripts/{script}"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=MINUTES * 60
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.node
def test_the_official_conformance_suite_passes_both_requirement_sets_and_every_tasks_scenario() -> None:
    said = _run("conformance.sh")
    assert "requirements 2025-11-25: passed" in said and "requirements 2026-07-28: passed" in said
    assert said.count("tasks-") >= 9 and "FAILED" not in said


@pytest.mark.node
def test_the_inspector_finds_every_tool_portable_over_stdio_and_http_in_both_eras() -> None:
    assert _run("inspector.sh").count("every schema portable") == 4
