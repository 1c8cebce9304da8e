"""The crash matrix: at every numbered point the server is killed, and a plain one goes on. See `docs/crash-matrix.md`.

The rows that were chosen are played together, in a process of their own; each test waits for its row.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.crash.document import DOCUMENT, document
from tests.crash.points import POINTS
from tests.support.program import ROOT
from tests.support.sandboxes import missing, require

Rows = dict[str, "Future[str | None]"]
PATIENCE = 300.0
"""Seconds for the rows between two: a slow machine plays one in ten."""


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[Rows]:
    """Every chosen row: what failed, or None, once it was played."""
    asked = [item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")]
    chosen = [name for name in asked if name in POINTS and not missing(POINTS[name].kind)]
    found: Rows = {name: Future() for name in chosen}
    command = [sys.executable, "-m", "tests.crash.matrix", *chosen]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as playing:
        listening = threading.Thread(target=_listen, args=(playing, found))
        listening.start()
        yield found
        if not all(row.done() for row in found.values()):
            playing.terminate()
        listening.join()


def _listen(playing: subprocess.Popen[str], rows: Rows) -> None:
    assert playing.stdout is not None
    for line in playing.stdout:
        told = json.loads(line)
        rows[told["name"]].set_result(told["failed"])
    for row in rows.values():
        if not row.done():
            row.set_result("the process that plays the rows ended before this one was played")


@pytest.mark.parametrize("name", POINTS)
def test_killed_at_this_point_nothing_is_lost_and_nothing_is_done_twice(rows: Rows, name: str) -> None:
    require(POINTS[name].kind)
    failed = rows[name].result(PATIENCE)
    assert failed is None, failed


def test_the_document_is_the_table() -> None:
    assert DOCUMENT.read_text("utf-8") == document(), "run: python -m tests.crash.document"
