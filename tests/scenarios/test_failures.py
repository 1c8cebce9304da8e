"""Every row of the table of model failures, over real HTTP: its event, its tries, its words, and a session after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from server.doors.mcp.results import session as shown
from tests.scenarios.failures import CAUSES, DOCUMENT, Cause, document
from tests.support.pace import Waits
from tests.support.scenario import Scene, Stage

NO_TOOLS: Mapping[str, Any] = {"tools": []}
RETRIES = 2


def test_the_document_is_what_the_tests_play() -> None:
    assert DOCUMENT.read_text("utf-8") == document(), "run: python -m tests.scenarios.failures"


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_a_failure_has_its_event_its_tries_its_words_and_a_session_after_it(local: Stage, cause: Cause) -> None:
    waits = Waits()

    async def story(scene: Scene) -> None:
        view = await scene.turn(cause.step, agent=NO_TOOLS)
        for_good = len(cause.waits) in (0, RETRIES)
        await _check_events(scene, view.id, cause, for_good)
        assert waits.seconds == list(cause.waits)
        if for_good:
            result = shown(view, 10_000)
            assert (result.status, view.state.stop_reason) == ("idle", {"type": cause.stop})
            assert cause.next in result.next and "send_message" in result.next
            assert bool(result.error) is bool(cause.error)
        view = await scene.again(view.id, {"say": "Better now."})
        assert (view.state.reply, view.state.turns, shown(view, 10_000).error) == ("Better now.", 2, None)

    local.play(story, pace=waits.pace, retries=RETRIES, silence_seconds=1)


async def _check_events(scene: Scene, session: str, cause: Cause, for_good: bool) -> None:
    errors = [event["error"] for event in await scene.events(session, "session.error")]
    assert {error["type"] for error in errors} == ({cause.error} if cause.error else set())
    tries = [error["retry_status"]["type"] for error in errors]
    assert tries == ["retrying"] * len(cause.waits) + ["exhausted"] * bool(cause.error and for_good)
    types = await scene.types(session)
    assert types.count("session.status_rescheduled") == len(cause.waits)
    assert types[-1] == "session.status_idle" and "session.status_terminated" not in types
