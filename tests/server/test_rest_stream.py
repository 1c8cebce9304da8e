"""The answer that streams, without a socket: what it sends, and that it lets go of what it follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from starlette.types import Message

from server.doors.rest import stream
from server.doors.rest.stream import EventStream, encoded
from server.errors import StoreError, Unauthenticated
from server.sessions.live import Frame

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "headers": []}
PATIENCE = 20.0
FRAME = Frame({"type": "agent.message", "id": "sevt_1"}, 7)


class Client:
    """Somebody at the other end: what has arrived, and when it leaves."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.news = asyncio.Event()
        self.left = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.got.append(message)
        self.news.set()

    async def has(self, count: int) -> list[Message]:
        """What arrived, once it is so many messages."""
        while len(self.got) < count:
            self.news.clear()
            await self.news.wait()
        return self.got

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got)


class Source:
    """Frames on demand; it knows when nobody wants them any more."""

    def __init__(self, *frames: Frame, end: Exception | None = None, ends: bool = True) -> None:
        self.closed = asyncio.Event()
        self._frames, self._end, self._ends = frames, end, ends

    async def frames(self) -> AsyncGenerator[Frame]:
        try:
            for frame in self._frames:
                yield frame
            if self._end is not None:
                raise self._end
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


async def good() -> None:
    """The client's key is."""


def play(
    source: Source,
    story: Callable[[Client], Awaitable[None]],
    stall: float = PATIENCE,
    known: Callable[[], Awaitable[object]] = good,
) -> Client:
    """Serve the source to a client, whose story is told beside; it must be let go of at the end."""

    async def run() -> Client:
        client = Client()
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(EventStream(source.frames(), stall, known)(dict(SCOPE), client.receive, client.send))
            await story(client)
        return client

    client = asyncio.run(run())
    assert source.closed.is_set()
    return client


async def nothing(_: Client) -> None:
    """Just listen."""


def test_a_frame_has_its_name_its_place_and_one_line_of_data() -> None:
    text = Frame({"type": "agent.message", "text": "a\n\nb\u2028"}, 7)
    head, name, data = encoded(text).decode().split("\n", 2)
    assert (head, name) == ("event: agent.message", "id: 7")
    assert data.count("\n") == 2
    assert encoded(Frame({"type": "event_delta"})) == b'event: event_delta\ndata: {"type":"event_delta"}\n\n'


def test_the_head_goes_out_before_there_is_anything_to_tell() -> None:
    async def story(client: Client) -> None:
        (head,) = await client.has(1)
        named: Mapping[bytes, bytes] = dict(head["headers"])
        assert (head["type"], head["status"]) == ("http.response.start", 200)
        assert named[b"content-type"].startswith(b"text/event-stream")
        assert b"content-length" not in named
        client.left.set()

    play(Source(ends=False), story)


def test_where_nothing_comes_pings_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_SECONDS", 0.01)

    async def story(client: Client) -> None:
        await client.has(4)
        client.left.set()

    assert play(Source(ends=False), story).body.startswith(stream.PING * 3)


def test_who_has_left_is_followed_no_more() -> None:
    async def story(client: Client) -> None:
        await client.has(2)
        client.left.set()

    assert play(Source(FRAME, ends=False), story).body == encoded(FRAME)


def test_the_answer_ends_with_its_source() -> None:
    client = play(Source(FRAME), nothing)
    assert client.body == encoded(FRAME)
    assert [message.get("more_body") for message in client.got] == [None, True, False]


def test_who_takes_nothing_is_let_go_and_told_so_once_it_reads_again() -> None:
    source = Source(FRAME, FRAME, ends=False)

    async def story(client: Client) -> None:
        await client.has(1)
        client.reads.clear()
        await source.closed.wait()
        client.reads.set()

    client = play(source, story, stall=0.05)
    assert b"event: error\ndata: " in client.body
    assert b"nothing was read for 0.05 s" in client.body
    assert client.got[-1]["more_body"] is False


def test_an_error_of_ours_ends_the_stream_with_the_bare_fact(caplog: pytest.LogCaptureFixture) -> None:
    client = play(Source(FRAME, end=StoreError("the disk is full")), nothing)
    assert client.body.startswith(encoded(FRAME))
    assert b"event: error\n" in client.body
    assert b"disk" not in client.body
    assert "the disk is full" in caplog.text
    assert client.got[-1]["more_body"] is False


def test_a_stream_ends_when_its_key_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_SECONDS", 0.01)
    asked = iter([None, Unauthenticated("Authentication failed")])

    async def known() -> None:
        if (error := next(asked)) is not None:
            raise error

    async def ended(client: Client) -> None:
        while not client.got or client.got[-1].get("more_body", True):
            await client.has(len(client.got) + 1)

    client = play(Source(FRAME, ends=False), ended, known=known)
    assert b"event: ping" in client.body
    assert client.body.rpartition(b"event: error")[2].count(b"authentication_error") == 1
