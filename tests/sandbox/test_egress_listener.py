"""The inside end alone: when owners change, when there are too many connections, when it is told to reset."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Iterator

import pytest

from sandbox.runner.net import PROXY_ENV, PROXY_PORT, NetListener
from sandbox.wire import NET_STREAMS, Frame


class Loop:
    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.selector = selectors.DefaultSelector()
        self.listener = NetListener(self.selector, self.sent.append, port=0)

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.listener.port), 5)
        self.turn()
        return client

    def turn(self) -> None:
        """Handle what has happened by now, waiting for the first of it."""
        for key, mask in self.selector.select(5):
            key.data(mask)

    def say(self, kind: str, stream: int, body: bytes = b"") -> None:
        self.listener.handle(Frame({"t": kind, "stream": stream}, body))

    def kinds(self) -> list[str]:
        return [frame.type for frame in self.sent]


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    loop.listener.start()
    yield loop
    loop.listener.close()
    assert not loop.selector.get_map()
    loop.selector.close()


def test_a_new_owner_means_reset_connections_and_new_numbers(loop: Loop) -> None:
    with loop.connect() as client:
        loop.listener.reset_all()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with loop.connect():
        opened = [frame.header["stream"] for frame in loop.sent if frame.type == "net.open"]
        assert opened == [1, 2]
        loop.say("net.data", 1, b"for a stream of the old owner")
        assert loop.kinds() == ["net.open", "net.open"]


def test_a_reset_after_the_end_still_delivers_what_was_sent(loop: Loop) -> None:
    with loop.connect() as client:
        loop.say("net.data", 1, b"answer")
        loop.say("net.end", 1)
        loop.say("net.reset", 1)
        assert client.recv(100) == b"answer" and client.recv(100) == b""


def test_a_reset_before_the_end_is_seen_as_one(loop: Loop) -> None:
    with loop.connect() as client:
        loop.say("net.data", 1, b"half")
        loop.say("net.reset", 1)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
            client.recv(100)


def test_connections_beyond_the_bound_are_closed_at_once(loop: Loop) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(NET_STREAMS):
            clients.enter_context(loop.connect())
        surplus = clients.enter_context(loop.connect())
        assert surplus.recv(1) == b""
    assert loop.kinds().count("net.open") == NET_STREAMS


def test_an_upload_stops_at_its_share_until_credit_comes(loop: Loop) -> None:
    with loop.connect() as client:
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(bytes(1 << 16))
        while len(loop.selector.select(0)) > 0:
            loop.turn()
        sent = sum(len(frame.body) for frame in loop.sent)
        loop.listener.handle(Frame({"t": "net.window", "stream": 1, "bytes": 1000}))
        loop.turn()
        assert sum(len(frame.body) for frame in loop.sent) == sent + 1000


def test_commands_are_told_where_the_proxy_is() -> None:
    assert PROXY_ENV["https_proxy"] == PROXY_ENV["HTTP_PROXY"] == f"http://127.0.0.1:{PROXY_PORT}"
    assert "127.0.0.1" in PROXY_ENV["no_proxy"]
