"""Followers of one session: how fast its events reach them, and what a crowd of them adds to the server's memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.bench import Bench, say
from benchmarks.fake import script
from benchmarks.row import Row, figure
from benchmarks.rows.memory import settled
from benchmarks.site import TURN_SECONDS, Follower, Places, Site, bare_serve, places, skiff_serve

FOLLOWERS = 20
BATCH = 100
"""Events in one request: the most that the API takes."""
BATCHES = 10
CROWD = 100
STALLED = 20
"""Of the crowd: they read nothing."""
LARGE = "x" * 100_000
LARGE_EVENTS = 60
"""Six megabytes: more than a socket's buffers hold of what its reader leaves unread."""
MARK = b"event: user.message\n"
AT_WORK = script([{"hang": True, "say": "never"}])
"""While the model says nothing, messages are stored and told, and nothing else happens."""
BARE = "a bare Starlette with a queue a follower, and no log"
SOCKETS = "followers are bare sockets, so that no client is measured; who sends is the official client"


async def measure(bench: Bench) -> list[Row]:
    """No session here has a sandbox."""
    async with (
        skiff_serve(bench) as site,
        places(site) as there,
        bare_serve(bench, there, await there.session()) as beside,
        beside.client() as client,
    ):
        both = (Side(site, there, there), Side(beside, Places(client, there.agent, there.environment), there))
        return [await _rate(bench, both), await _memory(both)]


@dataclass(frozen=True)
class Side:
    """A server whose followers are measured."""

    site: Site
    sender: Places
    maker: Places
    """Where its sessions are made: the bare one takes every id for a session."""

    async def busy(self) -> str:
        """A session that waits for its model."""
        session_id = await self.maker.session(AT_WORK)
        stream = self.maker.client.beta.sessions.events.stream
        async with asyncio.timeout(TURN_SECONDS), await stream(session_id, extra_query={"after": 0}) as events:
            async for event in events:
                if event.type == "span.model_request_start":
                    return session_id
        raise RuntimeError("the session never came to its model")

    @asynccontextmanager
    async def followed(self, session_id: str, followers: int, stalled: int = 0) -> AsyncIterator[list[Follower]]:
        """Followers of the session; those that read nothing are left out of the list."""
        crowd = [await self.site.follow(session_id, stalled=number < stalled) for number in range(followers)]
        try:
            yield crowd[stalled:]
        finally:
            for follower in crowd:
                follower.close()


# --- how fast --------------------------------------------------------------------------------------------------------


async def _rate(bench: Bench, both: Sequence[Side]) -> Row:
    rates: list[list[float]] = [[] for _ in both]
    for number in range(bench.samples(5, 1) + 1):
        say(f"followers: {FOLLOWERS} of one session, {number + 1}")
        for side, found in zip(both, rates, strict=True):
            rate = await _events_a_second(side)
            if number:  # the first round warms both sides up
                found.append(rate)
    ours, bare = map(figure, rates)
    name = f"REST: events a second, each to {FOLLOWERS} followers"
    return Row(name, "events/s", ours, bare, BARE, None, (SOCKETS,))


async def _events_a_second(side: Side) -> float:
    """From the first send until the last follower has seen every event."""
    session_id = await side.busy()
    async with side.followed(session_id, FOLLOWERS) as crowd:
        began = time.monotonic()
        async with asyncio.timeout(TURN_SECONDS), asyncio.TaskGroup() as tasks:
            for follower in crowd:
                tasks.create_task(follower.until(MARK, BATCH * BATCHES))
            for _ in range(BATCHES):
                await side.sender.send(session_id, *["Go on."] * BATCH)
        return BATCH * BATCHES / (time.monotonic() - began)


# --- how much --------------------------------------------------------------------------------------------------------


async def _memory(both: Sequence[Side]) -> Row:
    """Resident memory with a crowd, less that of the same events with one follower."""
    added = []
    for side in both:
        say(f"followers: {CROWD}, {STALLED} of them stalled")
        levels = [await _told(side, followers, stalled) for followers, stalled in ((1, 0), (1, 0), (CROWD, STALLED))]
        # from the first to the second nothing grew but the history of one more session
        added.append(((levels[2] - levels[1]) - (levels[1] - levels[0])) * 1024 / (CROWD - 1))
    ours, bare = (figure([each]) for each in added)
    notes = (
        SOCKETS,
        "the mean over all while they are connected, without the kernel's part; the events are queued inputs",
    )
    name = f"REST: memory added per follower, of {CROWD} with {STALLED} stalled"
    return Row(name, "KB", ours, bare, BARE, None, notes)


async def _told(side: Side, followers: int, stalled: int) -> float:
    """The server's memory in MB, once all but the stalled ones have read megabytes of a session's events."""
    session_id = await side.busy()
    async with side.followed(session_id, followers, stalled) as crowd:
        async with asyncio.timeout(TURN_SECONDS), asyncio.TaskGroup() as tasks:
            for follower in crowd:
                tasks.create_task(follower.until(MARK, LARGE_EVENTS))
            for _ in range(LARGE_EVENTS):
                await side.sender.send(session_id, LARGE)
        return await settled(side.site.pid)
