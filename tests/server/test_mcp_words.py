"""The pure parts of the MCP door: progress, the byte budget, pages."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from server.doors.hosts import host_headers, is_loopback
from server.doors.mcp import brevity, progress
from server.doors.mcp.tools.transcript import page, portion
from server.doors.mcp.tools.workspace import decoded, file, folder
from server.sessions.sandboxing.workspace import Entry, File, Folder
from server.sessions.state import QueuedInput, SessionState
from server.sessions.view import SessionView


def test_progress_grows_with_every_telling_and_is_the_event_number_where_that_is_news() -> None:
    values: list[float] = []
    last: float | None = None
    for number in (5, 5, 5, 9, 9, 10, 4):
        last = progress.value_after(last, number)
        values.append(last)
    assert values == [5, 5.01, 5.02, 9, 9.01, 10, 10.01]
    assert all(a < b for a, b in itertools.pairwise(values))


def seen(state: SessionState, waiting: str = "") -> SessionView:
    row: Any = None  # what progress tells is folded
    spec: Any = None
    return SessionView(row, spec, state, waiting)


def test_a_progress_message_says_turn_call_activity_and_time() -> None:
    state = SessionState(status="running", turns=1, tool_calls=3, activity="bash: pytest -q")
    assert progress.message(seen(state), 45.3) == "turn 1, call 3: bash: pytest -q (45 s)"
    assert progress.message(seen(replace(state, tool_calls=0)), 0.2, "tests") == "tests: turn 1: bash: pytest -q"


def test_a_message_that_waits_is_shown_as_the_next_turn_queued() -> None:
    state = SessionState(status="idle", turns=1, activity="idle", queue=(QueuedInput("a", "user.message", 3),))
    assert progress.message(seen(state), 0) == "turn 2: queued"
    words = "waiting for its turn, 3 before it (setting max_sessions_at_work)"
    assert progress.message(seen(state, words), 7) == f"turn 2: {words} (7 s)"


def test_a_progress_message_is_one_short_line_that_keeps_its_time() -> None:
    state = SessionState(status="running", turns=1, activity="bash: " + "x\n" * 500)
    line = progress.message(seen(state), 12)
    assert len(line) == progress.MAX_MESSAGE and line.endswith("(12 s)") and "\n" not in line


def test_news_is_told_at_most_four_times_a_second_and_silence_ends_after_ten() -> None:
    assert progress.pause(None, news=True) == 0
    assert progress.pause(0.0625, news=True) == 0.1875
    assert progress.pause(3, news=True) == 0
    assert progress.pause(4, news=False) == 6
    assert progress.pause(11, news=False) == 0


@pytest.mark.parametrize("text", ["x" * 50_000, "é" * 20_000, '"\n' * 20_000, "\x01" * 9_000, "🙂" * 9_000])
def test_a_long_text_is_shown_as_head_and_tail_with_a_pointer_and_fits(text: str) -> None:
    shown = brevity.head_and_tail(text, 4_000, "read on at {offset}")
    assert brevity.weight(shown) < 4_200
    head, _, rest = shown.partition("\n[... ")
    note, _, tail = rest.partition(" ...]\n")
    assert text.startswith(head) and text.endswith(tail) and head and tail
    assert f"{len(text) - len(head) - len(tail):,} of {len(text):,} characters are left out" in note
    assert note.endswith(f"read on at {len(head)}")


def test_a_short_text_is_left_alone() -> None:
    assert brevity.head_and_tail("short", 100, "nowhere") == "short"


def _events(*texts: str) -> list[tuple[int, dict[str, Any]]]:
    return [
        (number, {"id": f"e{number}", "type": "agent.message", "content": [{"type": "text", "text": text}]})
        for number, text in enumerate(texts, 1)
    ]


def test_pages_of_a_transcript_hold_every_event_once_and_stay_in_the_budget() -> None:
    listed = _events(*("word " * 60 for _ in range(100)))
    seen: list[int] = []
    after = 0
    while True:
        shown = page("s", after, [each for each in listed if each[0] > after], 50, 5_000)
        assert brevity.weight(shown.events) <= 5_000
        seen += [event["number"] for event in shown.events]
        after = shown.next_after
        if not shown.more:
            break
    assert seen == list(range(1, 101))


def test_inputs_delivered_together_are_not_parted_by_a_page() -> None:
    listed = [(7, {"id": "a", "type": "user.message"}), (7, {"id": "b", "type": "user.message"})]
    listed.append((9, {"id": "c", "type": "user.message"}))
    shown = page("s", 0, listed, 1, 5_000)
    assert [event["id"] for event in shown.events] == ["a", "b"] and shown.more and shown.next_after == 7


def test_a_queued_input_with_a_lower_number_does_not_send_the_reader_back() -> None:
    listed = [(9, {"id": "c", "type": "agent.message"}), (5, {"id": "q", "type": "user.message"})]
    assert page("s", 0, listed, 10, 5_000).next_after == 9


def test_a_long_event_is_shortened_in_a_page_and_read_whole_in_portions() -> None:
    text = "".join(f"line {n}\n" for n in range(5_000))
    listed = _events("first", text)
    shown = page("s", 0, listed, 10, 20_000)
    assert brevity.weight(shown.events) <= 20_000
    assert "read_transcript(session_id='s', after=1, offset=0)" in json.dumps(shown.events[1])
    collected, offset = "", 0
    while True:
        part = portion("s", 1, listed[1:], offset, 18_000)
        collected += part.portion or ""
        if part.next_offset is None:
            break
        offset = part.next_offset
    assert collected == text


def test_a_portion_of_nothing_is_an_error_that_says_so() -> None:
    with pytest.raises(ToolError, match="no event after number 9"):
        portion("s", 9, [], 0, 1_000)


def test_images_in_a_transcript_are_described() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 4_000}
    body = {"id": "a", "type": "agent.tool_result", "content": [{"type": "image", "source": source}]}
    (event,) = page("s", 0, [(1, body)], 10, 20_000).events
    assert event["content"][0]["source"]["data"] == "[about 3,000 bytes, not shown]"


def test_a_file_is_read_in_portions_without_losing_a_character() -> None:
    content = ("grün 🙂 " * 4_000).encode()
    collected, offset = "", 0
    while True:
        part = file("s", File("a.txt", content[offset : offset + 5_000], offset, len(content), "text/plain"), 5_000)
        collected += part.text or ""
        if part.next_offset is None:
            break
        assert part.next_offset > offset
        offset = part.next_offset
    assert collected.encode() == content


def test_a_range_that_begins_within_a_character_begins_after_it() -> None:
    part = file("s", File("a.txt", "🙂ab".encode()[1:], 1, 6, "text/plain"), 5_000)
    assert (part.text, part.offset) == ("ab", 4)


def test_binary_content_is_described_and_not_dumped() -> None:
    part = file("s", File("a.bin", b"\x7fELF\0\xff", 0, 6, "application/octet-stream"), 5_000)
    assert (part.kind, part.text, part.size) == ("binary", None, 6)
    assert decoded(b"\xff\xfe", last=True) is None


def test_a_folder_is_listed_in_pages_that_fit() -> None:
    entries = [Entry(f"file-{n:03}.txt", "file", n) for n in range(200)]
    seen: list[str] = []
    after = ""
    while True:
        part = folder("s", Folder(".", [e for e in entries if e.name > after], 200, None), after, 3_000)
        seen += [entry.name for entry in part.entries or ()]
        if part.next_after is None:
            break
        after = part.next_after
    assert seen == [entry.name for entry in entries]


def test_host_headers_are_those_of_this_machine_and_those_allowed() -> None:
    assert host_headers("127.0.0.1", []) == [
        "127.0.0.1", "127.0.0.1:*", "localhost", "localhost:*", "[::1]", "[::1]:*",
    ]  # fmt: skip
    assert host_headers("0.0.0.0", ["box.lan", "other:99"])[6:] == ["box.lan", "box.lan:*", "other:99"]
    assert is_loopback("::1") and is_loopback("localhost") and not is_loopback("192.168.1.2")
