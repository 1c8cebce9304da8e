"""A real `skiff serve` on a real port, and the official SDK's clients of it.

Above: `tests/wire` and the score card. Below: the command line, over HTTP. The model is the strict Messages API of
`messages_api.py`; the folder, the processes and the sandboxes are a `Machine`'s, which ends and clears them away.

    with served() as site:
        site.client().beta.agents.list()
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx2

from tests.support.messages_api import MessagesAPI, messages_api
from tests.support.program import Machine
from tests.support.sandboxes import data_folder
from tests.support.scenario import MODEL, clear

TOKEN = "a token for the tests of the wire"
BETA = "managed-agents-2026-04-01"
VERSION = "2026-10-21"
START_SECONDS = 60.0
"""A start takes two seconds on a busy machine."""


@dataclass
class Site:
    """A server that runs, in a process of its own."""

    machine: Machine
    settings: Mapping[str, str]
    """Its environment, besides what every server of the tests has."""
    process: subprocess.Popen[str]
    url: str
    said: list[str]
    """The lines of its standard error, from every process that there was."""
    clients: ExitStack = field(default_factory=ExitStack)
    """The synchronous clients that were handed out; closed with the block that serves."""

    @property
    def api(self) -> MessagesAPI:
        """The model that its sessions ask."""
        return self.machine.api

    def client(self, key: str = TOKEN, **options: Any) -> anthropic.Anthropic:
        """The official client; only the address and the key are ours. It tries nothing again unless it is told to."""
        made = anthropic.Anthropic(**{"base_url": self.url, "api_key": key, "max_retries": 0, **options})
        return self.clients.enter_context(made)

    def async_client(self, key: str = TOKEN, **options: Any) -> anthropic.AsyncAnthropic:
        """Likewise, asynchronous; whoever asks for it closes it."""
        return anthropic.AsyncAnthropic(**{"base_url": self.url, "api_key": key, "max_retries": 0, **options})

    def http(self, **headers: str) -> httpx2.Client:
        """A plain client with everything that a good request needs; a header given here wins, "" leaves it out."""
        good = {"authorization": f"Bearer {TOKEN}", "anthropic-beta": BETA, "anthropic-version": VERSION}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.Client(
            base_url=self.url, headers={k: v for k, v in {**good, **named}.items() if v}, timeout=START_SECONDS
        )

    def stop(self) -> None:
        """Ask the process to end, as a service manager does, and wait for it."""
        self.process.terminate()
        self.process.wait(START_SECONDS)

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        self.process.kill()
        self.process.wait(START_SECONDS)

    def restart(self) -> None:
        """Start a server again on the same folder, after `stop` or `kill`; it has a new address."""
        self.process, self.url = _start(self.machine, self.settings, self.said)


@contextmanager
def served(kind: str = "local", *, environment: Mapping[str, str] | None = None, **settings: Any) -> Iterator[Site]:
    """A server with sandboxes of this kind; all ends with the block.

    environment   variables of others, such as OpenTelemetry's
    settings      Skiff's, as in `stop_after=5`
    """
    with messages_api() as api, data_folder() as folder:
        machine = Machine(folder, api, kind)
        given = {f"SKIFF_{name.upper()}": str(value) for name, value in settings.items()} | dict(environment or {})
        with _serving(machine, given) as site:
            yield site


@contextmanager
def served_too(site: Site, folder: Path) -> Iterator[Site]:
    """A second server, on a folder of its own, with the settings of the first; it asks the same model."""
    with _serving(Machine(folder, site.api, site.machine.kind), site.settings) as other:
        yield other


@contextmanager
def _serving(machine: Machine, settings: Mapping[str, str]) -> Iterator[Site]:
    said: list[str] = []
    process, url = _start(machine, settings, said)
    site = Site(machine, settings, process, url, said)
    try:
        yield site
        if site.process.poll() is None:
            site.stop()
        left = clear(machine.kind, machine.folder)
    finally:
        site.clients.close()
        for pid in machine.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        if site.process.poll() is None:
            site.kill()
        clear(machine.kind, machine.folder)
    assert not left, f"left behind: {left}"


def _start(machine: Machine, settings: Mapping[str, str], said: list[str]) -> tuple[subprocess.Popen[str], str]:
    """Start the program; returns it with its address once it listens."""
    command = [sys.executable, "-m", "server", "serve", "--data-dir", str(machine.folder), "--sandbox", machine.kind]
    process = subprocess.Popen(
        [*command, "--model", MODEL, "--port", "0"],
        env={**machine.environment, "PATH": os.environ.get("PATH", ""), "SKIFF_API_KEY": TOKEN, **settings},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=machine.folder,
    )
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(process, said, heard), daemon=True).start()
    url = heard.get(timeout=START_SECONDS)
    assert url, f"the server never listened: {''.join(said)}"
    return process, url


def _listen(process: subprocess.Popen[str], said: list[str], heard: queue.SimpleQueue[str]) -> None:
    """Read what a server says, so that it can go on saying it; the address goes to `heard`, "" at the end."""
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            said.append(line)
            if line.startswith("skiff: serving MCP"):
                heard.put(line.split()[-1].removesuffix("/mcp"))
    heard.put("")
