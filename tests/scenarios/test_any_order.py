"""Random lives of a session, on the real engine: whatever comes in whatever order, what is always true stays true.

Each life is a list of acts: messages with scripts for the model (which talks, calls, fails, takes its time), answers,
interrupts, and crashes, at which the engine is fenced off in the middle of whatever it does and another one folds the
log anew. What failed is printed whole, and kept in `.hypothesis`, so that the next run begins with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from server.app import App, running
from server.errors import Refused
from server.events import StoredEvent
from server.sessions.sandboxing.workspace import File, Folder
from server.sessions.service import NewSession, SessionView
from server.settings import Settings
from tests.crash import judge
from tests.scenarios.test_asking import ASKS
from tests.support.drive import Driven
from tests.support.messages_api import MessagesAPI, messages_api
from tests.support.sandboxes import data_folder, require
from tests.support.scenario import MODEL, SECONDS, Step, bash, call, script

AGENT: dict[str, Any] = {"tools": [{"type": "agent_toolset_20260401"}, *ASKS["tools"][1:]]}
ASKING: dict[str, Any] = ASKS
READ = {"tool": "read", "input": {"file_path": "counter"}}
STEPS: dict[str, Step] = {
    "talk": {"say": "Some words, and a few more of them. " * 4},
    "slowly": {"say": "Some words, and a few more of them. " * 4, "stream": 0.1},
    "run": call(bash("echo $N >> counter")),
    "run slowly": call(bash("echo $N >> counter; sleep 0.15")),
    "run beside": call(bash("echo $N >> counter"), bash("echo $N-b >> counter; sleep 0.1"), READ),
    "look up": call({"tool": "lookup", "input": {"key": "x"}}),
    "look up beside": call({"tool": "lookup", "input": {"key": "x"}}, bash("echo $N >> counter")),
    "fail": {"say": "After all.", "fail": {"status": 529, "retry_after": 0, "times": 2}},
    "break off": {"say": "Some words, and a few more of them. " * 4, "cut": 4, "stream": 0.05},
    "give up": {"say": "Never said.", "fail": {"status": 401, "times": 1}},
}  # fmt: skip

Act = tuple[str, Any]
ACTS = st.one_of(
    st.tuples(st.just("send"), st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3)),
    st.tuples(st.just("interrupt"), st.none()),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("crash"), st.none()),
    st.tuples(st.just("pass"), st.integers(1, 6)),
    st.tuples(st.just("rest"), st.none()),
)
LIVES = st.tuples(st.booleans(), st.lists(ACTS, min_size=3, max_size=10))


@dataclass
class Life:
    """A session, the engine that drives it now, and the client."""

    door: App
    given: dict[str, Any]
    engine: AsyncExitStack = field(default_factory=AsyncExitStack)
    session: str = ""
    commands: int = 0
    log: list[StoredEvent] = field(default_factory=list)
    """As it was when it was last looked at."""

    async def ran(self) -> list[bytes]:
        """The lines that commands have left."""
        found = await self.door.service.read_workspace(self.session)
        assert isinstance(found, Folder)
        if all(entry.name != "counter" for entry in found.entries):
            return []
        counter = await self.door.service.read_workspace(self.session, "counter")
        assert isinstance(counter, File)
        return counter.content.split()

    async def begin(self, asks: bool) -> None:
        await self.open()
        made = await self.door.service.create_session(NewSession(agent=ASKING if asks else AGENT))
        self.session = made.id

    async def open(self) -> None:
        """Another engine."""
        app = await self.engine.enter_async_context(running(Settings(**self.given)))
        await app.role.backend()

    async def crash(self) -> None:
        """Nothing that the engine does from now on counts, and it is gone; another one folds the log."""
        judge.fence_off(self.given["data_dir"])
        await self.engine.aclose()
        self.check()
        await self.open()

    async def act(self, kind: str, given: Any) -> None:
        match kind:
            case "send":
                task = script(*map(self._step, given), say=self.session)
                with suppress(Refused):  # answers are due first
                    await self.door.service.send_message(self.session, task)
            case "interrupt":
                await self.door.service.send_events(self.session, [{"type": "user.interrupt"}])
            case "answer":
                await self.answer(given)
            case "crash":
                await self.crash()
            case "pass":
                await self.passes(given)
            case "rest":
                await self.rests()

    def _step(self, name: str) -> Step:
        """The step, its commands with a name that no other has."""
        step = dict(STEPS[name])
        if "call" in step:
            self.commands += 1
            step["call"] = [_named(known, self.commands) for known in step["call"]]
        return step

    async def answer(self, well: bool) -> bool:
        """Answer the oldest call that waits; whether there was one."""
        view = await self.door.service.view(self.session)
        waits = {known.id: known.awaits for known in view.state.calls}
        if not view.state.awaited:
            return False
        asked = view.state.awaited[0]
        event: dict[str, Any] = {"type": "user.tool_confirmation", "tool_use_id": asked}
        if waits[asked] == "confirmation":
            event["result"] = "allow" if well else "deny"
        else:
            event = {"type": "user.custom_tool_result", "custom_tool_use_id": asked, "is_error": not well}
            event["content"] = [{"type": "text", "text": "42"}]
        with suppress(Refused):  # an interrupt has closed it meanwhile
            await self.door.service.send_events(self.session, [event])
        return True

    async def passes(self, events: int) -> None:
        """So many events, or until nothing happens any more."""
        head = (await self.door.service.view(self.session)).state.seq
        async with asyncio.timeout(SECONDS):
            while True:
                (view,) = await self.door.service.wait([self.session], "all", 0.05)
                if view.state.seq >= head + events or _rests(view):
                    return

    async def rests(self) -> SessionView:
        async with asyncio.timeout(SECONDS):
            while True:
                (view,) = await self.door.service.wait([self.session], "all", 1.0)
                if _rests(view):
                    return view

    def check(self, *, at_rest: bool = False) -> None:
        """What is always true of the log; at rest, of its row and its end as well."""
        log, before = judge.log_of(self.given["data_dir"], self.session), self.log
        assert log[: len(before)] == before, "what was written stays as it was written"
        assert [event.seq for event in log] == list(range(1, len(log) + 1))
        driven = Driven()
        driven.log.events, driven.state = log, judge.folded(log)
        driven.check()
        if at_rest:
            judge.check_log(self.given["data_dir"], self.session)
        self.log = log


def _rests(view: SessionView) -> bool:
    return view.settled and not view.row.attention


def _named(known: Any, number: int) -> Any:
    command = known["input"].get("command", "").replace("$N", str(number))
    return {**known, "input": {"command": command}} if command else known


async def play(asks: bool, acts: Sequence[Act], api: MessagesAPI) -> None:
    with data_folder() as folder:
        given: dict[str, Any] = {"data_dir": folder, "sandbox": "local", "model": MODEL, "pool": 0}
        async with running(Settings(**given), lead=False) as door:
            life = Life(door, given)
            async with life.engine:
                await life.begin(asks)
                for kind, more in acts:
                    await life.act(kind, more)
                await life.rests()
                life.check()
                while await life.answer(True):
                    await life.rests()
                life.check(at_rest=True)
                ran = await life.ran()
                assert len(ran) == len(set(ran)), "a command ran twice"
            sent = [body for body in api.bodies if life.session in str(body["messages"][0])]
            judge.check_requests(sent, life.log)


@settings(
    max_examples=25,
    deadline=None,
    print_blob=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(life=LIVES)
@example(
    life=(False, [("send", ["run slowly", "talk"]), ("pass", 6), ("crash", None), ("interrupt", None), ("crash", None)])
)
@example(
    life=(
        True,
        [("send", ["look up beside", "talk"]), ("rest", None), ("answer", True), ("crash", None), ("interrupt", None)],
    )
)
@example(life=(False, [("send", ["fail"]), ("pass", 5), ("crash", None), ("send", ["run"]), ("crash", None)]))
def test_whatever_comes_in_whatever_order_the_log_stays_true(life: tuple[bool, list[Act]], model: MessagesAPI) -> None:
    asyncio.run(play(*life, model))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model, for all lives."""
    require("local")
    with messages_api() as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-scripted-key")
        monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
        yield api
