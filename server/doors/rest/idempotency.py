"""`Idempotency-Key`: asked again with the same key, a POST gives the answer that it gave, and does nothing twice.

Above: `app`. Below: whoever stores the answers. Successes alone are remembered: what failed changed nothing, and may
succeed when it is asked again. What would be done twice if it were done again keeps its answer in its own transaction,
so that a crash leaves both or neither; of the rest, which changes nothing the second time, the door keeps the answer.
Two requests with one key at the same time are told apart within this process; the second is asked to come back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from server.errors import InvalidRequest, TryAgain

T = TypeVar("T")
Keep = Callable[[Any, Mapping[str, Any]], None]
"""Keeps an answer within the transaction that it is given; see `Answers.keeper`."""

HEADER = "idempotency-key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Answers(Protocol):
    """The answers that were given, each under the key that it was asked for with."""

    async def recall(self, key: str, digest: str) -> Mapping[str, Any] | None:
        """The answer given before, or None. Raises Conflict when the key was used for another request."""

    async def remember(self, key: str, digest: str, answer: Mapping[str, Any]) -> None:
        """Keep the answer. Nothing happens when there is one already."""

    def keeper(self, key: str, digest: str) -> Keep:
        """What keeps the answer within a transaction of the use-case's own."""


@dataclass(frozen=True)
class Key:
    """A key with the digest of the request that it stands for."""

    text: str
    digest: str


def text(request: Request) -> str | None:
    """The key that a POST names; None when there is none. Raises InvalidRequest."""
    named = request.headers.get(HEADER)
    if named is None or request.method != "POST":
        return None
    if not _KEY.fullmatch(named):
        raise InvalidRequest(f"{HEADER}: must be 1 to 255 visible ASCII characters.")
    return named


def key(named: str, request: Request, content: bytes) -> Key:
    """The key with what it stands for. `content` is the same for the same body, and for no other."""
    asked = b"\0".join([request.url.path.encode(), request.scope["query_string"], content])
    return Key(named, hashlib.sha256(asked).hexdigest())


def canonical(body: bytes) -> bytes:
    """The same for the same object, however its fields are ordered. The body is known to be JSON."""
    return json.dumps(json.loads(body or b"{}"), sort_keys=True).encode()


class Idempotency:
    """The keys that are being answered, over the answers that were given."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._busy: set[str] = set()

    async def once(self, key: Key, make: Callable[[Keep], Awaitable[T]]) -> Mapping[str, Any] | T:
        """The answer given before, else what `make` gives, which is kept when it is an object, by `make` or here.

        Raises TryAgain while somebody else makes it, Conflict when the key was used for another request.
        """
        with self._alone(key):
            given = await self._answers.recall(key.text, key.digest)
            if given is not None:
                return given
            made = await make(self._answers.keeper(key.text, key.digest))
            if isinstance(made, Mapping):
                await self._answers.remember(key.text, key.digest, made)
            return made

    @contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        """Hold the key while it is answered."""
        if key.text in self._busy:
            raise TryAgain(f"A request with {HEADER} {key.text!r} is being answered now. Try again in a moment.")
        self._busy.add(key.text)
        try:
            yield
        finally:
            self._busy.discard(key.text)
