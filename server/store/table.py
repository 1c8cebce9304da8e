"""What the classes of verbs that make up the `Store` have in common: the database.

Above: the tables of `store.Store`. Below: a `Database`.
"""

from __future__ import annotations

from server.store.database import Database


class Table:
    """Verbs on the rows of one noun."""

    def __init__(self, database: Database) -> None:
        self._database = database
