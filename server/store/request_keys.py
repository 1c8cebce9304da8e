"""What was done under a key of the client's, kept in the transaction that did it, so that asking again does it once.

Above: `store.sessions` and `store.log`. Below: a `Database`; `store.answers` shares the table, under a scope of its
own. It does not know what was done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.errors import Conflict
from server.ids import ago, now
from server.store.body import dump
from server.store.database import Cursor
from server.store.table import Table

KEPT_HOURS = 24
"""How long a key is good. A client that asks again does so within minutes, and other APIs keep theirs as long."""


class RequestKeyTable(Table):
    """What becomes of keys that are too old."""

    async def clear_keys(self, limit: int) -> bool:
        """Remove at most `limit` keys that are good no more, whoever kept them. Whether there may be more."""

        def work(cursor: Cursor) -> bool:
            old = {"since": since(), "limit": limit}
            where = "created_at < :since ORDER BY created_at LIMIT :limit"
            found = len(cursor.all(f"SELECT 1 FROM request_keys WHERE {where}", old))
            if found:
                cursor.execute(
                    "DELETE FROM request_keys WHERE (scope, key) IN"
                    f" (SELECT scope, key FROM request_keys WHERE {where})",
                    old,
                )
            return found == limit

        return await self._database.write(work)


def since() -> str:
    """When a key had to be kept to be good now."""
    return ago(KEPT_HOURS * 3_600)


def asked_before(cursor: Cursor, scope: str, key: tuple[str, str]) -> Mapping[str, Any] | None:
    """What is kept under the key; None when nothing is. Conflict when the key was used for another request."""
    row = cursor.one(
        "SELECT digest, answer FROM request_keys WHERE scope = :scope AND key = :key AND created_at >= :since",
        {"scope": scope, "key": key[0], "since": since()},
    )
    if row is None:
        return None
    if row[0] != key[1]:
        raise Conflict(f"request_key {key[0]!r} was used before for another request. Use a new key.")
    answer: Mapping[str, Any] = json.loads(row[1])
    return answer


def remember(cursor: Cursor, scope: str, key: tuple[str, str], answer: Mapping[str, Any]) -> None:
    """Keep what a key stands for, inside the transaction that does it, in the place of what is good no more."""
    cursor.execute(
        "INSERT INTO request_keys (scope, key, digest, answer, created_at)"
        " VALUES (:scope, :key, :digest, :answer, :now)"
        " ON CONFLICT (scope, key) DO UPDATE SET digest = :digest, answer = :answer, created_at = :now",
        {"scope": scope, "key": key[0], "digest": key[1], "answer": dump(answer), "now": now()},
    )
