"""Sandboxes that nobody uses for long: put away with their files, and back with the next message or look."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.app import running
from server.backup import back_up
from server.sessions.sandboxing.place import Place
from tests.support.sandboxes import data_folder
from tests.support.scenario import (
    OpenAgain,
    Scene,
    Stage,
    bash,
    call,
    containers,
    docker,
    eventually,
    installation_of,
    reply,
)

SOON: dict[str, Any] = {"stop_after": 1.0, "checkpoint_after": 1.0}
MADE = (
    "X=1; sleep 1000 & mkdir -p 'a b/empty'; echo kept > 'a b/f'; chmod 741 'a b/f'; ln -s f 'a b/l'; echo t > /tmp/t;"
    " echo out > /mnt/session/outputs/result"
)
SEEN = "cat 'a b/f'; stat -c %a 'a b/f'; readlink 'a b/l'; ls 'a b'; echo \"X=$X\"; cat /tmp/t; jobs"
EXPECTED = "kept\n741\nf\nempty\nf\nl\nX=\ncat: /tmp/t: No such file or directory\n"


def rows(folder: Path) -> list[tuple[str, str | None, int]]:
    """State, archive and its size of every sandbox in the database."""
    with closing(sqlite3.connect(folder / "skiff.db")) as database:
        return list(database.execute("SELECT state, archive, archive_bytes FROM sandboxes ORDER BY session_id"))


def archives(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "archives").glob("*"))


def left(scene: Scene) -> list[str]:
    """What there is of sandboxes outside the archives."""
    folder = scene.app.settings.data_dir
    if scene.kind == "local":
        return sorted(path.name for path in (folder / "sandboxes").glob("skiff-*"))
    label = f"label=dev.skiff.installation={installation_of(folder)}"
    return containers(folder) + docker("volume", "ls", "-q", "--filter", label).split()


async def put_away(scene: Scene, count: int = 1) -> None:
    """Wait until so many sandboxes are in archives, and nowhere else."""
    folder = scene.app.settings.data_dir

    async def stored() -> bool:
        return [row[0] for row in rows(folder)] == ["stored"] * count and not left(scene)

    await eventually(stored, "the putting away")
    assert sorted(str(row[1]) for row in rows(folder)) == archives(folder)
    assert sum(row[2] for row in rows(folder)) == sum(
        (folder / "archives" / name).stat().st_size for name in archives(folder)
    )


def test_a_long_idle_sandbox_is_put_away_and_the_next_message_brings_it_back(stage: Stage) -> None:
    async def story(scene: Scene) -> None:
        folder = scene.app.settings.data_dir
        session = (await scene.turn(call(bash(MADE)), {"say": "Made."})).id
        await put_away(scene)
        said = reply(await scene.again(session, call(bash(SEEN)), {"say": "$RESULT"}))
        news, _, rest = said.partition("]\n")
        assert "put away" in news and rest.strip() == EXPECTED.strip()
        assert reply(await scene.again(session, call(bash("echo again")), {"say": "$RESULT"})) == "again", "told once"
        assert archives(folder) == [] and rows(folder)[0][1] is None

    stage.play(story, **SOON)


def test_reading_a_sandbox_that_was_put_away_brings_it_back_and_the_agent_is_told_later(engine: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = (await scene.turn(call(bash(MADE)), {"say": "Made."})).id
        await put_away(scene)
        assert await scene.file(session, "a b/f") == "kept\n"
        (file,) = await scene.app.uses.files.files(10, None, "asc", scope_id=session)
        assert (file["filename"], file["size_bytes"]) == ("result", 4)
        await put_away(scene)
        said = reply(await scene.again(session, call(bash("cat 'a b/f'")), {"say": "$RESULT"}))
        assert said.count("put away") == 1 and said.endswith("kept")

    engine.play(story, **SOON)


def test_a_backup_has_the_archives_and_deleting_a_session_removes_its_own(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = (await scene.turn(call(bash(MADE)), {"say": "Made."})).id
        await put_away(scene)
        with data_folder() as elsewhere:
            copied = await back_up(scene.app.settings.data_dir, elsewhere / "copy")
            assert (copied.sessions, copied.sandboxes) == (1, 0)
            settings = scene.app.settings.model_copy(update={"data_dir": elsewhere / "copy"})
            async with running(settings) as app:
                copy = Scene(app, scene.api, scene.kind)
                assert reply(await copy.again(session, call(bash("cat 'a b/f'")), {"say": "$RESULT"})).endswith("kept")
        await scene.service.delete_session(session, if_running="interrupt")
        assert archives(scene.app.settings.data_dir) == [] and rows(scene.app.settings.data_dir) == []

    local.play(story, **SOON)


def test_files_that_are_more_than_the_disk_may_hold_stay_in_a_stopped_sandbox(
    local: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        folder = scene.app.settings.data_dir
        fill = "head -c 15M /dev/urandom > a; head -c 5M /dev/urandom > b; echo kept > f"
        session = (await scene.turn(call(bash(fill)), {"say": "Full."})).id

        async def refused() -> bool:
            return "more than its disk may hold" in caplog.text

        await eventually(refused, "the refusal")
        assert rows(folder) == [("stopped", None, 0)] and archives(folder) == []
        assert "kept" in reply(await scene.again(session, call(bash("cat f")), {"say": "$RESULT"}))

    local.play(story, **SOON, sandbox_disk_mb=16)


def test_a_message_that_comes_while_files_are_packed_is_answered_and_nothing_is_put_away(engine: Stage) -> None:
    async def story(scene: Scene) -> None:
        folder = scene.app.settings.data_dir
        session = (await scene.turn(call(bash("head -c 60M /dev/urandom > big; echo kept > f")), {"say": "Big."})).id

        async def packing() -> bool:
            return any(name.endswith(".part") for name in archives(folder))

        await eventually(packing, "the packing")
        said = reply(await scene.again(session, call(bash("cat f; wc -c < big")), {"say": "$RESULT"}))
        assert "stopped and started again" in said and said.endswith("kept\n62914560")
        assert archives(folder) == [] and rows(folder)[0][:2] == ("live", None)

    engine.play(story, **SOON)


def test_an_archive_that_cannot_be_unpacked_is_kept_and_one_that_is_gone_is_said_to_be_lost(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        folder = scene.app.settings.data_dir
        session = (await scene.turn(call(bash("echo kept > f")), {"say": "Made."})).id
        await put_away(scene)
        (name,) = archives(folder)
        whole = (folder / "archives" / name).read_bytes()
        (folder / "archives" / name).write_bytes(whole[:-20])
        said = reply(await scene.again(session, call(bash("cat f")), {"say": "$RESULT"}))
        assert "could not be brought back" in said and "kept" in said and left(scene) == []
        (folder / "archives" / name).write_bytes(whole)

        async def back() -> bool:  # the last turn's try, made ahead, may still fail
            return reply(await scene.again(session, call(bash("cat f")), {"say": "$RESULT"})).endswith("\nkept")

        await eventually(back, "the file")
        await put_away(scene)
        (folder / "archives" / archives(folder)[0]).unlink()
        assert "lost with all its files" in reply(await scene.again(session, call(bash("ls")), {"say": "$RESULT"}))

    local.play(story, **SOON)


def test_of_the_lives_of_many_sessions_nothing_is_left_anywhere(engine: Stage) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            half = await scene.start(call(bash("echo never")), {"say": "Never said."})
            await scene.service.delete_session(half, if_running="interrupt")
            made = [(await scene.turn(call(bash(MADE)), {"say": "Made."})).id for _ in range(3)]
            folder = scene.app.settings.data_dir
        assert len(asyncio.all_tasks()) == 1
        assert containers(folder, "--filter", "status=paused"), "the last one lives on, frozen"
        (folder / "archives").mkdir(exist_ok=True)
        (folder / "archives" / "left.part").write_bytes(b"of a crash")
        async with open_again(True) as scene:
            await put_away(scene, 3)

            async def forgotten() -> bool:
                gc.unfreeze()
                gc.collect()
                return not [each for each in gc.get_objects() if isinstance(each, Place)]

            await eventually(forgotten, "the end of what is kept in memory of sessions at rest")
            for session in made:
                said = reply(await scene.again(session, call(bash("cat 'a b/f'")), {"say": "$RESULT"}))
                assert said.endswith("kept")
            back = await scene.start(call(bash("sleep 1000")), {"say": "Never said."})
            await scene.until(back, lambda event: event.type == "agent.tool_use")
        assert len(asyncio.all_tasks()) == 1
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert {name for name in there if not name.startswith(("skiff.db", "engine.", "sandboxes/parts"))} == set()
        label = f"label=dev.skiff.installation={installation_of(folder)}"
        assert docker("network", "ls", "-q", "--filter", label) == docker("ps", "-aq", "--filter", label) == ""

    engine.play_lives(story, **SOON)
