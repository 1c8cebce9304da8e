"""glob, grep: find files by name and by content, inside the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.wire import Glob, Grep, Operation
from server.tools import Tool

_WHERE = {"type": "string", "description": "Where to look: a folder (for grep also a file). Omitted: /workspace."}


def _glob(arguments: Mapping[str, Any]) -> tuple[Operation, bytes]:
    return Glob(arguments["pattern"], arguments.get("path")), b""


def _grep(arguments: Mapping[str, Any]) -> tuple[Operation, bytes]:
    return Grep(
        arguments["pattern"],
        arguments.get("path"),
        arguments.get("glob"),
        arguments.get("context", 0),
        arguments.get("head_limit", 0),
    ), b""


GLOB = Tool(
    "glob",
    "Find files by name, newest first: `*.py` anywhere below, `src/**/*.ts`, `{a,b}`, `[0-9]`.",
    {"pattern": {"type": "string", "description": "The pattern."}, "path": _WHERE},
    ("pattern",),
    _glob,
)
GREP = Tool(
    "grep",
    "Find lines that match a regular expression (Python's dialect), as path:line:text. Binary files are left out.",
    {
        "pattern": {"type": "string", "description": "The regular expression; (?i) at its start ignores case."},
        "path": _WHERE,
        "glob": {"type": "string", "description": "Only files whose name matches this pattern."},
        "context": {"type": "integer", "minimum": 0, "description": "Lines to show around each match."},
        "head_limit": {"type": "integer", "minimum": 0, "description": "At most so many lines; 0 means 1,000."},
    },
    ("pattern",),
    _grep,
)
