"""`Idempotency-Key`: asked again with the same key, a POST gives the answer that it gave, and does nothing twice.

Above: `app`. Below: whoever stores the answers. Successes alone are remembered: what failed changed nothing, and may
succeed when it is asked again. Two requests with one key at the same time are told apart within this process; the
second is asked to come back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request

from server.doors.rest.envelope import InFlight
from server.errors import InvalidRequest

HEADER = "idempotency-key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Answers(Protocol):
    """The answers that were given, each under the key that it was asked for with."""

    async def recall(self, key: str, digest: str) -> Mapping[str, Any] | None:
        """The answer given before, or None. Raises Conflict when the key was used for another request."""

    async def remember(self, key: str, digest: str, answer: Mapping[str, Any]) -> None:
        """Keep the answer. Nothing happens when there is one already."""


@dataclass(frozen=True)
class Key:
    """A key with the digest of the request that it stands for."""

    text: str
    digest: str


def read(request: Request, body: bytes | None) -> Key | None:
    """The request's key; None when there is none. Raises InvalidRequest.

    body    None where the handler reads it, as it does with files of up to 500 MB. They are told apart by their length:
            their bytes are not here yet, and differ from try to try by the boundary between the parts.
    """
    text = request.headers.get(HEADER)
    if text is None or request.method != "POST":
        return None
    if not _KEY.fullmatch(text):
        raise InvalidRequest(f"{HEADER}: must be 1 to 255 visible ASCII characters.")
    content = request.headers.get("content-length", "").encode() if body is None else _canonical(body)
    asked = b"\0".join([request.url.path.encode(), request.scope["query_string"], content])
    return Key(text, hashlib.sha256(asked).hexdigest())


def _canonical(body: bytes) -> bytes:
    """The same for the same object, however its fields are ordered. The body is known to be JSON."""
    return json.dumps(json.loads(body or b"{}"), sort_keys=True).encode()


class Idempotency:
    """The keys that are being answered, over the answers that were given."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._busy: set[str] = set()

    @contextmanager
    def alone(self, key: Key) -> Iterator[None]:
        """Hold the key while it is answered. Raises InFlight when somebody else does."""
        if key.text in self._busy:
            raise InFlight(f"A request with {HEADER} {key.text!r} is being answered now. Try again in a moment.")
        self._busy.add(key.text)
        try:
            yield
        finally:
            self._busy.discard(key.text)

    async def recall(self, key: Key) -> Mapping[str, Any] | None:
        """The answer given before, or None. Raises Conflict when the key was used for another request."""
        return await self._answers.recall(key.text, key.digest)

    async def remember(self, key: Key, answer: Mapping[str, Any]) -> None:
        """Keep the answer."""
        await self._answers.remember(key.text, key.digest, answer)
