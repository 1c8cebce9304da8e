"""The streams' outer end against a hostile runner: rules broken cost one stream, never the sandbox or host."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sandbox.egress.mux import MAX_BUFFERED, MuxStream, NetMux
from sandbox.wire import NET_PORTION, NET_STREAMS, NET_WINDOW, Frame


class Peer:
    """Plays the runner: frames that the mux sends are kept, `say` hands it one."""

    def __init__(self, serve: Callable[[MuxStream], Awaitable[None]]) -> None:
        self.sent: asyncio.Queue[Frame] = asyncio.Queue()
        self.mux = NetMux(self.sent.put, serve)

    def say(self, kind: str, stream: object, body: bytes = b"", **header: object) -> None:
        self.mux.handle(Frame({"t": kind, "stream": stream, **header}, body))

    async def hear(self, kind: str) -> Frame:
        """The next frame, which must be of this kind."""
        frame = await self.sent.get()
        assert frame.type == kind, frame
        return frame


async def hold(stream: MuxStream) -> None:
    """Serve by never reading."""
    await asyncio.Event().wait()


async def echo(stream: MuxStream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def flood(stream: MuxStream) -> None:
    await stream.write(bytes(4 * NET_WINDOW))


def play(serve: Callable[[MuxStream], Awaitable[None]], story: Callable[[Peer], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            peer = Peer(serve)
            try:
                await story(peer)
            finally:
                await peer.mux.close()
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_stream_ends_when_both_sides_have() -> None:
    async def story(peer: Peer) -> None:
        peer.say("net.open", 1)
        peer.say("net.data", 1, b"hello")
        assert (await peer.hear("net.data")).body == b"hello"
        peer.say("net.end", 1)
        await peer.hear("net.end")
        peer.say("net.data", 1, b"late")
        assert peer.sent.empty()

    play(echo, story)


BREACHES: list[tuple[str, dict[str, object], bytes]] = [
    ("net.data", {}, bytes(NET_WINDOW + 1)),
    ("net.open", {}, b""),
    ("net.window", {"bytes": 1}, b""),
    ("net.window", {"bytes": -1}, b""),
    ("net.window", {"bytes": True}, b""),
    ("net.window", {"bytes": "x"}, b""),
    ("net.window", {}, b""),
]


@pytest.mark.parametrize(("kind", "header", "body"), BREACHES)
def test_a_breach_resets_its_stream_and_no_other(kind: str, header: dict[str, object], body: bytes) -> None:
    async def story(peer: Peer) -> None:
        peer.say("net.open", 1)
        peer.say("net.open", 2)
        peer.say(kind, 1, body, **header)
        assert (await peer.hear("net.reset")).header["stream"] == 1
        peer.say("net.data", 2, bytes(NET_WINDOW))
        peer.say("net.data", 2, b"x")
        assert (await peer.hear("net.reset")).header["stream"] == 2

    play(hold, story)


@pytest.mark.parametrize("number", [None, "1", 0, -1, True, 1.0, [], {}, 1 << 60])
def test_a_bad_stream_number_is_ignored(number: object) -> None:
    async def story(peer: Peer) -> None:
        for kind in ("net.open", "net.data", "net.end", "net.reset", "net.window", "net.what"):
            peer.say(kind, number)
        await asyncio.sleep(0)
        assert peer.sent.empty()

    play(hold, story)


def test_data_after_the_end_resets() -> None:
    async def story(peer: Peer) -> None:
        peer.say("net.open", 1)
        peer.say("net.end", 1)
        peer.say("net.data", 1, b"x")
        await peer.hear("net.reset")

    play(hold, story)


def test_a_connection_too_many_is_reset() -> None:
    async def story(peer: Peer) -> None:
        for number in range(1, NET_STREAMS + 2):
            peer.say("net.open", number)
        assert (await peer.hear("net.reset")).header["stream"] == NET_STREAMS + 1

    play(hold, story)


def test_unread_data_of_all_streams_together_is_bounded() -> None:
    async def story(peer: Peer) -> None:
        fitting = MAX_BUFFERED // NET_WINDOW
        for number in range(1, fitting + 2):
            peer.say("net.open", number)
            peer.say("net.data", number, bytes(NET_WINDOW))
        assert (await peer.hear("net.reset")).header["stream"] == fitting + 1
        peer.say("net.reset", 1)
        await asyncio.sleep(0)
        peer.say("net.open", 1000)
        peer.say("net.data", 1000, bytes(NET_WINDOW))
        assert peer.sent.empty()

    play(hold, story)


def test_data_of_streams_that_were_reset_at_once_is_forgotten() -> None:
    async def story(peer: Peer) -> None:
        for number in range(1, 2 * MAX_BUFFERED // NET_WINDOW):
            peer.say("net.open", number)
            peer.say("net.data", number, bytes(NET_WINDOW))
            peer.say("net.reset", number)
            for _ in range(3):
                await asyncio.sleep(0)
        assert peer.sent.empty()

    play(hold, story)


def test_a_writer_waits_for_credit() -> None:
    async def story(peer: Peer) -> None:
        peer.say("net.open", 1)
        for _ in range(NET_WINDOW // NET_PORTION):
            await peer.hear("net.data")
        assert peer.sent.empty()
        peer.say("net.window", 1, bytes=100)
        assert len((await peer.hear("net.data")).body) == 100

    play(flood, story)


def test_a_reset_from_inside_cancels_the_service_and_says_nothing() -> None:
    stopped = asyncio.Event()

    async def serve(stream: MuxStream) -> None:
        try:
            await hold(stream)
        finally:
            stopped.set()

    async def story(peer: Peer) -> None:
        peer.say("net.open", 1)
        await asyncio.sleep(0)
        peer.say("net.reset", 1)
        await stopped.wait()
        assert peer.sent.empty()

    play(serve, story)


def test_a_broken_service_resets_its_stream() -> None:
    async def serve(stream: MuxStream) -> None:
        raise ConnectionResetError("upstream broke")

    async def story(peer: Peer) -> None:
        peer.say("net.open", 1)
        assert (await peer.hear("net.reset")).header["why"] == "upstream broke"

    play(serve, story)
