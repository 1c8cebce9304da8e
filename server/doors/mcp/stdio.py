"""The MCP door over standard input and output: what hosts start."""

from __future__ import annotations

from typing import Any

from mcp.server import MCPServer


async def run_stdio(mcp: MCPServer[Any]) -> None:
    """Serve until standard input ends or the task is cancelled.

    While it serves, the SDK keeps the protocol on a private copy of standard output: whatever else is printed in this
    process, or by children that inherit it, goes to standard error. Log handlers write there too.
    """
    await mcp.run_stdio_async()
