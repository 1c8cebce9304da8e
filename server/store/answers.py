"""The answers that were given under a key of the client's, so that asking again gives the same one.

Above: the REST door, through `App`, and whoever keeps an answer in the transaction that it is about. Below: a
`Database`. The table is shared with what sessions keep (`store.request_keys`), each under a scope of its own. It does
not know what an answer is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from server.errors import Conflict, TryAgain
from server.ids import ago, now
from server.store.body import dump, load
from server.store.database import Cursor, Database, Row

SCOPE = "http"
KEPT_HOURS = 24
"""As long as other APIs keep theirs: a client that tries again does so within minutes."""
SWEPT = 100
"""Old rows that one new row removes: two orders above what is added, and too few to be felt."""


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
                {"scope": SCOPE, "key": key, "since": _since()},
            )

        row = await self._database.read(work)
        if row is None:
            return None
        if row[0] != digest:
            raise Conflict(f"Idempotency-Key {key!r} was used before for another request. Use a new key.")
        return load(row[1])

    async def remember(self, key: str, digest: str, answer: Mapping[str, Any]) -> None:
        """Keep the answer for a day. Nothing happens when there is one already."""

        def work(cursor: Cursor) -> None:
            if not _there(cursor, key):
                _insert(cursor, key, digest, answer)

        await self._database.write(work)

    def keeper(self, key: str, digest: str) -> Keep:
        """What keeps the answer for a day within a transaction of somebody else's; it raises TryAgain, and ends that
        transaction, when another process has given an answer under this key meanwhile."""

        def keep(cursor: Cursor, answer: Mapping[str, Any]) -> None:
            if _there(cursor, key):
                raise TryAgain(f"Idempotency-Key {key!r} was answered just now. Ask again for the answer.")
            _insert(cursor, key, digest, answer)

        return keep


def _there(cursor: Cursor, key: str) -> bool:
    """Whether there is an answer that is still good."""
    sql = "SELECT 1 FROM request_keys WHERE scope = :scope AND key = :key AND created_at >= :since"
    return cursor.one(sql, {"scope": SCOPE, "key": key, "since": _since()}) is not None


def _insert(cursor: Cursor, key: str, digest: str, answer: Mapping[str, Any]) -> None:
    """Keep an answer, in the place of one that is too old."""
    _sweep(cursor)
    cursor.execute(
        "INSERT INTO request_keys (scope, key, digest, answer, created_at)"
        " VALUES (:scope, :key, :digest, :answer, :now)"
        " ON CONFLICT (scope, key) DO UPDATE SET digest = :digest, answer = :answer, created_at = :now",
        {"scope": SCOPE, "key": key, "digest": digest, "answer": dump(answer), "now": now()},
    )


def _sweep(cursor: Cursor) -> None:
    """Remove some of the rows that are too old, whatever their scope: a key is good for a day."""
    cursor.execute(
        "DELETE FROM request_keys WHERE (scope, key) IN"
        " (SELECT scope, key FROM request_keys WHERE created_at < :since ORDER BY created_at LIMIT :most)",
        {"since": _since(), "most": SWEPT},
    )


def _since() -> str:
    return ago(KEPT_HOURS * 3_600)
