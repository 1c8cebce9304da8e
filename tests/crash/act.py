"""One run of a story: a data folder, the lives of the program on it, and the client that talks to them.

Above: `stories`, whose steps it gives hands, and `matrix`, which plays them. Below: processes forked by `armed` or
started from the command line, the program's own door in this process (which appends and follows, and is never the
engine), and the official wire over HTTP where it is the point.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from sandbox.docker.labels import INSTALLATION
from server.app import App
from server.sessions.service import NewSession, SessionView
from tests.support.program import ROOT, Machine
from tests.support.scenario import MODEL, SECONDS, Step, eventually, script
from tests.support.served import BETA, TOKEN, VERSION

TOOLS: Sequence[Mapping[str, Any]] = ({"type": "agent_toolset_20260401"},)
LISTENS = "skiff: serving MCP at "


class Killed(Exception):
    """The server died before it had answered."""


@dataclass
class Life:
    """One process of the program."""

    said: Path
    """What it wrote to standard output and standard error."""
    pid: int
    over: asyncio.Future[int]
    """Its exit code, or minus the number of the signal that ended it."""

    @property
    def words(self) -> str:
        return self.said.read_text("utf-8", "replace") if self.said.exists() else ""

    async def ends(self) -> int:
        """Wait for its end; bounded."""
        async with asyncio.timeout(SECONDS):
            return await asyncio.shield(self.over)

    def terminate(self) -> None:
        """Ask it to end, as a service manager does."""
        if not self.over.done():
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, whatever it does."""
        if not self.over.done():
            os.kill(self.pid, signal.SIGKILL)

    async def url(self) -> str:
        """Where it listens, once it does."""

        async def look() -> str:
            assert not self.over.done(), self.words
            lines = [line for line in self.words.splitlines() if line.startswith(LISTENS)]
            return lines[0].removeprefix(LISTENS).removesuffix("/mcp") if lines else ""

        return await eventually(look, "the address of the server")


class Forge:
    """Makes lives: forked from a process that has imported the program, or started from the command line."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._asking = asyncio.Lock()
        self._born: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue()
        self._lives: dict[int, asyncio.Future[int]] = {}
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            if "status" in told:
                self._lives.pop(told["pid"]).set_result(told["status"])
            else:
                over = self._lives[told["pid"]] = asyncio.get_running_loop().create_future()
                self._born.put_nowait((told["pid"], over))

    async def fork(
        self, arguments: Sequence[str], environment: Mapping[str, str], said: Path, point: str | None, second: bool
    ) -> Life:
        """A life that goes on where the command line is after its imports; armed with a point's place, if any."""
        asked = {"point": point, "second": second, "arguments": arguments, "environment": dict(environment)}
        assert self._process.stdin is not None
        async with self._asking, asyncio.timeout(SECONDS):
            self._process.stdin.write(json.dumps({**asked, "said": str(said)}).encode() + b"\n")
            pid, over = await self._born.get()
        return Life(said, pid, over)

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening


