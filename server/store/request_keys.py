"""What was done under a key of the client's, kept in the transaction that did it, so that asking again does it once.

Above: `store.sessions` and `store.log`. Below: a `Database`; `store.answers` shares the table, under a scope of its
own. It does not know what was done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.errors import Conflict
from server.ids import now
from server.store.body import dump
from server.store.database import Cursor


def asked_before(cursor: Cursor, scope: str, key: tuple[str, str]) -> Mapping[str, Any] | None:
    """What is kept under the key; None when nothing is. Conflict when the key was used for another request."""
    row = cursor.one(
        "SELECT digest, answer FROM request_keys WHERE scope = :scope AND key = :key", {"scope": scope, "key": key[0]}
    )
    if row is None:
        return None
    if row[0] != key[1]:
        raise Conflict(f"request_key {key[0]!r} was used before for another request. Use a new key.")
    answer: Mapping[str, Any] = json.loads(row[1])
    return answer


def remember(cursor: Cursor, scope: str, key: tuple[str, str], answer: Mapping[str, Any]) -> None:
    """Keep what a key stands for, inside the transaction that does it."""
    cursor.execute(
        "INSERT INTO request_keys (scope, key, digest, answer, created_at)"
        " VALUES (:scope, :key, :digest, :answer, :now)",
        {"scope": scope, "key": key[0], "digest": key[1], "answer": dump(answer), "now": now()},
    )
