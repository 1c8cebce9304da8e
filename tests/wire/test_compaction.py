"""A summary that is killed on its way, by the official client: the next process asks once more, and goes on."""

from __future__ import annotations

import json
from typing import Any

from tests.scenarios.test_context import is_summary, story_of
from tests.support.cast import ENDS, Cast, text_of, told
from tests.support.scenario import MODEL
from tests.support.served import served

WINDOW = 20_000
SLOWLY = {"summary": {"stream": 1.5}}
"""Of the step that is due when the summary is asked for: it comes over so many seconds."""


def of_turn(cast: Cast, session_id: str, number: int) -> list[Any]:
    """The events of the session's turn of this number, once it is over."""
    turns: list[list[Any]] = [[]]
    with cast.events.stream(session_id, extra_query={"after": 0}, timeout=60) as stream:
        for event in stream:
            turns[-1].append(event)
            if event.type in ENDS and len(turns) == number:
                return turns[-1]
            if event.type in ENDS:
                turns.append([])
    raise AssertionError(f"there are {len(turns)} turns")


def test_a_process_killed_while_it_summarizes_asks_again_and_goes_on_with_the_same_bytes() -> None:
    with served("local", context_windows=json.dumps({MODEL: WINDOW})) as site:
        site.api.model.window = WINDOW
        cast = Cast(site.client())
        session = cast.rested(story_of(0, 2_400))
        cast.turn(session.id, told({**story_of(1, 2_400), **SLOWLY}))
        cast.events.send(session.id, events=[told(story_of(2, 2_400))])
        site.api.wait_for(lambda api: any(map(is_summary, api.requests)), 60)
        site.kill()
        site.restart()
        cast.client = site.client()
        seen = of_turn(cast, session.id, 3)
        assert [event.type for event in seen].count("agent.thread_context_compacted") == 1
        said = [event for event in seen if event.type == "agent.message"]
        assert [text_of(event).split()[0] for event in said] == ["needle-2"]
        asked = [received for received in site.api.requests if is_summary(received)]
        assert len(asked) == 2 and asked[0].aborted and asked[0].text == asked[1].text, "once more, the same"
        assert all(received.status == 200 for received in site.api.requests)
        cast.client.beta.sessions.delete(session.id)
