"""Files and resources as the API shows them, and the names that uploads get. Pure.

Above: `files.service`. Below: the rows.
"""

from __future__ import annotations

import mimetypes
import re
from typing import Any

from server.store.files import FileRow
from server.store.resources import ResourceRow

OCTETS = "application/octet-stream"
MAX_NAME = 255
"""Characters of a file's name; what every file system can hold of plain ones."""
_MIME = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,127}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def file(row: FileRow) -> dict[str, Any]:
    """The object `file`."""
    return {
        "id": row.id,
        "type": "file",
        "filename": row.filename,
        "mime_type": row.mime_type,
        "size_bytes": row.size_bytes,
        "created_at": row.created_at,
        "downloadable": row.path is not None,
        "expires_at": row.expires_at,
        "scope": {"type": "session", "id": row.session_id} if row.session_id else None,
    }


def resource(row: ResourceRow) -> dict[str, Any]:
    """The object of a session's resource; its secret is no part of it."""
    return {"id": row.id, "type": row.type, **row.body, "created_at": row.created_at, "updated_at": row.updated_at}


def name_and_type(filename: str, mime_type: str) -> tuple[str, str]:
    """The name that an upload gets, and its type.

    Of the name only the last component counts, with either slash; an empty one becomes `unnamed` with the extension of
    the type, where one is known. A type that is none is guessed from the name.
    """
    name = _UNPRINTABLE.sub("_", re.split(r"[/\\]", filename)[-1].strip())[-MAX_NAME:]
    kind = mime_type.partition(";")[0].strip().lower()
    if not _MIME.fullmatch(kind):
        kind = mime_of(name)
    if name in ("", ".", ".."):
        name = "unnamed" + (mimetypes.guess_extension(kind) or "")
    return name, kind


def mime_of(name: str) -> str:
    """What a file's name says of its type."""
    return mimetypes.guess_type(name)[0] or OCTETS
