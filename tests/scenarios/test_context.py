"""A session that outlives its model's context: results cleared, conversations summarized, everything found again.

The model is strict: it refuses a prompt over its window, a call without its result, and a thought that stands where it
was not thought.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from server.doors.mcp.results import session as shown
from server.events import COMPACTED, PRIVATE_CLEARED
from server.providers.summary import BETA, SUMMARIZE
from tests.support.messages_api import Received
from tests.support.pace import Waits
from tests.support.scenario import MODEL, OpenAgain, Scene, Stage, bash, call, reply, tool_results

WINDOW = 20_000
MARK = ',"cache_control":{"type":"ephemeral"}'
TALKER = {"name": "talker", "tools": []}
LIMIT = "compaction_limit_reached_error"


def small(**more: Any) -> dict[str, Any]:
    """Settings for a model with a small window."""
    return {"context_windows": {MODEL: WINDOW}, **more}


def round_of(number: int, characters: int = 6_000) -> Mapping[str, Any]:
    """A round of tools whose result has so many characters and a word of its own."""
    command = f"echo needle-{number}; head -c {characters} /dev/zero | tr '\\0' x"
    return {"think": f"Round {number}.", **call(bash(command))}


def effort(number: int, characters: int = 6_000) -> Mapping[str, Any]:
    """A round whose answer repeats the result before it: what was said cannot be cleared."""
    return {"say": "$RESULT", **round_of(number, characters)}


def story_of(number: int, words: int = 1_200) -> Mapping[str, Any]:
    """An answer of so many words that begins with a word of its own."""
    return {"think": f"Turn {number}.", "say": f"needle-{number} " + "word " * words}


def is_summary(received: Received) -> bool:
    last = received.body["messages"][-1]["content"]
    return "compaction" in received.body or any(block.get("text") == SUMMARIZE for block in last)


def turns(scene: Scene) -> list[Received]:
    """The requests that are not for summaries."""
    return [received for received in scene.api.requests if not is_summary(received)]


def summaries(scene: Scene) -> list[Received]:
    return [received for received in scene.api.requests if is_summary(received)]


def changes(scene: Scene) -> int:
    """How often a request did not begin with every byte of the one before, cache marks left out: with what its model
    was offered, and all that was said until then."""
    texts = [received.text.replace(MARK, "").removesuffix("]}") for received in turns(scene)]
    return sum(not after.startswith(before) for before, after in pairwise(texts))


def all_taken(scene: Scene) -> bool:
    return all(received.status == 200 for received in scene.api.requests)


async def private(scene: Scene, session_id: str, kind: str) -> list[Mapping[str, Any]]:
    """The private parts of the session's events of this type."""
    log = await scene.app.service._log.read(session_id)
    return [event.private or {} for event in log if event.type == kind]


async def errors(scene: Scene, session_id: str) -> list[str]:
    return [event["error"]["type"] for event in await scene.events(session_id, "session.error")]


