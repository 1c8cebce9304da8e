"""Threads over REST: the primary one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types.beta.sessions import BetaManagedAgentsSessionThread

from tests.support.cast import Cast, told
from tests.support.judged import judged, refused
from tests.support.served import Site


@pytest.fixture(scope="module")
def cast(site: Site) -> Iterator[Cast]:
    with site.client() as client:
        yield Cast(client)


def test_a_new_session_has_its_primary_thread_without_figures_yet(site: Site, cast: Cast) -> None:
    made = cast.session()
    with site.http() as http:
        (item,) = http.get(f"/v1/sessions/{made.id}/threads").json()["data"]
        shown = judged(BetaManagedAgentsSessionThread, item)
        assert http.get(f"/v1/sessions/{made.id}/threads/{shown.id}").json() == item
    assert shown.id.startswith("sthr_")
    assert (shown.session_id, shown.parent_thread_id, shown.status) == (made.id, None, "idle")
    assert (shown.stats, shown.usage, shown.workflow_run_id, shown.archived_at) == (None, None, None, None)
    assert (shown.agent.id, shown.agent.name) == (cast.agent.id, "helper")


def test_after_a_turn_the_thread_has_the_sessions_figures(site: Site, cast: Cast) -> None:
    made = cast.rested()
    (thread,) = cast.client.beta.sessions.threads.list(made.id)
    with site.http() as http:
        judged(BetaManagedAgentsSessionThread, http.get(f"/v1/sessions/{made.id}/threads/{thread.id}").text)
    assert thread.stats is not None
    assert thread.usage is not None
    assert thread.usage.output_tokens == made.usage.output_tokens
    assert thread.stats.active_seconds == made.stats.active_seconds


def test_threads_are_chosen_by_status(cast: Cast) -> None:
    made = cast.rested()
    threads: Any = cast.client.beta.sessions.threads
    assert len(list(threads.list(made.id, statuses=["idle", "running"]))) == 1
    assert list(threads.list(made.id, statuses=["terminated"])) == []
    refused(400, lambda: threads.list(made.id, statuses=["asleep"]), "statuses[]")


def test_the_events_of_the_primary_thread_are_the_sessions(cast: Cast) -> None:
    made = cast.rested()
    (thread,) = cast.client.beta.sessions.threads.list(made.id)
    of_thread = cast.client.beta.sessions.threads.events.list(thread.id, session_id=made.id, limit=3)
    assert [event.id for event in of_thread] == [event.id for event in cast.events.list(made.id)]


def test_the_stream_of_the_primary_thread_is_the_sessions(cast: Cast) -> None:
    made = cast.session()
    (thread,) = cast.client.beta.sessions.threads.list(made.id)
    found: list[Any] = []
    with cast.client.beta.sessions.threads.events.stream(thread.id, session_id=made.id, timeout=60) as stream:
        cast.events.send(made.id, events=[told({"say": "here"})])
        for event in stream:
            found.append(event)
            if event.type == "session.status_idle":
                break
    assert {event.id for event in found} == {event.id for event in cast.events.list(made.id)}


def test_the_primary_thread_is_archived_with_its_session_alone(cast: Cast) -> None:
    made = cast.rested()
    threads = cast.client.beta.sessions.threads
    (thread,) = threads.list(made.id)
    refused(400, lambda: threads.archive(thread.id, session_id=made.id), "primary thread")
    cast.client.beta.sessions.archive(made.id)
    ended = threads.archive(thread.id, session_id=made.id)
    assert ended.status == "terminated"
    assert ended.archived_at is not None


def test_a_thread_that_is_not_the_sessions_is_not_found(cast: Cast) -> None:
    made, other = cast.session(), cast.session()
    threads = cast.client.beta.sessions.threads
    (strange,) = threads.list(other.id)
    for act in (
        lambda: threads.retrieve(strange.id, session_id=made.id),
        lambda: threads.archive(strange.id, session_id=made.id),
        lambda: threads.events.list(strange.id, session_id=made.id),
        lambda: threads.events.stream(strange.id, session_id=made.id),
        lambda: threads.list("sesn_none"),
    ):
        refused(404, act, kind="not_found_error")
