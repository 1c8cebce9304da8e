"""The crash matrix: every numbered point at which the server is killed, as one table.

Above: `test_matrix`, which plays each row, `armed`, which looks its place up, and `document`, which writes the table
down. Below: `rows`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.crash.row import Point
from tests.crash.rows.calls import CALLS
from tests.crash.rows.context import CONTEXT
from tests.crash.rows.files import FILES
from tests.crash.rows.inputs import INPUTS
from tests.crash.rows.model import MODEL
from tests.crash.rows.sandboxes import SANDBOXES
from tests.crash.rows.steps import STEPS
from tests.crash.rows.tools import TOOLS

SECTIONS: Mapping[str, list[Point]] = {
    "What a client sends": INPUTS,
    "The steps of a turn": STEPS,
    "The model's stream": MODEL,
    "Calls and their results in the log": CALLS,
    "The model's context": CONTEXT,
    "Tools": TOOLS,
    "Sandboxes": SANDBOXES,
    "Uploads, and requests under a key": FILES,
}
POINTS: Mapping[str, Point] = {point.name: point for section in SECTIONS.values() for point in section}
assert len(POINTS) == sum(map(len, SECTIONS.values())), "two points of one name"
