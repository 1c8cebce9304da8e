"""Who asks: the key of a request, as a bearer token or as `x-api-key`.

Above: `app`, and the HTTP application for `/metrics`. Below: whoever knows the keys. A missing key and a wrong one get
the same words.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from starlette.datastructures import Headers

from server.errors import Unauthenticated

Verify = Callable[[str], Awaitable[str | None]]
"""The name of the key's holder, or None for a key that is not good."""
REFUSAL = "Authentication failed"


async def holder(headers: Headers, verify: Verify) -> str:
    """The name of whoever sent these headers. Raises Unauthenticated."""
    for key in credentials(headers):
        name = await verify(key)
        if name is not None:
            return name
    raise Unauthenticated(REFUSAL)


def credentials(headers: Headers) -> Iterator[str]:
    """The keys that a request bears: newer SDKs send a bearer token, older ones and curl `x-api-key`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        yield token.strip()
    if key := headers.get("x-api-key", "").strip():
        yield key


async def anybody(_: str) -> str:
    """The verification where no key is asked for."""
    return "anybody"
