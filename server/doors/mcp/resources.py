"""Sessions as resources: transcripts and workspace files. Thin over the service.

Models of most hosts cannot read resources by themselves, so the tools give the same; people and hosts can.
"""

from __future__ import annotations

import json
import mimetypes
from typing import Any

from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.types import Annotations

from server.doors.mcp.door import Door
from server.doors.mcp.results import is_folder
from server.errors import InvalidRequest, NotFound, SkiffError

TRANSCRIPT = "session://{session_id}/transcript{?after,limit}"
WORKSPACE = "workspace://{session_id}/{+path}"
MAX_BYTES = 4 << 20
"""Bytes of a file read as a resource: it travels in one message."""
MAX_EVENTS = 500


def register(mcp: MCPServer[Any], door: Door) -> None:
    """Add the templates."""
    about = Annotations(audience=["user", "assistant"])

    @mcp.resource(
        TRANSCRIPT,
        name="transcript",
        title="Session transcript",
        description="The events of a session numbered above `after`, oldest first, at most `limit`.",
        mime_type="application/json",
        annotations=about,
    )
    async def transcript(session_id: str, after: int = 0, limit: int = 200) -> str:
        try:
            service = await door.service()
            listed = await service.transcript(session_id, after, min(max(limit, 1), MAX_EVENTS))
        except SkiffError as error:
            raise _refusal(error) from error
        events = [{"number": number, **body} for number, body in listed]
        return json.dumps({"session_id": session_id, "events": events}, ensure_ascii=False)

    @mcp.resource(
        WORKSPACE,
        name="workspace",
        title="Workspace file",
        description="A file of a session's workspace, or the listing of a folder.",
        annotations=about,
    )
    async def workspace(session_id: str, path: str) -> str | bytes:
        try:
            service = await door.service()
            found = await service.read_workspace(session_id, path, limit=MAX_BYTES)
        except SkiffError as error:
            raise _refusal(error) from error
        if is_folder(found):
            return json.dumps({"path": found.path, "entries": [entry.__dict__ for entry in found.entries]})
        if len(found.content) < found.size:
            raise ResourceError(
                f"{path} has {found.size:,} bytes; a resource holds {MAX_BYTES:,} at most. Use read_workspace in"
                " portions."
            )
        try:
            return found.content if b"\0" in found.content else found.content.decode()
        except UnicodeDecodeError:
            return found.content


async def name_media_types(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware: a template has one media type for all its resources, files have one each."""
    result = await call_next(ctx)
    if ctx.method == "resources/read" and isinstance(result, dict):
        for item in result.get("contents", ()):
            uri = str(item.get("uri", ""))
            if uri.startswith("workspace://"):
                kind = "application/octet-stream" if "blob" in item else "text/plain"
                item["mimeType"] = mimetypes.guess_type(uri.rpartition("/")[2])[0] or kind
    return result


def _refusal(error: SkiffError) -> ResourceError:
    kind = ResourceNotFoundError if isinstance(error, NotFound | InvalidRequest) else ResourceError
    return kind(str(error))
