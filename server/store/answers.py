"""The answers that were given under a key of the client's, so that asking again gives the same one.

Above: the REST door, through `App`, and whoever keeps an answer in the transaction that it is about. Below: a
`Database`. The table is shared with what sessions keep (`store.request_keys`), each under a scope of its own. It does
not know what an answer is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from server.errors import Conflict, TryAgain
from server.store.body import load
from server.store.database import Cursor, Database, Row
from server.store.request_keys import remember, since

SCOPE = "http"
Keep = Callable[[Cursor, Mapping[str, Any]], None]
"""Keeps an answer inside the transaction that does what was asked: both are there after a crash, or neither."""


class AnswerStore:
    """Answers by key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def recall(self, key: str, digest: str) -> Mapping[str, Any] | None:
        """The answer given before, or None. Raises Conflict when the key was used for another request."""

        def work(cursor: Cursor) -> Row | None:
            return cursor.one(
                "SELECT digest, answer FROM request_keys WHERE scope = :scope AND key = :key AND created_at >= :since",
                {"scope": SCOPE, "key": key, "since": since()},
            )

        row = await self._database.read(work)
        if row is None:
            return None
        if row[0] != digest:
            raise Conflict(f"Idempotency-Key {key!r} was used before for another request. Use a new key.")
        return load(row[1])

    async def remember(self, key: str, digest: str, answer: Mapping[str, Any]) -> None:
        """Keep the answer for as long as a key is good. Nothing happens when there is one already."""

        def work(cursor: Cursor) -> None:
            if not _there(cursor, key):
                remember(cursor, SCOPE, (key, digest), answer)

        await self._database.write(work)

    def keeper(self, key: str, digest: str) -> Keep:
        """What keeps the answer within a transaction of somebody else's; it raises TryAgain, and ends that
        transaction, when another process has given an answer under this key meanwhile."""

        def keep(cursor: Cursor, answer: Mapping[str, Any]) -> None:
            if _there(cursor, key):
                raise TryAgain(f"Idempotency-Key {key!r} was answered just now. Ask again for the answer.")
            remember(cursor, SCOPE, (key, digest), answer)

        return keep


def _there(cursor: Cursor, key: str) -> bool:
    """Whether there is an answer that is still good."""
    sql = "SELECT 1 FROM request_keys WHERE scope = :scope AND key = :key AND created_at >= :since"
    return cursor.one(sql, {"scope": SCOPE, "key": key, "since": since()}) is not None
