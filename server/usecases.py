"""All use-cases together, as the doors get them.

`sessions` runs agents, `catalog` keeps agents and environments, `files` keeps what is uploaded and handed out.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.catalog.service import Catalog
from server.files.service import Files
from server.sessions.service import Service


@dataclass(frozen=True)
class UseCases:
    """What a door may do."""

    sessions: Service
    catalog: Catalog
    files: Files
    stall_seconds: float = 30.0
    """How long a stream of events waits for a reader that takes nothing, before it is dropped."""
