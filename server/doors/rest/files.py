"""Files over REST: upload, list, retrieve, download, delete. Thin over the use-cases."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from server.doors.rest import body, multipart
from server.doors.rest.endpoint import MANAGED_AGENTS, Call, Endpoint
from server.doors.rest.paging import Position, page
from server.errors import InvalidRequest

DEFAULT, MOST = 20, 1000
"""Files of a page, as the hosted service has them."""
AROUND = 1 << 20
"""Bytes of a form beside its file."""
_SECONDS = re.compile(r"[0-9]{1,9}")
_TEXT = {"type": "string"}


async def upload(call: Call) -> Mapping[str, Any]:
    """The bytes go to the disk as they come; nothing stays of a form that turns out wrong, or was sent before.

    Under an Idempotency-Key two uploads are the same when what they say is: the boundary between the parts of a form
    differs from try to try.
    """
    files, request = call.uses.files, call.request
    digest = hashlib.sha256()
    async with files.receiving() as incoming:

        async def take(portion: bytes) -> None:
            if call.once:
                digest.update(portion)
            await incoming.write(portion)

        part, fields = await multipart.read(
            request.headers.get("content-type", ""), body.pieces(request, files.max_bytes + AROUND), take
        )
        seconds = fields.pop("expires_in_seconds", None)
        if fields:
            raise InvalidRequest(f"{next(iter(fields))[:80]}: unknown field. Known: file, expires_in_seconds.")
        said = part.filename or "", part.headers.get("content-type", ""), _expiry(seconds)
        make = partial(files.keep, incoming, *said)
        if call.once is None:
            return await make(None)
        digest.update(json.dumps(said).encode())
        return await call.once(digest.digest(), make)


def _expiry(text: str | None) -> int | None:
    if text is None:
        return None
    if not _SECONDS.fullmatch(text):
        raise InvalidRequest("expires_in_seconds: must be a whole number.")
    return int(text)


async def listed(call: Call) -> Mapping[str, Any]:
    query, files = call.query, call.uses.files
    scope, ids = query.text("scope_id"), query.many("ids[]")
    if ids:
        for name in ("limit", "page", "scope_id"):
            if query.text(name) is not None:
                raise InvalidRequest(f"{name}: cannot be given together with ids[].")
        return {"data": await files.named(ids), "next_page": None}
    if scope is not None and MANAGED_AGENTS not in call.request.headers.get("anthropic-beta", ""):
        raise InvalidRequest(f"scope_id: needs the header anthropic-beta: {MANAGED_AGENTS}.")

    async def fetch(limit: int, after: Position | None, order: str) -> Sequence[Mapping[str, Any]]:
        return await files.files(limit, after, order, scope_id=scope)

    return await page(call, fetch, default=DEFAULT, most=MOST)


async def retrieve(call: Call) -> Mapping[str, Any]:
    return await call.uses.files.file(call.path["file_id"])


async def content(call: Call) -> Response:
    found = await call.uses.files.content(call.path["file_id"])
    name = quote(found.filename.rpartition("/")[2], safe="")
    headers = {
        "content-length": str(found.size),
        # Whatever an agent wrote is never shown by a browser as if it were this server's own page.
        "content-disposition": f"attachment; filename*=UTF-8''{name}",
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(_bytes(found.portions), headers=headers, media_type=found.mime_type)


async def _bytes(portions: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for portion in portions:
        yield portion


async def delete(call: Call) -> Mapping[str, Any]:
    return await call.uses.files.delete(call.path["file_id"])


_FILE = "anthropic.types.beta.BetaFileMetadata"
_ONE = "/v1/files/{file_id}"
_LIST: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST, "description": "Elements of a page."},
    "page": {**_TEXT, "description": "`next_page` of the page before."},
    "scope_id": {**_TEXT, "description": "Only the files of this session: what it was given, and what it hands out."},
    "ids[]": {"type": "array", "items": _TEXT, "description": "Only these files; not with the other parameters."},
}

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/files",
        upload,
        "Upload a file: the part `file` of a form, with `expires_in_seconds` beside it where it is to expire.",
        gives=_FILE,
        beta=None,
        raw=True,
    ),
    Endpoint(
        "GET",
        "/v1/files",
        listed,
        "List files by age, newest first; of a session, its outputs as they are now.",
        gives=_FILE,
        many=True,
        query=_LIST,
        beta=None,
    ),
    Endpoint("GET", _ONE, retrieve, "What is known of a file.", gives=_FILE, beta=None),
    Endpoint(
        "GET",
        f"{_ONE}/content",
        content,
        "The bytes of a file that a session handed out; uploads are not handed out again.",
        beta=None,
        media="application/octet-stream",
    ),
    Endpoint(
        "DELETE",
        _ONE,
        delete,
        "Delete a file; one that a session handed out, in its sandbox too.",
        gives="anthropic.types.beta.BetaDeletedFile",
        beta=None,
    ),
)
