"""bash: a command in the session's live shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.wire import MAX_HEADER, Bash, Operation
from server.tools import BadArguments, Tool

COMMAND_LIMIT = MAX_HEADER // 4
"""Bytes: a command travels in a frame's header, escaped (at worst, six to one for control characters, rare here)."""


def _operation(arguments: Mapping[str, Any]) -> tuple[Operation, bytes]:
    command, restart = arguments.get("command"), arguments.get("restart", False)
    if not restart and not (command or "").strip():
        raise BadArguments("bash: give a `command`, or `restart`: true for a fresh shell.")
    if len((command or "").encode("utf-8", "replace")) > COMMAND_LIMIT:
        raise BadArguments(f"bash: a command of more than {COMMAND_LIMIT:,} bytes. Write it to a file and run that.")
    return Bash(command or None, restart, arguments.get("timeout_ms", 0)), b""


BASH = Tool(
    "bash",
    "Run a command in a bash shell that lives as long as the sandbox: the working directory, variables, functions and"
    " background jobs stay from call to call. Output and errors come back together, in the order in which they were"
    " written, with the exit code when it is not 0. Standard input is empty, so use flags instead of prompts. A"
    " command that runs longer than its timeout is stopped with everything it started; start long-running servers in"
    " the background with `&` and send their output to a file. Output over 100,000 characters is stored in a file and"
    " only its beginning and end are shown.",
    {
        "command": {"type": "string", "description": "The command, or several lines of script."},
        "restart": {
            "type": "boolean",
            "description": "Start a fresh shell first; files stay, variables and jobs do not.",
        },
        "timeout_ms": {"type": "integer", "minimum": 0, "description": "Milliseconds; 0 or omitted means 120,000."},
    },
    (),
    _operation,
)
