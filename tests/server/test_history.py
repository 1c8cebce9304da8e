"""The log as clients read it: where everything stands, and the same from page to page as in one piece."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server import events
from server.errors import InvalidRequest
from server.events import INPUT_TYPES, NewEvent, StoredEvent
from server.sessions import pages
from server.sessions.fold import fold
from server.sessions.history import Numbered, present, within
from server.sessions.pages import Chosen, Pages, Place
from server.sessions.state import SessionState
from server.store.store import Store
from tests.support.factories import SESSION, THREAD, LogBuilder, open_log

# --- where everything stands -----------------------------------------------------------------------------------------


def whole(log: Sequence[StoredEvent]) -> list[Numbered]:
    """The list as the wire defines it, by reading everything."""
    inputs = {event.id: event for event in log if event.type in INPUT_TYPES}
    listed = present(log, inputs)
    shown = {body["id"] for _, body in listed}
    return listed + [(event.seq, event.public) for event in inputs.values() if event.public and event.id not in shown]


def test_an_input_is_listed_once_where_it_was_delivered_with_the_time_of_its_delivery() -> None:
    log = LogBuilder()
    first, second = log.message("a"), log.message("b")
    log.add(events.delivered(THREAD, [second, first]))
    shown = whole(log.events)
    assert [(seq, body["id"]) for seq, body in shown] == [(3, second), (3, first)]
    at = (log.events[2].private or {})["at"]
    assert [body["processed_at"] for _, body in shown] == [at, at]


def test_private_facts_are_not_listed() -> None:
    log = LogBuilder()
    log.add(events.dispatched(THREAD, "c", "life"), events.delivered(THREAD, []))
    assert whole(log.events) == []


def test_what_was_not_processed_yet_lies_within_no_time() -> None:
    assert within("2026-01-02", {"gt": "2026-01-01", "lte": "2026-01-02"})
    assert not within("2026-01-02", {"lt": "2026-01-02"})
    assert not within(None, {})


# --- pages -----------------------------------------------------------------------------------------------------------

STEPS = st.lists(st.sampled_from(["message", "interrupt", "deliver", "turn", "private"]), max_size=14)


def told(steps: Sequence[str]) -> list[NewEvent]:
    """A log of inputs that come at any time and are delivered together, newest first, between other events."""
    log: list[NewEvent] = []
    waiting: list[str] = []
    for step in steps:
        if step in ("message", "interrupt"):
            new = (
                events.user_message(THREAD, [events.text("m")]) if step == "message" else events.user_interrupt(THREAD)
            )
            waiting.insert(0, new.id)
            log.append(new)
        elif step == "deliver":
            log.append(events.delivered(THREAD, waiting))
            waiting = []
        elif step == "turn":
            log += [events.model_request_start(THREAD), events.agent_message(THREAD, "a")]
        else:
            log.append(events.dispatched(THREAD, "c", "life"))
    return log


async def walked(store: Store, back: bool, size: int, more: Sequence[NewEvent] = (), **chosen: Any) -> list[Numbered]:
    """Every page from the first on, `more` being appended after it."""
    seen: list[Numbered] = []
    after: Place | None = None
    while True:
        row, tail = await store.session_and_tail(SESSION)
        page = await Pages(store, row, fold(SessionState(), tail), Chosen(**chosen)).page(size, after, back=back)
        seen += page
        if len(page) < size and not isinstance(page, pages.Cut):
            return seen
        after = Place(page[-1][0], page[-1][1]["id"])
        if more:
            await store.append(SESSION, more)
            more = ()


def on_store(log: Sequence[NewEvent], work: Callable[[Store], Awaitable[None]]) -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with open_log(Path(folder)) as (store, _):
                await store.append(SESSION, log)
                await work(store)

    asyncio.run(scenario())


@settings(max_examples=25, deadline=None)
@given(
    log=STEPS.map(told),
    size=st.integers(1, 4),
    rows=st.sampled_from([1, 2, 250]),
    characters=st.sampled_from([1, 1_000, 1 << 20]),
)
def test_the_pages_together_are_the_whole_list_in_either_order(
    log: list[NewEvent], size: int, rows: int, characters: int
) -> None:
    async def work(store: Store) -> None:
        listed = whole(await store.events(SESSION))
        assert await walked(store, False, size) == listed
        assert await walked(store, True, size) == listed[::-1]
        kinds = ("agent.message", "user.interrupt")
        some = [item for item in listed if item[1]["type"] in kinds]
        assert await walked(store, False, size, types=kinds) == some
        assert await walked(store, True, size, types=kinds) == some[::-1]
        dated = [item for item in listed if item[1]["processed_at"] is not None]
        assert await walked(store, True, size, created={"gt": "2000"}) == dated[::-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "ROWS", rows)
        patch.setattr(pages, "SIZE", characters)
        on_store(log, work)


@given(log=STEPS.map(told), after=st.integers(0, 20), limit=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_a_page_by_number_parts_no_events_that_share_one(log: list[NewEvent], after: int, limit: int) -> None:
    async def work(store: Store) -> None:
        rest = [item for item in whole(await store.events(SESSION)) if item[0] > after]
        row, tail = await store.session_and_tail(SESSION)
        page = await Pages(store, row, fold(SessionState(), tail), Chosen()).since(after, limit)
        assert page == rest[: len(page)]
        assert len(page) >= min(limit, len(rest))
        assert len(page) == len(rest) or rest[len(page)][0] != rest[len(page) - 1][0]
        assert len(page) <= limit or page[limit - 1][0] == page[-1][0]

    on_store(log, work)


@pytest.mark.parametrize("back", [False, True])
def test_a_page_ends_early_when_it_is_full_by_its_size_and_says_so(back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SIZE", 2_000)

    async def work(store: Store) -> None:
        row, tail = await store.session_and_tail(SESSION)
        history = Pages(store, row, fold(SessionState(), tail), Chosen())
        page = await history.page(50, back=back)
        assert isinstance(page, pages.Cut) and len(page) == 2
        assert len(await history.since(0, 50)) == 2
        rest = await history.page(50, Place(page[-1][0], page[-1][1]["id"]), back=back)
        assert [item[0] for item in rest] == ([2, 1] if back else [3, 4])

    on_store([events.agent_message(THREAD, "x" * 600) for _ in range(4)], work)


@pytest.mark.parametrize("back", [False, True])
def test_a_page_goes_on_from_an_input_that_was_delivered_since(back: bool) -> None:
    log = told(["turn", "message", "message"])
    first, second = log[-2], log[-1]
    more = [events.delivered(THREAD, [first.id, second.id]), events.agent_message(THREAD, "b")]

    async def work(store: Store) -> None:
        size = 1 if back else 3
        seen = [body["id"] for _, body in await walked(store, back, size, more)]
        message, answer = log[1].id, more[1].id
        assert seen == (
            [second.id, first.id, message, log[0].id] if back else [log[0].id, message, first.id, second.id, answer]
        )

    on_store(log, work)


@pytest.mark.parametrize("place", [Place(1, "other"), Place(4, "sevt_none"), Place(99, "sevt_none"), Place(0, "")])
def test_a_place_where_nothing_stands_is_refused(place: Place) -> None:
    async def work(store: Store) -> None:
        row, tail = await store.session_and_tail(SESSION)
        with pytest.raises(InvalidRequest, match="invalid page cursor"):
            await Pages(store, row, fold(SessionState(), tail), Chosen()).page(5, place)

    on_store(told(["turn", "message", "deliver", "turn"]), work)
