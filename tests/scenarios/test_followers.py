"""A hundred streams on one busy session, a fifth of which nobody reads: the server's memory is bounded, and the others
lose nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.support.cast import Cast, message, silent_reader
from tests.support.served import BETA, TOKEN, VERSION, Site, served

READERS, STALLED = 80, 20
TURNS, SIZE = 20, 100_000
"""Each message is told twice, queued and processed: 4 MB for every reader, 80 MB for those who do not read."""
MOST_MB = 64
"""By which the server's memory may grow at its peak: a frame and a socket's buffer for each reader (25 MB), the
session's own history in the model's requests (a few copies of 2 MB), and room; not what the stalled leave unread."""
SECONDS = 120


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with served("local", stall_seconds=2) as running:
        yield running


def memory_mb(pid: int, name: str) -> float:
    """VmRSS or VmHWM (its peak) of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


async def read(site: Site, session_id: str, opened: asyncio.Semaphore) -> list[str]:
    """The ids of every event of a stream up to the end of the last turn; one more may go ahead once it is open."""
    found, ends = [], 0
    head = {"authorization": f"Bearer {TOKEN}", "anthropic-beta": BETA, "anthropic-version": VERSION}
    async with (
        httpx2.AsyncClient(base_url=site.url, headers=head, timeout=SECONDS) as http,
        http.stream("GET", f"/v1/sessions/{session_id}/events/stream") as stream,
    ):
        opened.release()
        async for line in stream.aiter_lines():
            if line.startswith('data: {"id"'):
                event = json.loads(line.removeprefix("data: "))
                found.append(event["id"])
                ends += event["type"] == "session.status_idle"
                if ends == TURNS:
                    return found
    raise AssertionError(f"the stream ended after {len(found)} events")


def test_a_hundred_followers_cost_no_more_than_their_buffers_and_who_reads_loses_nothing(site: Site) -> None:
    with site.client() as client, ExitStack() as stalled:
        cast = Cast(client)
        made = cast.session()
        cast.turn(made.id, message("warm up"))
        past = {event.id for event in cast.events.list(made.id)}
        before = memory_mb(site.process.pid, "VmRSS")
        for _ in range(STALLED):
            stalled.enter_context(silent_reader(site, made.id))

        async def story() -> list[list[str]]:
            opened = asyncio.Semaphore(0)
            async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
                reading = [group.create_task(read(site, made.id, opened)) for _ in range(READERS)]
                for _ in range(READERS):
                    await opened.acquire()
                for _ in range(TURNS):
                    await asyncio.to_thread(cast.turn, made.id, message("x" * SIZE))
            return [task.result() for task in reading]

        heard = asyncio.run(story())
        grown = memory_mb(site.process.pid, "VmHWM") - before
        assert all(ids == heard[0] for ids in heard), "every reader heard the same, in the same order"
        assert set(heard[0]) == {event.id for event in cast.events.list(made.id)} - past
        assert grown < MOST_MB, f"the server grew by {grown:.0f} MB"
        cast.client.beta.sessions.delete(made.id)
