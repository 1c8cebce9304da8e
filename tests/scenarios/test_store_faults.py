"""A disk that is full and a database that another process holds: said in words, nothing lost, and on it goes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.errors import StoreBlocked, StoreError
from server.store import sqlite
from tests.support.scenario import OpenAgain, Scene, Stage, eventually, said, stage_for
from tests.support.small_disk import SmallDisk, small_disk

NO_TOOLS: Mapping[str, Any] = {"tools": []}
LARGE = "x" * 600_000
"""More than the write-ahead log has room for without growing."""
HOLD = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with small_disk() as disk:
        yield disk


@pytest.fixture
def stage(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The data folder lies on the small disk, whose end nobody has noticed before, and the store's log has no room
    ahead."""
    monkeypatch.setattr(sqlite, "STRETCH_BYTES", 0)

    @contextmanager
    def place() -> Iterator[Path]:
        yield disk.folder

    found = stage_for("local", monkeypatch)
    return Stage(found.kind, monkeypatch, place)


def test_on_a_full_disk_a_message_is_refused_in_words_and_what_there_was_can_be_read(
    stage: Stage, disk: SmallDisk
) -> None:
    async def story(scene: Scene) -> None:
        session = (await scene.turn({"say": "Before."}, agent=NO_TOOLS)).id
        before = await scene.types(session)
        with disk.full():
            with pytest.raises(StoreBlocked, match="Free some disk space"):
                await scene.tell(session, say=LARGE)
            assert await scene.types(session) == before
        assert (await scene.again(session, {"say": "After."})).state.reply == "After."
        assert [said(event) for event in await scene.events(session, "agent.message")] == ["Before.", "After."]
        assert len(await scene.events(session, "user.message")) == 2

    stage.play(story, min_free_mb=0)


def test_an_answer_that_meets_a_full_disk_is_held_until_there_is_room(
    stage: Stage, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start({"say": LARGE, "stream": 0.3}, agent=NO_TOOLS)
        await scene.asked(lambda api: api.requests)
        with disk.full():
            await _held(caplog, "Free some disk space")
        view = await scene.finish(session)
        assert (view.state.reply or "")[:9] == "xxxxxxxxx" and view.state.stop_reason == {"type": "end_turn"}
        assert len(scene.api.requests) == 1, "what was paid for is not asked for again"

    stage.play(story, min_free_mb=0)


def test_a_start_on_a_full_disk_fails_in_words_and_the_next_one_has_everything(stage: Stage, disk: SmallDisk) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            session = (await scene.turn({"say": "Kept."}, agent=NO_TOOLS)).id
        with disk.full(), pytest.raises(StoreError, match="disk space"):
            async with open_again(False):
                raise AssertionError("it opened")
        async with open_again(True) as scene:
            assert (await scene.again(session, {"say": "On."})).state.turns == 2
            assert [said(event) for event in await scene.events(session, "agent.message")] == ["Kept.", "On."]

    stage.play_lives(story, min_free_mb=0)


def test_an_upload_torn_by_a_full_disk_leaves_nothing_and_is_said(stage: Stage, disk: SmallDisk) -> None:
    async def story(scene: Scene) -> None:
        files, portion = scene.app.uses.files, b"." * 1_200_000
        with pytest.raises(StoreError, match="No space left on device"):
            async with files.receiving() as incoming:
                await incoming.write(portion)
                with disk.full():
                    await incoming.write(portion)
                    await incoming.write(portion)
        assert not list((disk.folder / "files").iterdir())
        async with files.receiving() as incoming:
            await incoming.write(portion)
            kept = await files.keep(incoming, "small.bin", "application/octet-stream", None)
        assert kept["size_bytes"] == len(portion)

    stage.play(story, min_free_mb=0)


def test_a_lock_of_another_process_is_waited_for_and_one_that_stays_is_said(
    local: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        database = scene.app.settings.data_dir / "skiff.db"
        session = (await scene.turn({"say": "One."}, agent=NO_TOOLS)).id
        with _holding(database) as release:
            sending = asyncio.create_task(scene.tell(session, {"say": "Two."}))
            await asyncio.wait({sending}, timeout=0.2)
            assert not sending.done()
            release()
            await sending
        assert (await scene.finish(session)).state.reply == "Two."
        monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
        with _holding(database):
            many = [scene.tell(session, say="refused") for _ in range(5)]
            refused = await asyncio.gather(*many, return_exceptions=True)
            assert {type(error) for error in refused} == {StoreBlocked}
            assert all("Another process holds the database" in str(error) for error in refused)
        await scene.tell(session, {"say": "Three.", "stream": 0.3})
        await scene.asked(lambda api: len(api.requests) == 3)
        with _holding(database):
            await _held(caplog, "Another process holds the database")
        view = await scene.finish(session)
        assert (view.state.reply, view.state.turns, len(scene.api.requests)) == ("Three.", 3, 3)

    local.play(story)


async def _held(caplog: pytest.LogCaptureFixture, why: str) -> None:
    """Return once the engine has said that something waits to be stored."""

    async def said_so() -> bool:
        return any("waits to be stored" in line and why in line for line in caplog.messages)

    await eventually(said_so, "a word on what cannot be stored")


@contextmanager
def _holding(database: Path) -> Iterator[Callable[[], None]]:
    """Another process has begun to write and does not end, until it is released, or the block is over."""
    command = [sys.executable, "-c", HOLD, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"
        yield other.stdin.close
        other.stdin.close()
