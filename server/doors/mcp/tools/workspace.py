"""Reading and writing the files of a session."""

from __future__ import annotations

import base64
import codecs
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import Field

from server.doors.mcp.brevity import fitting, weight
from server.doors.mcp.door import Door
from server.doors.mcp.results import FolderEntry, WorkspacePart, Written, is_folder
from server.doors.mcp.tools.parameters import SessionId
from server.doors.mcp.tools.tool import tool
from server.doors.mcp.waiting import whole

if TYPE_CHECKING:
    from server.sessions.sandboxing.workspace import File, Folder
    from server.sessions.service import Service

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What models can see."""
MAX_IMAGE = 3_750_000
"""Bytes of an image that is shown: model APIs take five million characters of base64."""
FRAME = 1_500
"""Bytes of a result beside the content."""
CHARACTER = 4
"""Bytes of the longest character: a portion never holds less than one."""
CHUNK = 1 << 20
"""Bytes of an image fetched at a time."""

Path = Annotated[str, Field(description="Relative to the workspace", max_length=1000)]


class WorkspaceTools:
    """read_workspace and write_workspace."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def tools(self) -> list[Tool]:
        return [
            tool(self.read_workspace, "Read workspace", "reads", core=True),
            tool(self.write_workspace, "Write workspace file", "writes"),
        ]

    async def read_workspace(
        self,
        session_id: SessionId,
        path: Path = ".",
        after: Annotated[
            str, Field(max_length=1000, description="Folder: show what comes after this name (next_after of a page)")
        ] = "",
        offset: Annotated[
            int, Field(ge=0, description="File: byte at which to begin (next_offset of the portion before)")
        ] = 0,
        limit: Annotated[
            int, Field(ge=1, description="File: bytes to read at most; one result holds some 18,000 in any case")
        ] = 100_000,
    ) -> Annotated[CallToolResult, WorkspacePart]:
        """Look into a session's files: lists a folder, reads a text file or a range of its bytes, shows an image.
        Works while the agent works, and after. What does not fit into one result says how to read on; binary files are
        described. It costs the agent nothing: fetch results from here rather than asking it to repeat them."""
        service = await self._door.service()
        budget = self._door.budget - FRAME
        found = await service.read_workspace(
            session_id, path, after=after, offset=offset, limit=min(max(limit, CHARACTER), self._door.budget)
        )
        if is_folder(found):
            return _result(folder(session_id, found, after, budget))
        if found.media_type in IMAGES and offset == 0 and found.size <= MAX_IMAGE:
            return _image(session_id, found, await _all_of(service, session_id, found))
        return _result(file(session_id, found, budget))

    async def write_workspace(
        self,
        session_id: SessionId,
        path: Path,
        content: Annotated[str, Field(description="The whole text of the file; what was there before is replaced")],
    ) -> Written:
        """Place a text file in a session's workspace, making its folders. The agent is not told: mention it in your
        next send_message."""
        service = await self._door.service()
        body = content.encode()
        await whole(service.write_workspace(session_id, path, body))
        words = f"send_message(session_id={session_id!r}, message=...) tells the agent about it."
        return Written(session_id=session_id, path=path, size=len(body), next=words)


def folder(session_id: str, found: Folder, after: str, budget: int) -> WorkspacePart:
    """A page of a folder: as many entries as fit."""
    entries: list[FolderEntry] = []
    used = 0
    pending = [entry for entry in found.entries if entry.name > after]
    for entry in pending:
        used += weight({"name": entry.name, "type": entry.type, "size": entry.size}) + 2
        if entries and used > budget:
            break
        size = entry.size if entry.type == "file" else None
        entries.append(FolderEntry(name=entry.name, type=entry.type, size=size))
    following = found.next if len(entries) == len(pending) else entries[-1].name
    words = f"read_workspace(session_id={session_id!r}, path=...) opens an entry (paths are relative to the workspace)."
    if following is not None:
        words = f"There is more: read_workspace(session_id={session_id!r}, path={found.path!r}, after={following!r})."
    elif not entries:
        words = "The folder is empty."
    return WorkspacePart(
        session_id=session_id,
        path=found.path,
        kind="folder",
        entries=entries,
        total=found.total,
        next_after=following,
        next=words,
    )


def file(session_id: str, found: File, budget: int) -> WorkspacePart:
    """A portion of a text file, or the description of a binary one."""
    found = _from_a_character(found)
    text = decoded(found.content, last=found.offset + len(found.content) >= found.size)
    if text is None:
        words = "It is not text. Ask the agent (send_message) to extract what you need."
        return _part(session_id, found, "binary", words)
    text = text[: fitting(text, budget)]
    end = found.offset + len(text.encode())
    if end >= found.size:
        return _part(session_id, found, "text", "That is the end of the file.", text)
    words = (
        f"{found.size - end:,} of {found.size:,} bytes are left:"
        f" read_workspace(session_id={session_id!r}, path={found.path!r}, offset={end})."
    )
    return _part(session_id, found, "text", words, text, end)


def _from_a_character(found: File) -> File:
    """The portion without the rest of a character that begins before it."""
    skip = 0
    while found.offset and skip < min(CHARACTER - 1, len(found.content)) and found.content[skip] & 0xC0 == 0x80:
        skip += 1
    return replace(found, content=found.content[skip:], offset=found.offset + skip)


def decoded(content: bytes, *, last: bool) -> str | None:
    """The text of a portion, None when it is not text. A character that the portion's end parts waits for the next."""
    if b"\0" in content:
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(content, final=last)
    except UnicodeDecodeError:
        return None


def _part(
    session_id: str,
    found: File,
    kind: str,
    words: str,
    text: str | None = None,
    next_offset: int | None = None,
) -> WorkspacePart:
    return WorkspacePart.model_validate(
        {
            "session_id": session_id,
            "path": found.path,
            "kind": kind,
            "text": text,
            "offset": found.offset,
            "size": found.size,
            "media_type": found.media_type,
            "next_offset": next_offset,
            "next": words,
        }
    )


def _image(session_id: str, found: File, content: bytes) -> CallToolResult:
    """The image beside a structured description: the output schema demands one.

    Some hosts show the model only the structured part; it names the resource by which those show the image.
    """
    words = f"The image is attached. If you do not see it, read the resource workspace://{session_id}/{found.path}."
    data = base64.b64encode(content).decode()
    image = ImageContent(type="image", data=data, mime_type=found.media_type)
    return _result(_part(session_id, found, "image", words), image)


def _result(part: WorkspacePart, *blocks: ContentBlock) -> CallToolResult:
    text = TextContent(type="text", text=part.model_dump_json(exclude_none=True))
    return CallToolResult(content=[*blocks, text], structured_content=part.model_dump(mode="json"))


async def _all_of(service: Service, session_id: str, found: File) -> bytes:
    """The whole file of which `found` is the beginning."""
    content = found.content
    while len(content) < found.size:
        more = await service.read_workspace(session_id, found.path, offset=len(content), limit=CHUNK)
        if is_folder(more) or not more.content:
            break  # the agent has changed it meanwhile: show what there was
        content += more.content
    return content