@asynccontextmanager
async def forge() -> AsyncIterator[Forge]:
    """The process that forks lives, for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.armed", cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=1 << 20
    )
    made = Forge(process)
    try:
        yield made
    finally:
        await made.close()


@dataclass
class Act:
    """A story on its way."""

    name: str
    machine: Machine
    forge: Forge
    door: App
    settings: Mapping[str, str]
    url: str = ""
    session: str = ""
    unanswered: tuple[str, Mapping[str, Any], str] | None = None
    """The request under a key whose answer the client never got."""
    busy: bool = False
    """A request is on its way, or its answer: it will end, for a server that dies is noticed."""
    given: dict[str, Any] = field(default_factory=dict)
    """What a story keeps from one step for another."""
    accepted: list[Mapping[str, Any]] = field(default_factory=list)
    """What the client was told was taken: the answers to its requests."""
    lives: list[Life] = field(default_factory=list)

    # --- lives -------------------------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        return {**self.machine.environment, "PATH": os.environ["PATH"], "SKIFF_API_KEY": TOKEN, **self.settings}

    def arguments(self, command: str) -> list[str]:
        machine = self.machine
        arguments = [command, "--data-dir", str(machine.folder), "--sandbox", machine.kind, "--model", MODEL]
        return [*arguments, "--port", "0"] if command == "serve" else arguments

    async def live(self, command: str, point: str | None = None, *, second: bool = False) -> Life:
        """A forked life of this command, armed with the point's place if one is named."""
        said = self.machine.folder.with_name(f"{self.machine.folder.name}-{len(self.lives)}.said")
        life = await self.forge.fork(self.arguments(command), self.environment, said, point, second)
        self.lives.append(life)
        return life

    async def type_in(self, command: str) -> tuple[Life, Process]:
        """A life that is started as people and hosts start it."""
        said = self.machine.folder.with_name(f"{self.machine.folder.name}-{len(self.lives)}.said")
        with said.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server", *self.arguments(command)),
                stdin=PIPE if command == "mcp" else DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
            )
        life = Life(said, process.pid, asyncio.ensure_future(process.wait()))
        self.lives.append(life)
        return life, process

    # --- the client --------------------------------------------------------------------------------------------------

    async def post(self, path: str, body: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """The answer. Raises Killed when none comes; under a key the request is kept, to be sent again."""
        headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": VERSION, "idempotency-key": key}
        if path != "/v1/files":
            headers["anthropic-beta"] = BETA
        self.busy = True
        try:
            async with httpx2.AsyncClient(base_url=self.url, timeout=SECONDS) as http:
                content = {"files": body} if path == "/v1/files" else {"json": body}
                answer = await http.post(path, headers={k: v for k, v in headers.items() if v}, **content)  # type: ignore[arg-type]
        except httpx2.TransportError as error:
            if key:
                self.unanswered = path, body, key
            raise Killed from error
        finally:
            self.busy = False
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        self.accepted.append(found)
        return found

    async def delete(self) -> None:
        """Delete the session over HTTP. Raises Killed when no answer comes."""
        headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": VERSION, "anthropic-beta": BETA}
        self.busy = True
        try:
            async with httpx2.AsyncClient(base_url=self.url, timeout=SECONDS) as http:
                await http.delete(f"/v1/sessions/{self.session}", headers=headers)
        except httpx2.TransportError as error:
            raise Killed from error
        finally:
            self.busy = False

    async def ask_again(self) -> dict[str, Any] | None:
        """Send the request whose answer never came, as a client does; its answer, or None when there is none."""
        if self.unanswered is None:
            return None
        asked, self.unanswered = self.unanswered, None
        return await self.post(*asked)

    async def make(self, *steps: Step, **asked: Any) -> None:
        """A session whose first task is this script, made through the door."""
        task = script(*steps, say=f"This is {self.name}.") if steps else None
        new = NewSession(task=task, agent={"tools": TOOLS, **asked.pop("agent", {})}, **asked)
        self.busy = True
        self.session = (await self.door.service.create_session(new)).id
        self.busy = False

    async def tell(self, *steps: Step) -> None:
        """A message with a script, through the door."""
        await self.door.service.send_message(self.session, script(*steps, say=f"This is {self.name}."))

    async def send(self, event: Mapping[str, Any], key: str) -> dict[str, Any]:
        """An event, over HTTP and under a key."""
        return await self.post(f"/v1/sessions/{self.session}/events", {"events": [event]}, key)

    async def view(self) -> SessionView:
        return await self.door.service.view(self.session)

    async def rests(self) -> SessionView:
        """The session, once it has nothing to do."""
        async with asyncio.timeout(SECONDS):
            while True:
                (view,) = await self.door.service.wait([self.session], "all", 1.0)
                if view.settled and not view.row.attention:
                    return view

    # --- the sandbox, from outside -----------------------------------------------------------------------------------

    async def containers(self) -> list[str]:
        """The containers of this installation that run."""
        label = f"label={INSTALLATION}={self.machine.installation()}"
        return (await docker("ps", "-q", "--no-trunc", "--filter", label)).split()

    async def lose(self) -> None:
        """Remove the session's container and volumes behind the program's back."""
        await docker("rm", "-f", *await self.containers())
        label = f"label={INSTALLATION}={self.machine.installation()}"
        await docker("volume", "rm", *(await docker("volume", "ls", "-q", "--filter", label)).split())

    async def inside(self, command: str) -> str:
        """What a command says in the session's container, run by the engine and not by the program."""
        (container,) = await self.containers()
        return await docker("exec", container, "bash", "-c", command)


async def docker(*arguments: str) -> str:
    """What the engine's own command line says."""
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdout=PIPE, stderr=PIPE)
    said, trouble = await process.communicate()
    assert process.returncode == 0, trouble.decode()
    return said.decode()
