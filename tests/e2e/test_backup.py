"""A copy of a data folder that is in use, and a server that goes on from it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cast import TOOLSET, Cast, message, text_of, told
from tests.support.program import ROOT
from tests.support.sandboxes import data_folder, require
from tests.support.scenario import bash, call, installation_of
from tests.support.served import served, served_too

WRITERS = 2


def backup(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKIFF_", "ANTHROPIC_"))}
    command = [sys.executable, "-m", "server", "backup", str(target), "--data-dir", str(folder)]
    return subprocess.run(
        command, env={**kept, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, cwd=folder
    )


def listed(cast: Cast, session_id: str) -> list[str]:
    """The ids of what a session's history holds, queued inputs at its end."""
    return [event.id for event in cast.events.list(session_id)]


@contextmanager
def writing(cast: Cast, *session_ids: str) -> Iterator[Mapping[str, list[str]]]:
    """Messages go into the sessions, one after the other, while the block lasts: the ids that were returned."""
    over = threading.Event()
    taken: dict[str, list[str]] = {session_id: [] for session_id in session_ids}

    def write(session_id: str) -> None:
        while not over.is_set():
            taken[session_id] += [event.id for event in cast.events.send(session_id, events=[message("more")]).data]

    threads = [threading.Thread(target=write, args=(each,)) for each in session_ids]
    for thread in threads:
        thread.start()
    try:
        yield taken
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_copy_that_is_made_under_load_has_everything_that_was_acknowledged_and_goes_on_elsewhere() -> None:
    require("local")
    with served() as site, data_folder() as place, site.client() as client:
        cast, target = Cast(client, tools=[TOOLSET]), place / "copy"
        upload = client.beta.files.upload(file=("given.txt", b"the bytes of an upload", "text/plain"))
        made = cast.rested(call(bash("echo kept > here && cat here")), {"say": "$RESULT"})
        talk = Cast(client)
        busy = [talk.rested().id for _ in range(WRITERS)]
        with writing(cast, *busy) as taken:
            while min(len(ids) for ids in taken.values()) < 20:
                listed(cast, busy[0])
            acknowledged = {session_id: list(ids) for session_id, ids in taken.items()}
            said = backup(site.machine.folder, target)
        assert said.returncode == 0, said.stderr
        assert f"{WRITERS + 1} sessions, 1 files" in said.stdout and "workspaces of 1 sandboxes" in said.stdout
        assert installation_of(target) != installation_of(site.machine.folder)
        again = backup(site.machine.folder, target)
        assert again.returncode == 1 and "exists already" in again.stderr
        with served_too(site, target) as other, other.client() as there:
            copy = Cast(there, tools=[TOOLSET])
            for session_id in busy:
                cast.turn(session_id, message("rest"))
                copy.until(session_id, "session.status_idle")
                inside, whole = listed(copy, session_id), listed(cast, session_id)
                assert set(acknowledged[session_id]) <= set(inside)
                assert [event for event in inside if event in set(whole)][:20] == whole[:20]
            shown = copy.turn(made.id, told(call(bash("cat here; echo on")), {"say": "$RESULT"}))
            (reply,) = [text_of(event) for event in shown if event.type == "agent.message"]
            assert "lost with all its files" in reply and reply.rstrip().endswith("on")
            given = [{"type": "file", "file_id": upload.id, "mount_path": "/mnt/session/uploads/given.txt"}]
            fresh = copy.rested(call(bash("cat /mnt/session/uploads/given.txt")), {"say": "$RESULT"}, resources=given)
            (reply,) = [text_of(event) for event in copy.events.list(fresh.id, types=["agent.message"])]
            assert "the bytes of an upload" in reply
            for session_id in (made.id, fresh.id):
                there.beta.sessions.delete(session_id)
        kept = cast.turn(made.id, told(call(bash("cat here")), {"say": "$RESULT"}))
        assert "kept" in [text_of(event).strip() for event in kept if event.type == "agent.message"]
        client.beta.sessions.delete(made.id)


def test_a_copy_of_nothing_or_to_nowhere_is_refused_in_words(tmp_path: Path) -> None:
    shown = backup(tmp_path, tmp_path / "copy")
    assert shown.returncode == 1 and "nothing to copy" in shown.stderr
    (tmp_path / "skiff.db").touch()
    shown = backup(tmp_path, tmp_path / "none" / "copy")
    assert shown.returncode == 1 and "cannot be written" in shown.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["skiff.db"]


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_stands_where_the_copy_should_be_is_not_touched(tmp_path: Path, there: str) -> None:
    (tmp_path / "skiff.db").touch()
    target = tmp_path / "copy"
    if there == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()
    shown = backup(tmp_path, target)
    assert shown.returncode == 1 and "exists already" in shown.stderr
