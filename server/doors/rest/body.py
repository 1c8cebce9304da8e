"""The body of a request: bounded while it is read, and one JSON object that everything below can store.

Above: `app`, and handlers that read bodies of their own. Below: nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from email.message import Message
from typing import Any, NoReturn

from starlette.requests import Request

from server.errors import BodyTimeout, InvalidRequest, TooLarge, coded

MOST = 32 << 20
"""Bytes of a JSON body, as the hosted service has it."""
DEEPEST = 128
"""Levels of nesting: more than any schema of a tool has, and far from what recursive code below could not walk."""
PATIENCE_SECONDS = 30.0
"""For the next piece of a body: a client that is there sends one every few milliseconds."""
MOST_VALUES = 500_000
"""Values of one body: hundreds of times those of the largest agent. 32 MB of empty lists would take a gigabyte and keep
every other request waiting for a quarter of a minute."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


async def pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body as it comes, up to `most` bytes.

    Raises TooLarge, before anything is read where the length is told; BodyTimeout when it stops coming; InvalidRequest
    for one that is compressed.
    """
    _check_encoding(request.headers.get("content-encoding", ""))
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    seen, coming = 0, request.stream()
    while (piece := await _next(coming)) is not None:
        seen += len(piece)
        if seen > most:
            raise _too_large(most)
        yield piece


async def _next(coming: AsyncGenerator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await anext(coming, None)
    except TimeoutError:
        raise BodyTimeout(f"Nothing of the request body came for {PATIENCE_SECONDS:g} seconds.") from None


async def whole(request: Request, most: int = MOST) -> bytes:
    """The whole body. Raises TooLarge, BodyTimeout."""
    return b"".join([piece async for piece in pieces(request, most)])


def json_object(raw: bytes, content_type: str) -> Mapping[str, Any]:
    """The JSON object that a body holds; an empty body is an empty one. Raises InvalidRequest saying what is wrong."""
    if not raw:
        return {}
    _check_kind(content_type)
    _check_count(raw)
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError:
        raise InvalidRequest("The request body is not UTF-8.") from None
    except ValueError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    _check(value)
    return value


def _check_encoding(content_encoding: str) -> None:
    if content_encoding.lower() not in ("", "identity"):
        problem = f"Content-Encoding {content_encoding!r} is not supported. Send the body as it is."
        raise coded(InvalidRequest(problem), "request_body_encoding_unsupported")


def _check_kind(content_type: str) -> None:
    kind = Message()
    kind["content-type"] = content_type or "application/json"
    if kind.get_content_type() != "application/json":
        raise InvalidRequest(f"Content-Type must be application/json, not {kind.get_content_type()}.")
    if str(kind.get_param("charset") or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise coded(InvalidRequest("The charset of the request body must be UTF-8."), "unsupported_charset")


def _check_count(raw: bytes) -> None:
    """Refuse, before they are made, more values than anybody means. What stands in strings is looked at only where
    there is much of it."""
    if _values(raw) > MOST_VALUES and _values(_STRING.sub(b"", raw)) > MOST_VALUES:
        raise InvalidRequest(f"The request body holds more than {MOST_VALUES:,} values.")


def _values(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _check(value: Any) -> None:
    """Refuse what parses and still could not be stored or sent again. A stack, because the value may be a deep one."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise _too_deep()
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                if _SURROGATE.search(item):
                    raise InvalidRequest("The request body holds half of a surrogate pair, which is no text.")
            elif isinstance(item, float) and not math.isfinite(item):
                raise InvalidRequest("The request body holds a number that is too large.")
        level, depth = below, depth + 1


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The request body is nested too deeply: more than {DEEPEST} levels.")


def _too_large(most: int) -> TooLarge:
    size = f"{most >> 20} MB" if most >= 1 << 20 else f"{most} bytes"
    return TooLarge(f"The request body is larger than {size}.")
