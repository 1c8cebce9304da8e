"""read, write, edit: one file at a time, done inside the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.wire import MAX_BODY, MAX_HEADER, Edit, Operation, Read, Write
from server.tools import BadArguments, Tool

_PATH = {"type": "string", "description": "Absolute, or relative to /workspace."}
EDIT_LIMIT = MAX_HEADER // 4
"""Bytes of old_string and new_string together: both travel in a frame's header, escaped (at worst, six to one)."""


def _read(arguments: Mapping[str, Any]) -> tuple[Operation, bytes]:
    return Read(arguments["file_path"], arguments.get("view_range")), b""


def _write(arguments: Mapping[str, Any]) -> tuple[Operation, bytes]:
    content = arguments["content"].encode("utf-8", "replace")
    if len(content) > MAX_BODY:
        raise BadArguments(f"write: more than {MAX_BODY:,} bytes. Write the file in parts with bash.")
    return Write(arguments["file_path"]), content


def _edit(arguments: Mapping[str, Any]) -> tuple[Operation, bytes]:
    old, new = arguments["old_string"], arguments["new_string"]
    if len((old + new).encode("utf-8", "replace")) > EDIT_LIMIT:
        raise BadArguments(f"edit: more than {EDIT_LIMIT:,} bytes of text at once. Edit in parts, or use write.")
    return Edit(arguments["file_path"], old, new, arguments.get("replace_all", False)), b""


READ = Tool(
    "read",
    "Read a file: text as it is, an image or PDF as such. A long text is cut; read on with view_range.",
    {
        "file_path": _PATH,
        "view_range": {
            "type": "array",
            "items": {"type": "integer"},
            "minItems": 2,
            "maxItems": 2,
            "description": "First and last line, counted from 1, both included; a last line of 0 or less is the end.",
        },
    },
    ("file_path",),
    _read,
)
WRITE = Tool(
    "write",
    "Write a text file whole, replacing what was there; missing folders are made.",
    {"file_path": _PATH, "content": {"type": "string", "description": "The whole new content."}},
    ("file_path", "content"),
    _write,
)
EDIT = Tool(
    "edit",
    "Replace a piece of text in a file. old_string must occur exactly once, with its whitespace, unless replace_all.",
    {
        "file_path": _PATH,
        "old_string": {"type": "string", "description": "The text to replace, exactly as it stands in the file."},
        "new_string": {"type": "string", "description": "What to put in its place."},
        "replace_all": {"type": "boolean", "description": "Replace every occurrence."},
    },
    ("file_path", "old_string", "new_string"),
    _edit,
)
