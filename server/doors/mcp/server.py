"""The MCP server: one object for both protocol eras, over stdio and Streamable HTTP.

Above: the composition root, which gives the service. Below: the tools, resources, prompts and tasks of this folder.
Nothing on the way to `tools/list` waits for the service, or imports what only its use needs.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from mcp.server import MCPServer
from mcp.server.caching import CacheHint
from mcp.server.mcpserver.tools import Tool

from server.doors.mcp import prompts, resources, tools
from server.doors.mcp.brevity import BUDGET
from server.doors.mcp.door import GRACE, Door
from server.doors.mcp.tasks import Tasks, TaskStore
from server.doors.mcp.turns import TurnTasks

if TYPE_CHECKING:
    from server.sessions.service import Service

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

NAME = "skiff"
"""Also the audience of sealed request state: it must not change between versions."""
INSTRUCTIONS = """\
Skiff sends out sub-agents: each works by itself in a sealed sandbox with its own files and shell, and reports back.

How to delegate
1. create_session(task=...) with a task that is complete in itself: the agent knows nothing of this conversation and \
cannot ask back. Say what the result should be and which files to leave. Give it what it needs in `files`.
2. The answer holds its reply when it is done in time; else status is `running`. Its work goes on whether or not you \
wait, and survives time-outs. Do other useful work, then call wait(session_ids=[...]), rather than asking again and \
again.
3. read_workspace shows what it made. send_message continues with the same agent and files, or steers it while it works.
4. delete_session when you need nothing more of it.

Several sessions work side by side: send them out together, then wait(mode="all"). Do not redo what you delegated. \
Every result says under `next` what to call next. read_transcript shows what an agent really did.
"""
"""Hosts cut at 4,096 characters."""
_HOUR = CacheHint(ttl_ms=3_600_000, scope="public")
"""The tools of a running server never change; an hour covers a conversation."""


def build(
    service: Callable[[], Awaitable[Service]],
    key: Callable[[], Awaitable[bytes]] | None = None,
    *,
    budget: int = BUDGET,
    grace: float = GRACE,
    log_level: LogLevel = "WARNING",
) -> MCPServer[Any]:
    """The MCP door.

    service     gives the use-cases; awaited at each call that needs them
    key         gives a secret of the installation, 16 bytes or more, which signs task ids: with it they outlive this
                process; without it they are signed for this process alone
    budget      bytes of one result
    grace       seconds before a long call becomes a task, where the client takes tasks
    """
    door = Door(service, budget, grace)
    mcp = assemble(TurnTasks(door, key or _own_key()), tools.every(door), log_level)
    resources.register(mcp, door)
    prompts.register(mcp)
    return mcp


def assemble(tasks: TaskStore, offered: Sequence[Tool], log_level: LogLevel = "WARNING") -> MCPServer[Any]:
    """The server around these tools and this task store: extension, middleware, caching, instructions."""
    return MCPServer(
        NAME,
        title="Skiff",
        description="Sends out sandboxed sub-agents and brings back the result",
        instructions=INSTRUCTIONS,
        version=installed_version(),
        tools=list(offered),
        extensions=[Tasks(tasks)],
        middleware=[prompts.refuse_in_words, resources.name_media_types],
        cache_hints={"tools/list": _HOUR, "server/discover": _HOUR},
        log_level=log_level,
    )


def _own_key() -> Callable[[], Awaitable[bytes]]:
    made = secrets.token_bytes(32)

    async def key() -> bytes:
        return made

    return key


def installed_version() -> str:
    """The version of the installed distribution; `dev` for a bare checkout."""
    try:
        return version("skiff-agents")
    except PackageNotFoundError:
        return "dev"
