"""The model's server dies in the middle of its answer, at every event and at bytes between: nothing half is kept."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import aclosing

from server.events import StoredEvent
from server.sessions.log import Delta
from tests.support.messages_api import Received
from tests.support.pace import Waits
from tests.support.scenario import Scene, Stage, bash, call, said

SEED = 20_261_129
BETWEEN = 12
"""Bytes that are tried between the boundaries of events, besides the boundaries themselves."""
RICH = (
    {
        "think": "First this, then that, and both of them at once.",
        "say": "I shall do both of them at once, as they have nothing to do with each other.",
        **call(bash("echo one"), bash("echo two")),
    },
    {"say": "They said $RESULT"},
)


def test_it_leaves_one_failed_request_one_try_and_a_valid_history(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = (await scene.turn(*RICH)).id
        watched = _Watched()
        watching = asyncio.create_task(watched.follow(scene, session))
        for place in _places(scene.api.requests[0]):
            before = len(scene.api.requests)
            scene.api.deaths.append(place)
            view = await scene.again(session, *RICH)
            assert view.state.stop_reason == {"type": "end_turn"}, place
            cut, again, _ = scene.api.requests[before:]
            assert cut.body == again.body, place
        await asyncio.wait_for(watched.reaches(view.state.seq), 30)
        watching.cancel()
        await _check_history(scene, session)
        watched.check()

    local.play(story, pace=Waits().pace)


def test_an_interrupted_answer_counts_with_what_was_reported_of_it(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        session = await scene.start({"say": "one two three", "stream": 60}, agent={"tools": []})
        coming = scene.service.follow(session, deltas=True)
        async with aclosing(coming):
            while not isinstance(await anext(coming), Delta):
                pass
        view = await scene.service.interrupt(session)
        (span,) = await scene.events(session, "span.model_request_end")
        assert span["is_error"] and span["model_usage"]["output_tokens"] == 1
        assert view.state.usage.input_tokens == span["model_usage"]["input_tokens"] > 0
        assert view.state.usage.cost_usd not in (None, "0")

    local.play(story)


def _places(whole: Received) -> list[tuple[int, int]]:
    """Where the answer breaks: before its head, after it, after each event but the last, and at bytes in between."""
    events = len(whole.frames)
    assert events > 20, "a rich answer has thought, text, two calls, usage and an end"
    chance = random.Random(SEED)
    between = [(event, chance.randrange(1, whole.frames[event])) for event in chance.sample(range(events), BETWEEN)]
    return [(event, 0) for event in range(-1, events)] + between


async def _check_history(scene: Scene, session: str) -> None:
    """Of every broken answer there is one failed span and one error, and nothing else."""
    turns: list[list[str]] = [[]]
    for kind in await scene.types(session):
        turns[-1].append(kind)
        if kind == "session.status_idle":
            turns.append([])
    first, *broken, _ = turns
    extra = [
        *("session.status_rescheduled", "session.thread_status_rescheduled", "session.error"),
        *("session.status_running", "session.thread_status_running"),
        *("span.model_request_start", "span.model_request_end"),
    ]
    for turn in broken:
        assert sorted(turn) == sorted([*first, *extra])
    spans = await scene.events(session, "span.model_request_end")
    failed = [span["model_usage"] for span in spans if span["is_error"]]
    assert len(failed) == len(broken)
    usage = (await scene.finish(session)).state.usage
    for name in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
        assert getattr(usage, name) == sum(span["model_usage"][name] for span in spans)
    counted = [sum(span[name] for name in span if name.endswith("tokens")) > 0 for span in failed]
    assert counted[:3] == [False, False, True], "what the provider had not reported is not known"
    assert failed[2]["output_tokens"] == 1, "as reported at the start of the stream"


class _Watched:
    """A follower's view: what was stored, and the text that it saw coming."""

    def __init__(self) -> None:
        self._stored: dict[str, str] = {}
        self._coming: defaultdict[str, str] = defaultdict(str)
        self._number = 0
        self._news = asyncio.Event()

    async def follow(self, scene: Scene, session: str) -> None:
        async with aclosing(scene.service.follow(session, deltas=True)) as frames:
            async for frame in frames:
                if isinstance(frame, Delta):
                    self._coming[frame.event_id] += frame.text
                elif isinstance(frame, StoredEvent):
                    self._take(frame)

    def _take(self, event: StoredEvent) -> None:
        self._number = event.seq
        self._news.set()
        if event.type == "agent.message" and event.public:
            self._stored[event.id] = said(event.public)

    async def reaches(self, number: int) -> None:
        while self._number < number:
            self._news.clear()
            await self._news.wait()

    def check(self) -> None:
        """What came is what was stored, or belongs to nothing that was: a broken answer's text is never final."""
        whole = self._coming.keys() & self._stored.keys()
        assert all(self._coming[key] == self._stored[key] for key in whole)
        broken = {text for key, text in self._coming.items() if key not in self._stored}
        assert any(broken), "the follower saw the beginning of broken answers"
