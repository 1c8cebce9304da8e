"""The boundary to a database engine: two verbs.

Above: `store.Store`, the only user. Below: `sqlite.py` (and a server database where one machine is too few).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Params = Mapping[str, Any]
Row = Sequence[Any]


class Cursor(Protocol):
    """What a transaction may do. Statements use `:name` parameters."""

    def execute(self, sql: str, params: Params = ..., /) -> None:
        """Run a statement for its effect."""

    def one(self, sql: str, params: Params = ..., /) -> Row | None:
        """The first row, or None."""

    def each(self, sql: str, params: Params = ..., /) -> Iterator[Row]:
        """Every row, one after the other: whoever stops early holds no more than it has taken."""

    def all(self, sql: str, params: Params = ..., /) -> list[Row]:
        """Every row."""


class Database(Protocol):
    """A database that is open. Work may run outside the event loop, so it must not touch the loop's objects."""

    async def read(self, work: Callable[[Cursor], T], *, small: bool = False) -> T:
        """Run `work` on a consistent view.

        small   a few rows, found by their keys: the database may choose the way that is fastest for them
        """

    async def write(
        self,
        work: Callable[[Cursor], T],
        *,
        small: bool = False,
        done: Callable[[T], None] | None = None,
        by: str | None = None,
    ) -> T:
        """Run `work` in one transaction, durable when this returns. An exception of `work` rolls back and is raised.

        small   a few rows: the database may choose the way that is fastest for them. Several such works may share a
                transaction, each rolled back alone when it raises; when the transaction fails each is done again alone
        done    called in the event loop with the result once it is durable, even when the caller has been cancelled
        by      who writes, so that the database can tell whether many do
        Raises StoreError when the database is locked, full or broken.
        """

    async def copy(self, target: Path) -> None:
        """Write what is committed now to a new database file, durable and checked, while others go on writing.

        Raises StoreError when it cannot be written to its end, or reads back damaged.
        """

    async def tidy(self) -> bool:
        """Give back some of the room that it takes and does not need, in a step that keeps writers waiting for tens of
        milliseconds at most. Whether there may be more. Raises StoreError."""

    async def version(self) -> int:
        """A number that differs whenever another process has written since the last call."""

    async def close(self) -> None:
        """Finish what was begun and close."""
