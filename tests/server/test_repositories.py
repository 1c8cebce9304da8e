"""Fetching repositories outside the sandbox: bounded, and with nothing of this machine's configuration."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.files.repositories import Repositories, RepositoryError
from tests.support.git_host import TOKEN, GitHost, git, git_host

URL = "https://github.com/o/r"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHost]:
    """A host, and a temporary folder that shows what a fetch leaves."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with git_host(tmp_path) as running:
        yield running


def fetch(host: GitHost, url: str = URL, *, token: str | None = None, seconds: float = 30, most: int = 1 << 30) -> str:
    """The branches in what was fetched."""

    async def story() -> str:
        repositories = Repositories({"github.com": host.url}, seconds, most, host.folder / "fetching")
        async with repositories.fetched(url, None, token) as bundle:
            assert bundle.size == bundle.path.stat().st_size
            if token:
                everything = b"".join(path.read_bytes() for path in bundle.path.parent.rglob("*") if path.is_file())
                assert token.encode() not in everything
            return git("bundle", "list-heads", str(bundle.path))

    return asyncio.run(story())


def left(host: GitHost) -> list[str]:
    return os.listdir(host.folder / "tmp")


def test_a_fetch_brings_the_default_branch_and_leaves_nothing(host: GitHost) -> None:
    sha = host.repository("o/r", {"f": "x"}, branch="trunk")
    host.repository("o/r", {"f": "y"}, branch="other")
    assert set(fetch(host).splitlines()) == {f"{sha} refs/heads/trunk", f"{sha} HEAD"}
    assert left(host) == []


def test_the_credential_is_in_no_argument_and_in_no_file(host: GitHost, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    real = asyncio.create_subprocess_exec

    async def spying(*arguments: str, **more: object) -> object:
        seen.append(arguments)
        return await real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spying)
    host.repository("private/r", {"f": "x"})
    assert fetch(host, "https://github.com/private/r", token=TOKEN)
    assert seen and not any(TOKEN in argument for arguments in seen for argument in arguments)


def test_nothing_of_the_machines_own_configuration_is_read(host: GitHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.repository("o/r", {"f": "x"})
    (host.folder / "config").write_text(f'[url "file://{host.folder}/private/"]\n  insteadOf = {host.url}/o/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(host.folder / "config"))
    monkeypatch.setenv("GIT_TRACE", str(host.folder / "traced"))
    fetch(host)
    assert not (host.folder / "traced").exists()


def test_a_redirection_is_not_followed_with_a_credential(host: GitHost) -> None:
    host.repository("o/r", {"f": "x"})
    host.moved["moved/r"] = f"{host.url}/o/r"
    with pytest.raises(RepositoryError):
        fetch(host, "https://github.com/moved/r", token=TOKEN)


def test_a_fetch_over_its_size_or_time_is_ended_and_leaves_nothing(host: GitHost) -> None:
    host.repository("o/r", {"f": "x"})
    host.slow = True
    with pytest.raises(RepositoryError, match="seconds") as caught:
        fetch(host, seconds=0.5)
    assert caught.value.error_type == "repository_clone_error"
    with pytest.raises(RepositoryError, match="larger"):
        fetch(host, most=1)
    assert left(host) == []


def test_an_empty_repository_has_nothing_to_check_out(host: GitHost) -> None:
    git("init", "-q", "--bare", str(host.folder / "o" / "r"))
    with pytest.raises(RepositoryError, match="empty") as caught:
        fetch(host)
    assert caught.value.error_type == "repository_checkout_error"


def test_a_host_that_the_operator_took_away_is_not_asked(host: GitHost) -> None:
    with pytest.raises(RepositoryError) as caught:
        fetch(host, "https://elsewhere.example/o/r")
    assert caught.value.error_type == "repository_forbidden_error" and host.asked == []
