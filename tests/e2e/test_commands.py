"""The `skiff` command as a person uses it: every command as a process of its own."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from server.app import running
from server.sessions.service import NewSession
from server.settings import load
from tests.support.sandboxes import require

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
    shown = skiff("doctor", "--data-dir", str(folder), DOCKER_HOST="unix:///nowhere.sock")
    assert "no key: set ANTHROPIC_API_KEY" in shown.stdout and shown.returncode == 1
    assert all(name in shown.stdout for name in ("python", "data folder", "disk", "engine", "bubblewrap"))


def test_sessions_are_listed_shown_followed_and_removed(folder: Path, session: str) -> None:
    where = ("--data-dir", str(folder))
    assert session in skiff("sessions", "list", *where).stdout
    shown = skiff("sessions", "show", session, *where).stdout
    assert "All is well." in shown and "idle" in shown
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
    from server.commands.serve import http_token

    async def make() -> None:
        settings = load(data_dir=folder, sandbox="local", model="scripted")
        async with running(settings, lead=False):
            token, made = http_token(settings)
            assert made and http_token(settings) == (token, False)

    asyncio.run(make())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
