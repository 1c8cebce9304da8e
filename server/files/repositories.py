"""A git repository fetched outside the sandbox, for `sessions.mounting` to check out inside.

Above: `sessions.mounting`. Below: the machine's `git`, run with nothing of the machine's own configuration. It fetches
into a private folder that is gone afterwards, and hands out one bundle: objects and branches, no working tree, so that
nothing of what a stranger committed is ever executed or unpacked here. The credential is in the environment of the
fetching process alone; it is in no argument, no file and no bundle.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

LOOK_SECONDS = 0.5
"""Between looks at how large a fetch has become: a fast line brings 60 MB in this time."""
SAID_BYTES = 4_000
"""Of what git says, from its end: the reason is in the last lines."""
_PASSED_ON = (
    *("PATH", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
)
"""What git is told of our environment: how to get out of this machine, and whom to trust."""
_REASONS = (
    ("repository_checkout_error", ("remote branch", "couldn't find remote ref", "not our ref", "no such commit")),
    ("repository_authentication_error", ("authentication failed", "could not read username", "error: 401")),
    ("repository_forbidden_error", ("error: 403", "access denied", "permission to")),
    ("repository_not_found_error", ("not found", "error: 404", "does not exist", "does not appear to be a git")),
)
"""What the wire calls a failure, and what git says of it, in small letters. The first that fits counts."""


class RepositoryError(Exception):
    """It could not be fetched or checked out; `error_type` is what the wire calls the reason."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


@dataclass(frozen=True)
class Bundle:
    """What was fetched: a file for `git fetch`, with the branch or the commit that is to be checked out."""

    path: Path
    size: int
    branch: str
    """"" where a commit is to be checked out."""
    commit: str


@dataclass(frozen=True)
class Repositories:
    """Fetches. `hosts` are the hosts that may be asked, each with its real address; the bounds are of one fetch.
    `folder` is where a fetch has its files while it lasts."""

    hosts: Mapping[str, str]
    seconds: float
    most_bytes: int
    folder: Path

    def sweep(self) -> None:
        """Remove what a crash left: only the engine fetches, and this one has not begun."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @asynccontextmanager
    async def fetched(self, url: str, checkout: Mapping[str, str] | None, token: str | None) -> AsyncIterator[Bundle]:
        """The repository at `url` as a bundle, for the length of the block. Raises RepositoryError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            address = self._address(url)
            git = _Git(folder, self.most_bytes, _environment(folder, address, token))
            try:
                async with asyncio.timeout(self.seconds):
                    bundle = await _fetch(git, address, checkout)
            except TimeoutError:
                raise RepositoryError(
                    "repository_clone_error", f"It could not be fetched within {self.seconds:.0f} seconds."
                ) from None
            yield bundle
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    def _address(self, url: str) -> str:
        parts = urlsplit(url)
        base = self.hosts.get(parts.netloc.lower())
        if base is None:  # the operator has taken it from the list since
            raise RepositoryError("repository_forbidden_error", f"This server fetches nothing from {parts.netloc}.")
        return base.rstrip("/") + parts.path


async def _fetch(git: _Git, address: str, checkout: Mapping[str, str] | None) -> Bundle:
    branch, commit = (checkout or {}).get("name", ""), (checkout or {}).get("sha", "")
    which = [] if commit else ["--single-branch", *(["--branch", branch] if branch else [])]
    await git.run("clone", "--quiet", "--bare", "--no-tags", "--template=", *which, "--", address, str(git.bare))
    if commit:
        await _have(git, address, commit)
        await git.run("update-ref", "--no-deref", "HEAD", commit, inside=True)
    elif not await git.asks("rev-parse", "--quiet", "--verify", "HEAD"):
        raise RepositoryError("repository_checkout_error", "The repository is empty: it has no commit.")
    else:
        branch = await git.asks("symbolic-ref", "--quiet", "--short", "HEAD")
        commit = "" if branch else await git.asks("rev-parse", "HEAD")
    path = git.folder / "bundle"
    await git.run("bundle", "create", "--quiet", str(path), "HEAD", "--branches", inside=True)
    return Bundle(path, path.stat().st_size, branch, commit)


async def _have(git: _Git, address: str, commit: str) -> None:
    """A commit that is on no branch has to be asked for by its name."""
    if not await git.asks("rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}"):
        await git.run("fetch", "--quiet", "--no-tags", address, commit, inside=True)


def _environment(folder: Path, address: str, token: str | None) -> dict[str, str]:
    """All that git gets: no configuration but ours, no terminal, one protocol, no hook, no redirection (a credential is
    meant for one host)."""
    parts = urlsplit(address)
    config = {
        "core.hooksPath": "/dev/null",
        "credential.helper": "",
        "http.followRedirects": "false",
        "gc.auto": "0",
        "fetch.recurseSubmodules": "false",
    }
    if token is not None and parts.scheme in ("http", "https"):
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        config[f"http.{parts.scheme}://{parts.netloc}/.extraHeader"] = f"Authorization: Basic {basic}"
    numbered: dict[str, str] = {}
    for number, (key, value) in enumerate(config.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        **numbered,
        "GIT_CONFIG_COUNT": str(len(config)),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": parts.scheme,
        "HOME": str(folder),
        "LC_ALL": "C",
    }


@dataclass(frozen=True)
class _Git:
    """Runs git in one folder, watching how large that becomes."""

    folder: Path
    most_bytes: int
    environment: Mapping[str, str]

    @property
    def bare(self) -> Path:
        return self.folder / "bare"

    async def run(self, *arguments: str, inside: bool = False) -> None:
        """Raises RepositoryError with git's own words when it fails."""
        code, said = await self._do(arguments, inside=inside)
        if code:
            raise RepositoryError(_reason(said), _words(said))

    async def asks(self, *arguments: str) -> str:
        """What git answers about the repository; "" when it says no."""
        code, said = await self._do(arguments, inside=True)
        return "" if code else said.strip()

    async def _do(self, arguments: tuple[str, ...], *, inside: bool) -> tuple[int, str]:
        try:
            process = await asyncio.create_subprocess_exec(
                *("git", *(("-C", str(self.bare)) if inside else ()), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(self.environment),
                cwd=self.folder,
                start_new_session=True,
            )
        except OSError:
            raise RepositoryError(
                "repository_clone_error", "There is no git on the server's machine. Its operator can install it."
            ) from None
        hearing = asyncio.create_task(_hear(process))
        try:
            while not hearing.done():
                await asyncio.wait({hearing}, timeout=LOOK_SECONDS)
                if await asyncio.to_thread(_size, self.folder) > self.most_bytes:
                    raise RepositoryError(
                        "repository_clone_error", f"It is larger than {self.most_bytes // 10**6:,} MB with its history."
                    )
            return await process.wait(), hearing.result()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its helpers, which do the transfer
            hearing.cancel()
            await asyncio.shield(asyncio.ensure_future(process.wait()))


async def _hear(process: asyncio.subprocess.Process) -> str:
    """The end of what it says, once it has said everything."""
    assert process.stdout is not None
    said = b""
    while portion := await process.stdout.read(SAID_BYTES):
        said = (said + portion)[-SAID_BYTES:]
    return said.decode("utf-8", "replace")


def _size(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total


def _reason(said: str) -> str:
    small = said.lower()
    return next((kind for kind, signs in _REASONS if any(sign in small for sign in signs)), "repository_clone_error")


def _words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " ".join(lines[-3:])[:500] or "git failed and said nothing."
