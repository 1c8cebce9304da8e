"""A log that is followed, as a stream tells it."""

from __future__ import annotations

from typing import Any

from server import events
from server.sessions.live import Frame, Live, waiting
from server.sessions.log import Delta
from tests.support.factories import SESSION, THREAD, LogBuilder, check_event, say

MESSAGE, THINKING = "agent.message", "agent.thinking"


def told(live: Live, log: LogBuilder, after: int = 0) -> list[Frame]:
    """What the connection gets of the events above this number."""
    return [frame for event in log.events[after:] for frame in live.take(event)]


def delta(text: str, at: int, event_id: str = "sevt_1", kind: str = MESSAGE) -> Delta:
    return Delta(SESSION, event_id, kind, text, 0, at)


def previewed(live: Live, *deltas: Delta) -> list[dict[str, Any]]:
    return [dict(frame.event) for each in deltas for frame in live.take(each)]


def test_an_input_comes_twice_under_one_id_queued_and_then_processed() -> None:
    log = LogBuilder()
    said = log.message("hello")
    log.ask(said, turn=True)
    shown = [frame.event for frame in told(Live(THREAD, {}), log) if frame.event["id"] == said]
    assert [event["processed_at"] is None for event in shown] == [True, False]
    assert shown[0]["content"] == shown[1]["content"]
    for event in shown:
        check_event(event)


def test_an_input_that_was_queued_before_the_connection_began_comes_once_it_is_processed() -> None:
    log = LogBuilder()
    said = log.message("hello")
    live = Live(THREAD, waiting(log.events))
    log.ask(said, turn=True)
    (shown,) = [frame.event for frame in told(live, log, after=1) if frame.event["id"] == said]
    assert shown["processed_at"] is not None


def test_only_inputs_that_nobody_has_delivered_are_waiting() -> None:
    log = LogBuilder()
    first, second = log.message("a"), log.message("b")
    log.ask(first, turn=True)
    assert list(waiting(log.events)) == [second]


def test_private_rows_and_other_threads_never_come() -> None:
    log = LogBuilder()
    log.add(events.dispatched(THREAD, "call", "life"), events.agent_message("sthr_other", "elsewhere"))
    assert told(Live(THREAD, {}), log) == []


def test_the_place_to_resume_from_is_told_with_the_last_event_of_a_row_alone() -> None:
    log = LogBuilder()
    log.add(events.delivered(THREAD, [log.message("a"), log.message("b")]))
    assert [frame.seq for frame in told(Live(THREAD, {}), log)] == [1, 2, None, 3]


def test_resumed_at_any_place_a_stream_tells_the_rest_and_nothing_is_lost() -> None:
    log = LogBuilder()
    log.answer(log.ask(log.message("a"), log.message("b"), turn=True), say("ok"))
    whole = told(Live(THREAD, {}), log)
    for number, frame in enumerate(whole, 1):
        if frame.seq is not None:
            live = Live(THREAD, waiting(log.events[: frame.seq]))
            assert told(live, log, after=frame.seq) == whole[number:]


# --- text that is being written --------------------------------------------------------------------------------------


def test_nothing_is_shown_while_it_is_written_to_who_did_not_ask() -> None:
    assert previewed(Live(THREAD, {}), delta("", 0), delta("hel", 0)) == []
    assert previewed(Live(THREAD, {}, [THINKING]), delta("hel", 0)) == []


def test_a_text_starts_once_and_its_pieces_add_up_to_its_beginning() -> None:
    live = Live(THREAD, {}, [MESSAGE])
    first, *pieces = previewed(live, delta("", 0), delta("hel", 0), delta("lo", 3))
    assert first == {"type": "event_start", "event": {"type": MESSAGE, "id": "sevt_1"}}
    assert [piece["type"] for piece in pieces] == ["event_delta", "event_delta"]
    assert {piece["delta"]["index"] for piece in pieces} == {0}
    assert "".join(piece["delta"]["content"]["text"] for piece in pieces) == "hello"


def test_of_a_text_whose_beginning_was_missed_nothing_is_shown() -> None:
    live = Live(THREAD, {}, [MESSAGE])
    assert previewed(live, delta("lo", 3), delta("!", 5)) == []


def test_after_a_gap_nothing_more_of_the_text_is_shown() -> None:
    live = Live(THREAD, {}, [MESSAGE])
    assert len(previewed(live, delta("a", 0))) == 2
    assert previewed(live, delta("c", 2), delta("d", 3)) == []


def test_of_thinking_only_the_start_is_shown() -> None:
    live = Live(THREAD, {}, [THINKING])
    shown = previewed(live, delta("", 0, kind=THINKING), delta("secret", 0, kind=THINKING))
    assert [event["type"] for event in shown] == ["event_start"]


def test_previews_have_no_place_to_resume_from() -> None:
    live = Live(THREAD, {}, [MESSAGE])
    assert {frame.seq for frame in live.take(delta("a", 0))} == {None}
