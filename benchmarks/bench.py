"""What every measurement needs: how many samples, where its files go, the model's double, and the container engine.

Above: `__main__`, which makes one, and `rows/`. Below: `fake`, the Docker backend's own check.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fake import Fake, fake
from sandbox.docker.backend import DockerBackend
from sandbox.docker.engine import Engine
from sandbox.errors import SandboxError

RESULTS = Path(__file__).parent / "results"
MODEL = "claude-sonnet-5-5"
"""Any name that the server sends over HTTP; the answers are scripted."""


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks."""

    fake: Fake
    quick: bool
    work: Path
    """On the disk of the results: a log in a memory file system would be durable for nothing."""
    engine: str
    """The container engine's version, "" where there is none with the sandbox image."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def samples(self, full: int, quick: int = 2) -> int:
        """How many to take."""
        return quick if self.quick else full

    def folder(self) -> Path:
        """A fresh data folder."""
        path = self.work / f"data-{next(self._numbers)}"
        path.mkdir()
        return path

    @property
    def sandbox(self) -> str:
        """The backend that a server is started with."""
        return "docker" if self.engine else "auto"


@contextmanager
def opened(quick: bool, engine: str) -> Iterator[Bench]:
    """A bench with its model's double running; its files are removed at the end."""
    RESULTS.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".work-", dir=RESULTS, ignore_cleanup_errors=True) as folder,
        fake() as model,
    ):
        yield Bench(model, quick, Path(folder), engine)


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"  {text}", file=sys.stderr, flush=True)


async def find_engine() -> tuple[str, str]:
    """The engine's version and "", or "" and why no container can be had."""
    engine = Engine()
    try:
        async with asyncio.timeout(60), DockerBackend("bench-look", engine=engine) as backend:
            await backend.check()
            version = await engine.call("say its version", lambda client: client.version())
    except (SandboxError, TimeoutError) as error:
        return "", str(error) or "the engine does not answer"
    return str(version["Version"]), ""
