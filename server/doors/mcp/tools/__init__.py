"""The tools, one file a group."""

from __future__ import annotations

from mcp.server.mcpserver.tools import Tool

from server.doors.mcp.door import Door
from server.doors.mcp.tools.messages import MessageTools
from server.doors.mcp.tools.respond import RespondTool
from server.doors.mcp.tools.sessions import SessionTools
from server.doors.mcp.tools.transcript import TranscriptTools
from server.doors.mcp.tools.workspace import WorkspaceTools


def every(door: Door) -> list[Tool]:
    """All tools, in the order in which `tools/list` shows them; it never changes, for the sake of prompt caches."""
    sessions, messages = SessionTools(door), MessageTools(door)
    workspace, transcript = WorkspaceTools(door), TranscriptTools(door)
    return [
        *sessions.making(),
        *messages.tools(),
        *RespondTool(door).tools(),
        *sessions.looking(),
        *workspace.tools(),
        *transcript.tools(),
        *sessions.ending(),
    ]
