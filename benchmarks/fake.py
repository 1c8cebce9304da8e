"""The scripted Messages API as a process of its own, and its log.

Above: `bench`, `rows/`. Below: `tests.support.messages_api`, reached over HTTP like the real one. The log's times are
CLOCK_MONOTONIC, so that they compare with `time.monotonic()` of every process on the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Step = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """A model request as it arrived."""

    at: float
    """When its last byte was there."""
    answered: float
    """When the last byte of its answer was on its way; 0 while it is not."""
    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Fake:
    """The running double."""

    port: int

    async def log(self) -> list[Request]:
        """Every model request since the log was cleared, oldest first."""
        rows = json.loads(await asyncio.to_thread(self._http, "GET"))
        return [Request(row["at"], row["answered"], row["status"], row["body"]) for row in rows]

    async def clear(self) -> None:
        """Forget the log."""
        await asyncio.to_thread(self._http, "DELETE")

    def _http(self, method: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/requests", method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())


@contextmanager
def fake(*options: str) -> Iterator[Fake]:
    """Start it, and lead the anthropic SDK of this process and its children to it."""
    command = [sys.executable, "-m", "tests.support.messages_api", "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        os.environ |= {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}", "ANTHROPIC_API_KEY": "benchmark"}
        yield Fake(port)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def script(steps: Sequence[Step]) -> str:
    """A message that tells the double what to answer, step by step."""
    return f"```script\n{json.dumps(steps, separators=(',', ':'))}\n```"


def calls(count: int, tool: str, arguments: Mapping[str, Any]) -> list[Step]:
    """Answers that make one tool call each."""
    return [{"call": [{"tool": tool, "input": arguments}]}] * count
