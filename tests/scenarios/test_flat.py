"""Sessions come and go, and nothing of them stays behind in the process that drove them."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter, deque
from contextlib import aclosing
from pathlib import Path

import pytest

from server.app import App
from server.sessions import supervisor
from server.sessions.loop import Loop
from server.sessions.service import NewSession
from tests.support.factories import PATIENCE, do_task, running_app, script

BATCH = 24
SUSPICIOUS = BATCH // 2
"""What grows by one a session grows by more."""


def census() -> tuple[Counter[str], dict[int, int]]:
    """How many objects of each class there are, and how much each container holds, by its address."""
    gc.unfreeze()  # what the imports made is kept out of the collector's sight: here it is looked at
    gc.collect()
    there = gc.get_objects()
    kinds = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in there)
    return kinds, {id(each): len(each) for each in there if isinstance(each, dict | set | list | deque)}


async def come_and_go(app: App, number: int) -> None:
    """A session that is followed, talks, calls a tool that is not there, is interrupted, and is deleted."""
    call = {"call": [{"tool": "nothing", "input": {}, "force": True}]}
    asked = NewSession(task=script(call, {"say": "ok"}), agent={"tools": []}, request_key=f"key {number}")
    made = await app.service.create_session(asked)
    frames = await app.service.live(made.id, previews=("agent.message",))
    async with aclosing(frames):
        await app.service.wait([made.id], "all", PATIENCE)
        await app.service.send_message(made.id, script({"hang": True, "say": "-"}), request_key="again")
        await app.service.interrupt(made.id)
        await app.service.delete_session(made.id, if_running="interrupt")
        assert [frame.event["type"] async for frame in frames][-1] == "session.deleted"


def handles() -> tuple[int, int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(asyncio.all_tasks())


def test_sessions_that_came_and_went_leave_no_object_handle_thread_or_task(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_app(tmp_path) as app:
            seen = []
            for batch in range(3):  # the first fills what is kept for ever, and is not compared
                for number in range(BATCH):
                    await come_and_go(app, batch * BATCH + number)
                seen.append((handles(), *census()))
            (handles_before, kinds_before, held_before), (handles_after, kinds_after, held_after) = seen[1:]
            assert handles_after == handles_before
            assert not [
                name for name, count in (kinds_after - kinds_before).items() if count >= SUSPICIOUS and _ours(name)
            ]
            grown = [
                key
                for key in held_before.keys() & held_after.keys()
                if held_after[key] - held_before[key] >= SUSPICIOUS
            ]
            assert not [repr(each)[:200] for each in gc.get_objects() if id(each) in grown]

    asyncio.run(scenario())


def test_conversations_of_idle_sessions_are_kept_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTING_SIZE", 8_000)

    async def scenario() -> None:
        async with running_app(tmp_path) as app:
            made = [await do_task(app, script({"say": "x" * 1_500})) for _ in range(5)]
            gc.collect()
            assert sum(isinstance(each, Loop) for each in gc.get_objects()) == 2
            for view in made:
                await app.service.send_message(view.id, script({"say": "again"}))
            for view in await app.service.wait([view.id for view in made], "all", PATIENCE):
                assert view.state.reply == "again"

    asyncio.run(scenario())


def _ours(name: str) -> bool:
    return name.startswith(
        ("server.", "sandbox.", "asyncio.locks", "asyncio.queues", "_asyncio.", "builtins.coroutine")
    )
