"""A conversation made smaller: where it is cut, what is shortened, and what is put in place of results."""

from __future__ import annotations

import pytest

from server.providers.scripted.validation import refusal
from server.sessions.conversation.compaction import (
    Message,
    cut,
    fitted,
    recent_rounds,
    with_results_cleared,
    without_thoughts,
)
from server.sessions.conversation.context import estimate_all
from tests.support.factories import call, say

SAYS = "[{size}: {number}]"


def user(text: str) -> Message:
    return {"role": "user", "content": [say(text)]}


def calls(*names: str) -> Message:
    return {"role": "assistant", "content": [say("I do"), *(call(name) for name in names)]}


def results(*names: str, text: str = "x" * 600) -> Message:
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": n, "content": [say(text)]} for n in names],
    }


LONG = [user("do"), calls("t1"), results("t1"), calls("t2", "t3"), results("t2", "t3"), calls("t4"), results("t4")]


@pytest.mark.parametrize(
    ("most", "longest", "follows", "at"),
    [
        (0, 0, False, 5),
        (300, 0, False, 5),
        (900, 0, False, 3),
        (90_000, 0, False, 1),
        (0, 0, True, 7),
        (0, 300, True, 5),
        (900, 900, True, 3),
    ],
)
def test_the_cut_is_before_an_answer_or_a_message_and_never_before_results(
    most: int, longest: int, follows: bool, at: int
) -> None:
    assert cut(LONG, most, longest, follows=follows) == at


def test_there_is_nothing_to_cut_from_a_first_message_that_is_not_answered_yet() -> None:
    assert cut([user("long " * 999)], 10, 10, follows=False) == 0
    assert cut([user("long " * 999)], 10, 10, follows=True) == 1
    assert cut([], 10, 10, follows=True) == 0


def test_results_of_old_rounds_give_way_to_words_and_small_ones_stay() -> None:
    numbers = {"t1": 5, "t2": 9, "t3": 10, "t4": 15}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    seen = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t3", "content": [image]}]}
    said = [user("do"), calls("t1"), results("t1", text="ok"), calls("t3"), seen, calls("t4"), results("t4")]
    cleared = with_results_cleared(said, 1, SAYS, numbers)
    texts = [message["content"][0]["content"][0].get("text") for message in cleared[2::2]]
    assert texts == ["ok", "[an image: 10]", "x" * 600]
    assert (
        with_results_cleared(said, 0, SAYS, numbers)[-1]["content"][0]["content"][0]["text"] == "[600 characters: 15]"
    )
    assert [message["role"] for message in cleared] == [message["role"] for message in said]
    assert recent_rounds(said) == [0, 2_000, 201]


def test_thoughts_go_and_what_stood_around_a_message_of_nothing_else_is_one() -> None:
    thought = {"type": "thinking", "thinking": "", "signature": "s"}
    said = [
        user("a"),
        {"role": "assistant", "content": [thought]},
        user("b"),
        {"role": "assistant", "content": [thought, say("c")]},
    ]
    assert without_thoughts(said) == [
        {"role": "user", "content": [say("a"), say("b")]},
        {"role": "assistant", "content": [say("c")]},
    ]
    assert said[0]["content"] == [say("a")], "nothing is changed in place"


def test_what_must_fit_keeps_the_beginning_and_the_end_of_everything() -> None:
    said = [user("begin " + "x" * 60_000 + " end"), calls("t1"), results("t1", text="y" * 90_000)]
    smaller = fitted(said, 2_000)
    assert estimate_all(smaller) <= 2_000
    text = smaller[0]["content"][0]["text"]
    assert text.startswith("begin ") and text.endswith(" end") and "characters are left out here" in text
    assert refusal({"model": "m", "max_tokens": 1, "messages": smaller}) is None
    assert fitted(LONG, 90_000) is LONG, "what fits stays as it is"
