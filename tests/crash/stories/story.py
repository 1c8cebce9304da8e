"""What a story is, and what all of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.errors import Conflict, NotFound
from server.sessions.sandboxing.workspace import File
from tests.crash.act import TOOLS, Act
from tests.support.scenario import MODEL, bash, call

Part = Callable[[Act], Coroutine[Any, Any, None]]


async def nothing(act: Act) -> None:
    """The turn goes on without anybody."""


async def ask_again(act: Act) -> None:
    """The client sends again what was not answered."""
    await act.ask_again()


@dataclass(frozen=True)
class Story:
    """begin     the client's part, up to the crash
    between   what happens while no process is there
    go_on     the client's part once a process is there again; the turn must then end by itself
    look      what is this story's own to be seen of the session, at rest
    check     likewise, once the session is deleted
    lines     what is in the counter at the end: each line exactly once, unless its call was unknowable
    maybe     lines that may be missing as well
    edits     lines of `list` at the end, likewise
    reply     the end of the agent's last reply, unless a call was unknowable; None: whatever
    settings  of every process; `{folder}` stands for the data folder
    fails     a request to the model fails, and the log says so
    """

    begin: Part
    between: Part = nothing
    go_on: Part = nothing
    look: Part = nothing
    check: Part = nothing
    lines: tuple[str, ...] = ()
    maybe: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    reply: str | None = "Done."
    settings: Mapping[str, str] = field(default_factory=dict)
    fails: bool = False


def counted(name: str, then: str = "") -> dict[str, Any]:
    """A command that leaves its line."""
    return bash(f"echo {name} >> counter{then}")


def edited(old: str, name: str) -> dict[str, Any]:
    """An edit that leaves its line."""
    edit = {"file_path": "list", "old_string": old, "new_string": f"{name}\n{old}"}
    return {"tool": "edit", "input": edit}


FIRST = call(counted("one", "; echo end > list"))
DONE = {"say": "Done."}
GATE = "; echo begun; until [ -e on ]; do sleep 0.05; done; echo over; touch over"
"""Waits to be let go on, and says when it has."""


async def file(act: Act, path: str, text: str = "") -> str:
    """A file of the workspace that holds this text, read through the program; "" while there is none."""
    try:
        found = await act.door.service.read_workspace(act.session, path)
    except (NotFound, Conflict):
        return ""
    content = found.content.decode() if isinstance(found, File) else ""
    return content if text in content else ""


async def over_the_wire(act: Act) -> None:
    """An agent and an environment, made over HTTP."""
    agent = await act.post("/v1/agents", {"name": "helper", "model": MODEL, "tools": list(TOOLS)}, "agent")
    place = {"name": "place", "config": {"type": "cloud", "networking": {"type": "limited"}}}
    environment = await act.post("/v1/environments", place, "environment")
    act.given = {"agent": agent["id"], "environment_id": environment["id"]}


async def no_upload_is_left(act: Act) -> None:
    await act.door.uses.files.delete(act.given["upload"])
