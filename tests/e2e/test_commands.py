"""The `skiff` command as a person uses it: every command as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.local.backend import LocalBackend
from sandbox.protocol import SandboxSpec
from server.app import prepare_data_dir, running
from server.commands import sandbox, work
from server.commands.serve import http_token
from server.engine.doorbell import Doorbell, socket_path
from server.engine.lock import EngineLock
from server.errors import InvalidRequest, StoreError
from server.sessions.service import NewSession
from server.settings import load
from tests.support.sandboxes import require
from tests.support.scenario import eventually

ROOT = Path(__file__).resolve().parents[2]


def skiff(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with only these SKIFF_ variables, and no key."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SKIFF_", "ANTHROPIC_"))}
    command = [sys.executable, "-m", "server", *arguments]
    environment = {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def session(folder: Path) -> str:
    """A session that has done its task, without a sandbox."""

    async def make() -> str:
        async with running(load(data_dir=folder, sandbox="local", model="scripted")) as app:
            asked = NewSession(task='```script\n[{"say": "All is well."}]\n```', agent={"tools": []}, title="check")
            view = await app.service.create_session(asked)
            await app.service.wait([view.id], "all", 60)
            return view.id

    return asyncio.run(make())


def test_alone_it_prints_help_that_names_every_command() -> None:
    shown = skiff()
    for command in ("mcp", "serve", "work", "demo", "doctor", "sandbox", "sessions"):
        assert command in shown.stdout + shown.stderr


def test_the_demonstration_brings_back_a_reply_and_a_file_without_a_key() -> None:
    require("local")
    shown = skiff("demo", "--sandbox", "local")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "No API key is set" in shown.stdout and "/workspace/primes.py" in shown.stdout
    assert "2 3 5 7 11 13" in shown.stdout and "turn 1" in shown.stdout


def test_the_doctor_says_what_is_well_and_what_to_do(folder: Path) -> None:
    shown = skiff(
        "doctor", "--data-dir", str(folder), DOCKER_HOST="unix:///nowhere.sock", SKIFF_MIN_FREE_MB="999999999"
    )
    assert "nothing new is begun below 999999999 (setting min_free_mb); free some space" in shown.stdout
    assert "no key: set ANTHROPIC_API_KEY" in shown.stdout and shown.returncode == 1
    assert all(name in shown.stdout for name in ("python", "data folder", "disk", "engine", "bubblewrap"))


def test_sessions_are_listed_shown_followed_and_removed(folder: Path, session: str) -> None:
    where = ("--data-dir", str(folder))
    listed = skiff("sessions", "list", *where, SKIFF_MAX_USD_PER_DAY="2.5").stdout
    assert session in listed and "today    $0.0000" in listed and "cap: $2.5" in listed
    shown = skiff("sessions", "show", session, *where).stdout
    assert "All is well." in shown and "idle" in shown and "$0.0000 in the last turn" in shown and "scripted" in shown
    assert "of the latest turn's prompts came from the cache" in shown
    told = skiff("sessions", "tail", session, *where).stdout
    assert "user.message" in told and told.rstrip().splitlines()[-1].split()[2] == "session.status_idle"
    removed = skiff("sessions", "rm", session, *where, SKIFF_SANDBOX="local")
    assert removed.returncode == 0, removed.stderr
    assert session not in skiff("sessions", "list", *where).stdout


def test_an_unknown_session_is_one_line_of_advice(folder: Path) -> None:
    shown = skiff("sessions", "show", "sesn_nobody", "--data-dir", str(folder))
    assert shown.returncode == 1
    assert shown.stderr.startswith("skiff: No session 'sesn_nobody'") and "Traceback" not in shown.stderr


def test_a_misspelt_variable_is_refused_by_name(folder: Path) -> None:
    shown = skiff("sessions", "list", "--data-dir", str(folder), SKIFF_MODLE="x")
    assert shown.returncode == 1 and "SKIFF_MODLE" in shown.stderr


def test_the_data_folder_is_closed_to_others_and_so_is_its_token(folder: Path) -> None:
    async def make() -> None:
        settings = load(data_dir=folder, sandbox="local", model="scripted")
        async with running(settings, lead=False):
            token, made = http_token(settings)
            assert made and http_token(settings) == (token, False)

    asyncio.run(make())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir() if "token" in path.name) == ["token"]


def test_an_empty_token_file_is_refused_and_nobody_is_served(folder: Path) -> None:
    prepare_data_dir(folder)
    (folder / "token").write_text("\n")
    with pytest.raises(InvalidRequest, match="token is empty; delete it and start again"):
        http_token(load(data_dir=folder))
    shown = skiff("serve", "--data-dir", str(folder), "--sandbox", "local", "--port", "0")
    assert shown.returncode == 1 and "is empty; delete it" in shown.stderr and "serving" not in shown.stderr


def test_a_token_whose_writing_fails_leaves_no_file_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    prepare_data_dir(folder)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            http_token(load(data_dir=folder))
    assert list(folder.iterdir()) == []
    token, made = http_token(load(data_dir=folder))
    assert made and token


@asynccontextmanager
async def other_engine(folder: Path, answers: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[list[str]]:
    """An engine that holds the folder and answers with these words; gives what it was asked."""
    prepare_data_dir(folder)
    lock = EngineLock(folder / "engine.lock")
    assert lock.try_take()
    asked: list[str] = []

    async def handle(header: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        asked.append(header["do"])
        return answers.get(header["do"], {}), b""

    try:
        async with Doorbell(socket_path(folder), handle):
            yield asked
    finally:
        lock.release()


async def leave_behind(folder: Path) -> None:
    """A sandbox that no session owns."""
    prepare_data_dir(folder)
    async with LocalBackend(folder) as backend:
        await (await backend.create(SandboxSpec(), "skiff-left")).close()


async def slots(folder: Path) -> list[str]:
    """The sandboxes that are there."""
    async with LocalBackend(folder) as backend:
        return [ref.slot for ref in await backend.list()]


def test_a_running_engine_is_asked_to_collect_sandboxes(folder: Path) -> None:
    require("local")

    async def story() -> None:
        async with running(load(data_dir=folder, sandbox="local", model="scripted")) as app:
            await app.role.backend()
            await leave_behind(folder)
            shown = await asyncio.to_thread(skiff, "sandbox", "gc", "--data-dir", str(folder), SKIFF_SANDBOX="local")
            assert re.search(r"removed 1 sandboxes and \d+ images\n  skiff-left", shown.stdout), shown.stderr
        assert await slots(folder) == []

    asyncio.run(story())


def test_beside_an_engine_the_command_removes_nothing_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("local")

    async def story() -> None:
        async with other_engine(folder, {"gc": {"removed": []}}) as asked:
            await leave_behind(folder)
            await sandbox.collect(load(data_dir=folder, sandbox="local"))
            assert asked == ["gc"] and await slots(folder) == ["skiff-left"]

    asyncio.run(story())
    assert "removed 0" in capsys.readouterr().out


def test_without_an_engine_the_command_collects_sandboxes(folder: Path) -> None:
    require("local")
    asyncio.run(leave_behind(folder))
    shown = skiff("sandbox", "gc", "--data-dir", str(folder), SKIFF_SANDBOX="local")
    assert re.search(r"removed 1 sandboxes and \d+ images\n  skiff-left", shown.stdout), shown.stderr
    assert asyncio.run(slots(folder)) == []


def test_a_successor_waits_until_its_predecessor_lets_go_and_then_finishes(folder: Path) -> None:
    settings = load(data_dir=folder, sandbox="local", model="scripted")

    async def story() -> None:
        answers: Mapping[str, Mapping[str, Any]] = {
            "backend": {"backend": "local"},
            "process": {"process": os.getppid()},
        }
        async with other_engine(folder, answers) as asked:
            async with running(settings, lead=False) as app:
                task = '```script\n[{"say": "Finished."}]\n```'
                session = (await app.service.create_session(NewSession(task=task, agent={"tools": []}))).id
            finishing = asyncio.create_task(work.finish(settings))

            async def twice() -> bool:
                return asked.count("process") >= 2

            await eventually(twice)
            assert not finishing.done()
        await finishing
        async with running(settings, lead=False) as app:
            assert (await app.service.view(session)).state.reply == "Finished."

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_successor_leaves_when_another_engine_drives_or_nobody_lets_go_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(data_dir=folder, sandbox="local", model="scripted")

    async def meet(process: int) -> None:
        async with other_engine(folder, {"process": {"process": process}}):
            await work.finish(settings)

    asyncio.run(asyncio.wait_for(meet(os.getpid()), 60))
    assert f"process {os.getpid()} drives the sessions" in capsys.readouterr().err
    monkeypatch.setattr(work, "TAKE_SECONDS", 0.5)
    asyncio.run(asyncio.wait_for(meet(os.getppid()), 60))
    assert f"process {os.getppid()} has not let go" in capsys.readouterr().err


def test_what_a_successor_is_told_does_not_depend_on_its_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "skiff.toml").write_text('prices = "prices.json"\n')
    monkeypatch.setenv("SKIFF_CONFIG", "skiff.toml")
    told = work._files(load(data_dir="data"))
    assert told == {"SKIFF_CONFIG": str(tmp_path / "skiff.toml"), "SKIFF_PRICES": str(tmp_path / "prices.json")}
