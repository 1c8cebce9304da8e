"""A page of a session's history, where the history is long, beside the same page of a short one."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.bench import Bench, say
from benchmarks.fake import script
from benchmarks.row import Hold, Row, figure
from benchmarks.site import Places, places, skiff_serve

PAGE = 100
DEEP = 10
"""Pages before the one that is measured."""
TURNS = 2
ROUNDS = 150
"""Rounds of tools in a turn: four events each, so that the session has more than a thousand."""
FEW = 27
"""Rounds that make one page and a little more."""
HOLD = Hold(1.4)
"""A page must not pay for what stands beside it: when the log was read whole for each, this was 2.6. The rest is noise,
and bodies that differ in size."""
CALL = {"call": [{"tool": "nothing", "input": {"command": "true"}, "force": True}]}
"""Of a tool that is not offered: a round that needs no sandbox."""


async def measure(bench: Bench) -> list[Row]:
    """The client gets the pages, and does not read them: that would take as long again."""
    async with skiff_serve(bench) as site, places(site) as there:
        say("listing: a session of a thousand events")
        long = await _session(there, TURNS, ROUNDS)
        short = await _session(there, 1, FEW)
        cursor = await _deep(there, long)
        get = there.client.beta.sessions.events.with_raw_response.list
        deep, only = partial(get, long, limit=PAGE, page=cursor), partial(get, short, limit=PAGE)
        ours: list[float] = []
        beside: list[float] = []
        for number in range(bench.samples(100, 10) + 1):
            took = [time.monotonic()]
            for act in (deep, only):
                await act()
                took.append(time.monotonic())
            if number:
                ours.append((took[1] - took[0]) * 1000)
                beside.append((took[2] - took[1]) * 1000)
        name = f"REST: events.list, page {DEEP + 1} of {PAGE} events each"
        return [Row(name, "ms", figure(ours), figure(beside), "the only full page of a short session", HOLD)]


async def _session(there: Places, turns: int, rounds: int) -> str:
    session_id = await there.session()
    for turn in range(turns):
        await there.send(session_id, script([*[CALL] * rounds, {"say": "Done."}]))
        await there.rest(session_id, turn + 1)
    return session_id


async def _deep(there: Places, session_id: str) -> str:
    """The cursor of the page that is measured. Raises RuntimeError when there is none."""
    page = await there.client.beta.sessions.events.list(session_id, limit=PAGE)
    for _ in range(DEEP - 1):
        page = await page.get_next_page()
    if page.next_page is None:
        raise RuntimeError("the session is too short")
    return page.next_page