def test_old_results_are_cleared_in_large_steps_and_recalled(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        scene.api.model.window = WINDOW
        look = {"call": [{"tool": "recall", "input": {"query": "needle-0"}}]}
        view = await scene.turn(*(round_of(n) for n in range(10)), look, {"say": "$RESULT"})
        assert all_taken(scene)
        assert "needle-0" in reply(view) and "result (6,0" in reply(view)
        cleared = await private(scene, view.id, PRIVATE_CLEARED)
        assert 1 <= len(cleared) <= 3, "not one by one"
        assert not await scene.events(view.id, COMPACTED)
        assert changes(scene) == len(cleared), "between two steps the prefix stays"
        offered = [[tool["name"] for tool in received.body["tools"]] for received in turns(scene)]
        assert offered[0][-1] == "grep" and offered[-1] == [*offered[0], "recall"]
        number = next(n for n, body in await scene.service.transcript(view.id) if body["type"] == "agent.tool_result")
        assert f"characters. recall(first={number}, last={number}) shows it again.]" in turns(scene)[-1].text
        again = {"call": [{"tool": "recall", "input": {"first": number, "last": number}}]}
        said = reply(await scene.again(view.id, again, {"say": "$RESULT"}))
        assert said.startswith(f"#{number} result:\nneedle-0\nxxx") and len(said) > 6_000, "as it was"

    local.play(story, **small())


def test_a_conversation_that_fills_the_window_is_summarized_and_goes_on(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        scene.api.model.window = WINDOW
        view = await scene.turn({"say": "hello"}, agent=TALKER)
        for n in range(10):
            view = await scene.again(view.id, story_of(n))
        assert all_taken(scene)
        compacted = await private(scene, view.id, COMPACTED)
        assert changes(scene) == len(compacted) == len(summaries(scene)) >= 1
        first = compacted[0]
        assert first["after"] < first["before"] < WINDOW and first["kept"] >= 1
        after = next(r.body for r in turns(scene) if r.at > summaries(scene)[0].at)
        said = json.dumps(after["messages"])
        assert first["summary"] in after["messages"][0]["content"][0]["text"]
        assert "needle-0 " not in said and "Turn 0." not in said, "what was summarized is gone"
        assert [body["type"] for body in await scene.events(view.id, COMPACTED)] == [COMPACTED] * len(compacted)
        spans = await scene.events(view.id, "span.model_request_end")
        counted = sum(span["model_usage"]["output_tokens"] for span in spans)
        assert len(spans) == len(scene.api.requests) and counted == view.state.usage.output_tokens, "it is paid for"
        texts = [event["content"][0]["text"] for event in await scene.events(view.id, "agent.message")]
        assert len(texts) == 11 and not any("It began with" in text for text in texts), "a summary is no message"
        said = reply(
            await scene.again(
                view.id, {"call": [{"tool": "recall", "input": {"query": "NEEDLE-0 "}}]}, {"say": "$RESULT"}
            )
        )
        assert "you (6,0" in said and "needle-0 word" in said

    local.play(story, **small())


def test_a_long_turn_is_summarized_between_its_rounds_and_calls_keep_their_results(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        scene.api.model.window = WINDOW
        view = await scene.turn(*(effort(n) for n in range(12)), {"say": "done"})
        assert all_taken(scene) and reply(view) == "done"
        compacted, cleared = [await private(scene, view.id, kind) for kind in (COMPACTED, PRIVATE_CLEARED)]
        assert compacted and 1 <= changes(scene) <= len(compacted) + len(cleared)
        assert compacted[0]["kept"] >= 2, "the newest call and its result"
        assert [text[:10].split()[0] for text in await scene.results(view.id)] == [f"needle-{n}" for n in range(12)]
        assert (await scene.types(view.id)).count("session.status_running") == 1, "one turn"

    local.play(story, **small())


def test_a_refusal_as_too_long_makes_room_and_asks_again(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        scene.api.model.window = 14_000
        view = await scene.turn(*(effort(n) for n in range(8)), {"say": "done"})
        assert reply(view) == "done" and not await errors(scene, view.id)
        refused = [received for received in scene.api.requests if received.status == 400]
        steps = [len(await private(scene, view.id, kind)) for kind in (COMPACTED, PRIVATE_CLEARED)]
        assert refused and all(steps) and sum(steps) == len(refused), "one step for each, and no other"
        spans = await scene.service.requests(view, 100)
        known = [Decimal(span["cost_usd"]) for _, span in spans if not span["is_error"]]
        assert view.state.usage.cost_usd == view.state.turn_cost_usd == str(sum(known)), "a refusal costs nothing"

    local.play(story, context_windows={MODEL: 100_000})


def test_a_budget_in_dollars_outlives_a_refusal_as_too_long(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        scene.api.model.window = 14_000
        view = await scene.turn(*(effort(n) for n in range(8)), {"say": "done"}, budget={"usd": 5})
        assert reply(view) == "done" and any(received.status == 400 for received in scene.api.requests)
        assert view.state.stop_reason == {"type": "end_turn"}

    local.play(story, context_windows={MODEL: 100_000})


def test_a_request_that_is_too_large_is_made_smaller_too(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn({"say": "hello"}, agent=TALKER)
        await scene.tell(view.id, {"say": "hm"}, say="much " * 2_000)
        await scene.finish(view.id)
        scene.api.most_bytes = 8_000
        view = await scene.again(view.id, {"say": "there"})
        assert reply(view) == "there" and not await errors(scene, view.id)
        assert [received.status for received in scene.api.requests] == [200, 200, 413, 200, 200]
        assert [is_summary(received) for received in scene.api.requests] == [False, False, False, True, False]

    local.play(story)


def test_an_answer_cut_off_by_a_full_window_goes_on_after_a_summary(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn({"say": "hello"}, agent=TALKER)
        full = {"say": "The first half,", "stop": "model_context_window_exceeded"}
        view = await scene.again(view.id, full, {"say": "and the second."})
        assert reply(view) == "and the second." and view.state.stop_reason == {"type": "end_turn"}
        last = turns(scene)[-1].body["messages"]
        assert last[-2]["content"][0]["text"] == "The first half," and "go on" in last[-1]["content"][0]["text"]
        assert all_taken(scene)

    local.play(story)


def test_what_can_never_fit_ends_the_turn_and_says_so_and_the_next_message_works(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        scene.api.model.window = WINDOW
        view = await scene.turn({"say": "hello"}, agent=TALKER)
        await scene.tell(view.id, say="much " * 20_000)
        view = await scene.finish(view.id)
        assert await errors(scene, view.id) == [LIMIT]
        assert view.state.stop_reason == {"type": "retries_exhausted"} and not view.state.queue
        assert len(scene.api.requests) <= 3, "it did not go round and round"
        view = await scene.again(view.id, {"say": "back"})
        assert reply(view) == "back" and view.state.stop_reason == {"type": "end_turn"}
        assert all_taken(scene)

    local.play(story, **small())


def test_a_message_that_nearly_fills_the_window_is_asked_and_asked_again_after_a_failure(local: Stage) -> None:
    waits = Waits()

    async def story(scene: Scene) -> None:
        view = await scene.turn({"say": "hello"}, agent=TALKER)
        await scene.tell(view.id, {"say": "read", "fail": {"status": 529, "retry_after": 0}}, say="much " * 10_000)
        view = await scene.finish(view.id)
        assert reply(view) == "read" and not summaries(scene)
        assert [received.status for received in scene.api.requests] == [200, 529, 200]

    local.play(story, pace=waits.pace, **small())


def test_results_that_are_too_long_together_are_left_in_the_log(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        scene.api.model.window = WINDOW
        large = call(*(bash(f"echo needle-{n}; head -c 30000 /dev/zero | tr '\\0' x") for n in range(4)))
        look = {"call": [{"tool": "recall", "input": {"query": "needle-2"}}]}
        view = await scene.turn(large, look, {"say": "$RESULT"})
        assert "needle-2" in reply(view) and all_taken(scene)
        assert [len(text) < 200 for text in tool_results(scene.api.bodies[1])] == [True] * 4
        assert [len(text) for text in await scene.results(view.id)][:4] == [30_009] * 4

    local.play(story, **small())


def test_the_prefix_stays_the_same_across_lives_and_changes_when_the_session_is_changed(local: Stage) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            scene.api.model.window = WINDOW
            view = await scene.turn(*(round_of(n) for n in range(7)), {"say": "a"})
            await scene.again(view.id, *(effort(n) for n in range(7)), {"say": "b"})
            before = changes(scene)
            steps = len(await private(scene, view.id, COMPACTED)) + len(await private(scene, view.id, PRIVATE_CLEARED))
            assert 2 <= before <= steps
        async with open_again(True) as scene:
            await scene.again(view.id, {"think": "Hm.", **call(bash("echo c"))}, {"say": "c"})
            assert changes(scene) == before, "another process sends the same bytes"
            await scene.service.update_session(view.id, {"agent": {"tools": []}})
            await scene.again(view.id, {"say": "d"})
            assert changes(scene) == before + 1 and all_taken(scene)

    local.play_lives(story, **small())


def test_the_summary_of_the_models_own_api_goes_first_and_verbatim(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        scene.api.model.window = WINDOW
        view = await scene.turn(*(effort(n) for n in range(12)), {"say": "done"})
        assert all_taken(scene) and reply(view) == "done"
        asked = summaries(scene)[0]
        assert asked.body["compaction"] == {"type": "summarize"} and asked.headers["anthropic-beta"] == BETA
        last = turns(scene)[-1]
        assert last.body["messages"][0]["content"][0]["type"] == "compaction" and last.headers["anthropic-beta"] == BETA
        spans = await scene.events(view.id, "span.model_request_end")
        assert all(span["model_usage"]["output_tokens"] for span in spans), "what it took is counted"

    local.play(story, model="claude-opus-5", context_windows={"claude-opus-5": WINDOW}, compaction="server")


def test_how_much_of_a_turn_the_cache_held_is_shown(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(round_of(0), {"say": "a"})
        assert 0 < (shown(view, 10_000).usage.cache_hit_ratio or 0) < 0.7, "its first request filled the cache"
        view = await scene.again(view.id, {"say": "b"})
        assert 0.9 < (shown(view, 10_000).usage.cache_hit_ratio or 0) < 1

    local.play(story)


def filled(**summary: Any) -> Mapping[str, Any]:
    """An answer that half fills a small window; how a summary of it is written."""
    return {**story_of(0, 2_400), "summary": summary}


def test_an_interrupt_ends_a_summary_at_once_and_the_next_message_asks_for_it_again(local: Stage) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(filled(wait=1), agent=TALKER)
        view = await scene.again(view.id, filled(wait=1))
        await scene.tell(view.id, story_of(1, 2_400))
        await scene.asked(lambda api: any(map(is_summary, api.requests)))
        await scene.service.interrupt(view.id)  # the message that waits begins the next turn at once
        (ended,) = [event for event in await scene.events(view.id, "span.model_request_end") if event["is_error"]]
        rested = await scene.events(view.id, "session.status_idle")
        assert len(rested) == 3 and rested[-1]["processed_at"] >= ended["processed_at"]
        view = await scene.again(view.id, {"say": "there"})
        assert reply(view) == "there" and len(await scene.events(view.id, COMPACTED)) == 1
        assert len(summaries(scene)) == 2

    local.play(story, **small())


def test_a_summary_that_fails_is_tried_again_like_any_request(local: Stage) -> None:
    waits = Waits()

    async def story(scene: Scene) -> None:
        once = {"fail": {"status": 529, "retry_after": 7, "times": 1}}
        view = await scene.turn(filled(**once), agent=TALKER)
        await scene.again(view.id, filled(**once))
        view = await scene.again(view.id, {"say": "there"} | {"think": "word " * 2_400})
        assert reply(view) == "there" and waits.seconds == [7]
        assert await errors(scene, view.id) == ["model_overloaded_error"]
        assert [received.status for received in summaries(scene)] == [529, 200]

    local.play(story, pace=waits.pace, **small())


@pytest.mark.parametrize(
    "answer", [{"say": "No.", "stop": "refusal"}, {"say": "", "call": [{"tool": "x", "force": True}]}]
)
def test_without_a_summary_the_agent_goes_on_and_looks_things_up(local: Stage, answer: Mapping[str, Any]) -> None:
    async def story(scene: Scene) -> None:
        view = await scene.turn(filled(**answer), agent=TALKER)
        await scene.again(view.id, filled(**answer))
        look = {"call": [{"tool": "recall", "input": {"query": "needle-0"}}], "think": "word " * 2_400}
        view = await scene.again(view.id, look, {"say": "$RESULT"})
        assert "needle-0" in reply(view) and not await errors(scene, view.id)
        assert "no summary of it could be written" in turns(scene)[-1].text
        assert all_taken(scene) and len(summaries(scene)) == 1

    local.play(story, **small())
