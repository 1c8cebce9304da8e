"""The decoder of server-sent events: whatever the portions are cut to, the same events come out."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from server.providers.sse import Decoder

STREAM = (
    b': a comment\n\nevent: message_start\ndata: {"type": "message_start"}\n\n'
    b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n'
    b'id: 7\nretry: 10\nevent: x\ndata: {"type":\ndata:"\xc3\xa9\xe2\x82\xac"}\n\n\n'
    b'data:{"type": "last"}\n\n'
)
EVENTS = [{"type": "message_start"}, {"type": "ping"}, {"type": "é€"}, {"type": "last"}]


@given(st.sets(st.integers(1, len(STREAM) - 1)))
def test_events_do_not_depend_on_where_the_stream_is_cut(cuts: set[int]) -> None:
    decoder, found = Decoder(), []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        found += decoder.feed(STREAM[start:end])
    assert found == EVENTS


def test_an_event_that_was_cut_off_is_not_given() -> None:
    assert Decoder().feed(b'data: {"type": "a"}\n\ndata: {"type": "b"}\n') == [{"type": "a"}]


def test_each_event_comes_with_the_portion_that_ends_it() -> None:
    decoder = Decoder()
    assert decoder.feed(b'data: {"n": 1}\n') == []
    assert decoder.feed(b"\n") == [{"n": 1}]
