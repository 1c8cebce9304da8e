"""API keys: made, listed, revoked, and recognised.

Above: the doors, which ask whose a key is, and `skiff keys`. Below: the store. The owner's token is not one of them:
it is a file or a setting, and the doors know it.

A key is 256 random bits, so its plain SHA-256 is all that needs keeping: there is nothing to guess, and a slow hash
would only slow each request down. It begins with its public id, by which it is found; the digest is then compared in
constant time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping

from server.errors import InvalidRequest, NotFound, StoreError
from server.ids import now
from server.store.keys import KeyRow, KeyStore

logger = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
"""A revoked key is good for so long at most: keys are read again after it, and not on every request."""
PATIENCE_SECONDS = 0.25
"""Between looks at the store for a key that is not known: a new one works at once, and wrong ones cost little."""
USED_SECONDS = 60.0
"""`used_at` is right to the minute, so that a busy key costs one write in that time."""
LONGEST_NAME = 100
_ID = "skiff_key_"


class Keys:
    """The keys of one installation."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._good: Mapping[str, KeyRow] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._used: dict[str, str] = {}
        self._written_at = time.monotonic()

    async def create(self, name: str) -> tuple[KeyRow, str]:
        """A new key, and its text, which is nowhere to be had later. Raises InvalidRequest for a bad name."""
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise InvalidRequest(f"A key's name is 1 to {LONGEST_NAME} printable characters.")
        key_id = _ID + secrets.token_hex(5)
        text = f"{key_id}_{secrets.token_urlsafe(32)}"
        row = KeyRow(key_id, name, _digest(text), now())
        await self._store.add(row)
        return row, text

    async def list(self) -> list[KeyRow]:
        """Every key, the revoked ones too, oldest first."""
        return await self._store.all()

    async def revoke(self, key_id: str) -> None:
        """Let a key be good no more, on every running server within FRESH_SECONDS. Raises NotFound."""
        if not await self._store.revoke(key_id):
            raise NotFound(f"There is no key {key_id}. `skiff keys list` shows their ids.")
        self._read_at = float("-inf")

    async def holder(self, text: str) -> str | None:
        """The name of the key with this text; None when there is none that is good."""
        key_id = text[: len(_ID) + 10]
        if not key_id.startswith(_ID) or not text.isascii():
            return None
        await self._refresh(FRESH_SECONDS if key_id in self._good else PATIENCE_SECONDS)
        row = self._good.get(key_id)
        if row is None or not hmac.compare_digest(_digest(text), row.digest):
            return None
        self._used[row.id] = now()
        return row.name

    async def close(self) -> None:
        """Write what is not written yet."""
        await self._write()

    async def _refresh(self, fresh: float) -> None:
        """Read the keys again unless that was done within `fresh` seconds; requests meanwhile wait for one reading."""
        async with self._reading:
            if time.monotonic() - self._read_at < fresh:
                return
            rows = await self._store.all()
            self._good = {row.id: row for row in rows if row.revoked_at is None}
            self._read_at = time.monotonic()
            if self._read_at - self._written_at >= USED_SECONDS:
                await self._write()

    async def _write(self) -> None:
        self._written_at = time.monotonic()
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.used(used)
        except StoreError as error:  # nobody is to be shut out over it; it is written with the next ones
            self._used = {**used, **self._used}
            logger.warning("when keys were last used is not written: %s", error)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
