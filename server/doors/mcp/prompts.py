"""Prompts: slash commands for the person at the host."""

from __future__ import annotations

from typing import Annotated, Any

from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.types import INVALID_PARAMS
from pydantic import Field


def register(mcp: MCPServer[Any]) -> None:
    """Add the prompts."""

    @mcp.prompt(title="Delegate a task", description="Send out a sandboxed sub-agent with this task.")
    def delegate(task: Annotated[str, Field(description="What the sub-agent should do")]) -> str:
        return (
            "Delegate this task to a sandboxed sub-agent with the Skiff tools. Call create_session with a `task` that"
            " is complete in itself (the sub-agent knows nothing of our conversation), and with `files` for what it"
            " needs to see. While it works, do other useful work or wait(session_ids=[...]); do not redo its work."
            " When it rests, check its reply, read the files that matter with read_workspace, and tell me the result."
            "\n\n"
            f"The task:\n{task}"
        )


async def refuse_in_words(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware: an unknown prompt or a missing argument is the caller's mistake, not an internal error."""
    try:
        return await call_next(ctx)
    except ValueError as error:
        if ctx.method != "prompts/get":
            raise
        raise MCPError(INVALID_PARAMS, str(error)) from error
