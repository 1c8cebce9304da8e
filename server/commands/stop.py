"""`skiff stop`: interrupt what is at work in a data folder, whichever process drives it.

An interrupt is an input like any other: it goes into the log, and the engine is woken. Where there is none it waits
there, so that the next one stops the session instead of going on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rich.console import Console

from server.app import App, running
from server.errors import Conflict, InvalidRequest, NotFound
from server.sessions.view import SessionView
from server.settings import Settings

ROUNDS = 3
"""A message that was queued begins a turn of its own after the interrupt; the second round stops that one. The third is
for what somebody sent meanwhile."""
ENGINE_SECONDS = 2.0
"""For the engine to be found: its socket is tried several times in a second."""

console = Console()


async def stop(settings: Settings, session_id: str | None, every: bool) -> int:
    """Interrupt one session, or all that are at work, and say what became of each. 1 when one still works."""
    if (session_id is None) != every:
        raise InvalidRequest("Name one session, or say --all.")
    async with running(settings, lead=False) as app:
        driven = await app.role.reached(ENGINE_SECONDS)
        asked: dict[str, SessionView] = {}
        for _ in range(ROUNDS):
            at_work = await app.service.at_work() if session_id is None else [session_id]
            views = await asyncio.gather(*(_interrupt(app, each, driven, every) for each in at_work))
            asked |= {view.id: view for view in views if view is not None}
            if not driven or not any(view is not None and not view.settled for view in views):
                break
        return _report(list(asked.values()), driven)


async def _interrupt(app: App, session_id: str, driven: bool, every: bool) -> SessionView | None:
    """The session after the interrupt; None for one of all that has ended or was deleted meanwhile."""
    try:
        return await app.service.interrupt(session_id, wait=driven)
    except (NotFound, Conflict):
        if not every:
            raise
        return None


def _report(views: Sequence[SessionView], driven: bool) -> int:
    if not views:
        console.print("Nothing is at work.")
    for view in views:
        title = f" ({view.row.title})" if view.row.title else ""
        if view.settled:
            words = f"stopped, after {view.state.tool_calls} tool calls"
        elif driven:
            words = "asked to stop, and still at work: look again with `skiff sessions list`"
        else:
            words = "will stop when a Skiff process drives this data folder again; none does now"
        console.print(f"{view.id}{title}: {words}", highlight=False, markup=False, soft_wrap=True)
    return int(driven and any(not view.settled for view in views))
