"""What is done about a full context: one row a rule; and that it always comes to an end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from server.sessions.conversation import context
from server.sessions.conversation.context import Context, Way, Window, estimate, what_makes_room

WINDOW = Window(1_000)
ROWS: dict[str, tuple[Context, int, Way | None]] = {
    "nothing was said": (Context(), 0, None),
    "half full, and little to clear": (Context(600, old=100), 0, None),
    "half full, and much to clear": (Context(600, old=200), 0, "clear"),
    "what is coming counts": (Context(400, old=200), 100, "clear"),
    "not half full": (Context(400, old=300), 0, None),
    "nearly full": (Context(800), 0, "compact"),
    "nearly full of a message that is to be answered": (Context(800, since=700), 0, None),
    "a large message after little": (Context(100), 800, None),
    "a large message after a large one that was not answered": (Context(500, since=500), 400, "compact"),
    "too full of a message that is to be answered": (Context(1_000, since=900), 0, "full"),
    "nearly full, with results to clear": (Context(800, old=200), 0, "clear"),
    "the newest results are most of it": (Context(900, recent=(0, 500)), 0, "clear_all"),
    "the newest results have room beside a summary": (Context(900, recent=(400, 100)), 0, "compact"),
    "nearly full after a summary: it fits, so it is asked": (Context(900, compactions=1), 0, None),
    "too full after a summary": (Context(1_000, compactions=1), 0, "full"),
    "too full after a summary, with results left": (Context(1_000, compactions=1, recent=(9,)), 0, "clear_all"),
    "a message that fits into no context": (Context(), 1_000, "full"),
    "the provider says that it is too much": (Context(10, crowded=True), 0, "compact"),
    "the provider says so of the first message": (Context(10, since=10, crowded=True), 0, "full"),
    "the provider says so again": (Context(10, crowded=True, compactions=1), 0, "full"),
    "the provider says so, and a little can be cleared": (Context(10, old=1, crowded=True), 0, "clear"),
}


@pytest.mark.parametrize(("now", "coming", "way"), ROWS.values(), ids=ROWS.keys())
def test_what_makes_room_follows_from_how_full_it_is(now: Context, coming: int, way: Way | None) -> None:
    assert what_makes_room(now, coming, WINDOW) == way


def test_a_request_that_is_refused_again_and_again_comes_to_an_end() -> None:
    now, done = Context(900, old=50, recent=(100, 100, 100)), []
    while (way := what_makes_room(context.refused(now), 0, WINDOW)) != "full":
        done.append(way)
        if way == "compact":
            now = context.compacted(now, {"after": 900, "rounds": [50], "kept": 2})
        else:
            now = context.cleared(now, {"keep": 3 if way == "clear" else 0, "freed": 0})
    assert done == ["clear", "compact", "clear_all"]


def test_rounds_grow_old_and_small_results_are_not_worth_clearing() -> None:
    now = Context()
    for n in range(5):
        now = context.answered(now, {"input_tokens": 10, "output_tokens": 5}, stop="tool_use", calls=True)
        now = context.result_came(now, [{"type": "text", "text": "x" * 3_000 if n != 3 else "ok"}])
    large = estimate({"type": "text", "text": "x" * 3_000})
    assert (now.old, now.recent, now.tokens) == (2 * large, (large, 0, large), 15 + large)
    assert context.cleared(now, {"keep": 3, "freed": now.old}).recent == (large, 0, large)
    assert context.cleared(now, {"keep": 0, "freed": 0}).recent == (0, 0, 0)


@pytest.mark.parametrize(
    ("block", "least", "most"),
    [
        ({"type": "text", "text": "word " * 300}, 300, 600),
        ({"type": "image", "source": {"type": "base64", "data": "A" * 4_000_000}}, 1_500, 5_000),
        ({"type": "document", "source": {"type": "base64", "data": "A" * 400_000}}, 2_500, 15_000),
        ({"type": "document", "source": {"type": "text", "data": "word " * 300}}, 300, 600),
        ({"type": "tool_use", "id": "t", "name": "bash", "input": {"command": "ls"}}, 10, 50),
    ],
)
def test_an_estimate_is_of_the_right_size(block: dict[str, Any], least: int, most: int) -> None:
    assert least <= estimate(block) <= most
    assert least <= estimate({"role": "user", "content": [block]}) <= most + 20


def test_a_turns_prompts_and_what_the_cache_held_of_them_are_counted() -> None:
    assert Context().cache_hit_ratio is None
    usage = {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_5m_input_tokens": 10}
    now = context.answered(replace(Context(), prompt=100), usage, stop="end_turn", calls=False)
    assert (now.prompt, now.cached, now.cache_hit_ratio) == (200, 80, 0.4)
    assert context.turn_begun(now).cache_hit_ratio is None
