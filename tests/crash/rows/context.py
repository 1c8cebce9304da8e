"""Room made in the model's context."""

from __future__ import annotations

from server.events import COMPACTED, COMPACTION, PRIVATE_CLEARED
from tests.crash.row import APPEND, Point, append, batch, only
from tests.crash.site import Arguments, Site
from tests.crash.stories.context import LARGE, LONG


def _a_summary_begins(arguments: Arguments) -> bool:
    return any((event.private or {}).get("purpose") == COMPACTION for event in arguments["events"])


CONTEXT = [
    *append("cleared", "old results are cleared", LARGE, only(PRIVATE_CLEARED), ("went on", "went on")),
    Point(
        "summary-begun",
        "a summary is about to be asked for",
        Site(APPEND, "after", _a_summary_begins),
        LONG,
        "asked again",
    ),
    *append("summary", "a summary and what it stands for", LONG, batch(COMPACTED), ("asked again", "went on")),
]
