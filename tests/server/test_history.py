"""The log as clients read it."""

from __future__ import annotations

from server import events
from server.sessions.history import present
from tests.support.factories import THREAD, LogBuilder, say


def listed(log: LogBuilder, after: int = 0, limit: int = 200) -> list[tuple[int, str]]:
    return [(seq, body["type"]) for seq, body in present(log.events, after, limit)]


def test_an_input_is_listed_once_where_it_was_delivered_with_the_time_of_its_delivery() -> None:
    log = LogBuilder()
    first, second = log.message("a"), log.message("b")
    log.add(events.delivered(THREAD, [second, first]))
    shown = present(log.events)
    assert [(seq, body["id"]) for seq, body in shown] == [(3, second), (3, first)]
    at = (log.events[2].private or {})["at"]
    assert [body["processed_at"] for _, body in shown] == [at, at]


def test_what_still_waits_is_listed_last_with_processed_at_null() -> None:
    log = LogBuilder()
    start = log.ask(log.message("a"), turn=True)
    log.message("waiting")
    log.answer(start, say("ok"))
    shown = present(log.events)
    assert [body["processed_at"] for _, body in shown].count(None) == 1
    assert shown[-1][1]["processed_at"] is None
    assert shown[-1][1]["content"] == [{"type": "text", "text": "waiting"}]


def test_private_facts_are_not_listed() -> None:
    log = LogBuilder()
    log.add(events.dispatched(THREAD, "c", "life"), events.delivered(THREAD, []))
    assert present(log.events) == []


def test_a_page_begins_after_a_number_and_ends_at_the_limit() -> None:
    log = LogBuilder()
    log.answer(log.ask(log.message("a"), turn=True), say("ok"))
    everything = listed(log)
    assert listed(log, limit=2) == everything[:2]
    assert listed(log, after=everything[1][0]) == everything[2:]


def test_a_delivered_input_comes_again_for_who_saw_it_waiting() -> None:
    log = LogBuilder()
    message = log.message("a")
    seen = present(log.events)
    log.add(events.delivered(THREAD, [message]))
    assert [body["id"] for _, body in present(log.events, after=seen[-1][0])] == [message]
