"""The server's end: against a real runner, and against one that lies."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox import wire
from sandbox.channel import MAX_GARBAGE, RunnerChannel
from sandbox.errors import ProtocolError, SandboxError, SandboxGone
from sandbox.local.process import Process
from sandbox.wire import Bash, Frame
from tests.sandbox.support import Hands, runner, with_hands

ROOT = Path(__file__).parents[2]
HELLO = {"t": "hello", "version": wire.VERSION, "incarnation": "abc", "python": "3.8", "ops": {}}


class Liar:
    """A transport whose other end is the test: it answers each frame with what `answer` returns."""

    def __init__(self, answer: Callable[[Frame], list[Frame | bytes]]) -> None:
        self._answer = answer
        self._decoder = wire.Decoder()
        self._out: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self._out.get()

    def write(self, data: bytes) -> bool:
        for frame in self._decoder.feed(data):
            for reply in [Frame(HELLO)] if frame.type == "attach" else self._answer(frame):
                stamped = (
                    reply
                    if isinstance(reply, bytes)
                    else wire.encode(Frame(reply.header, reply.body, reply.epoch or frame.epoch))
                )
                self._out.put_nowait(stamped)
        return True

    async def drain(self) -> None:
        """Never full."""

    async def close(self) -> None:
        self._out.put_nowait(b"")


def against(answer: Callable[[Frame], list[Frame | bytes]], story: Callable[[RunnerChannel], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with asyncio.timeout(30):
            channel = RunnerChannel(Liar(answer))
            await channel.open()
            try:
                return await story(channel)
            finally:
                await channel.close()

    return asyncio.run(run())


async def call(channel: RunnerChannel) -> wire.Result:
    return await channel.call(wire.Call("a", Bash("true")))


def result(**header: Any) -> Frame:
    return Frame({"t": "result", "op": "a", "ok": True, "meta": {}, **header})


def test_live_output_reaches_every_follower_of_an_operation() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("mkfifo go")
        operation = hands.new_call(Bash("echo live; read x <go; echo over"))
        seen: list[bytes] = []
        came = asyncio.Event()

        def broken(_data: bytes) -> None:
            raise RuntimeError("a follower's bug")

        def follow(data: bytes) -> None:
            seen.append(data)
            came.set()

        callers = [asyncio.create_task(hands.channel.call(operation, who)) for who in (broken, follow)]
        await came.wait()
        await hands.bash("echo >go", thread="other")
        first, second = await asyncio.gather(*callers)
        assert first == second and first.body == b"live\nover\n" and seen[0] == b"live\n"

    with_hands(story)


def test_a_caller_that_goes_away_does_not_stop_the_operation() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("mkfifo go")
        operation = hands.new_call(Bash("read x <go; echo done"))
        caller = asyncio.create_task(hands.channel.call(operation))
        await hands.channel.ping()
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        again = asyncio.create_task(hands.channel.call(operation))
        await hands.bash("echo >go", thread="other")
        assert (await again).body == b"done\n"

    with_hands(story)


def test_the_death_of_the_runner_fails_every_pending_call() -> None:
    async def story() -> None:
        async with asyncio.timeout(60), runner() as process, process.attached() as channel:
            calls = [asyncio.create_task(channel.call(wire.Call(str(n), Bash("sleep 9"), str(n)))) for n in range(3)]
            await channel.ping()
            process.kill()
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, SandboxGone)
            with pytest.raises(SandboxGone):
                await call(channel)

    asyncio.run(story())


def test_a_call_too_large_for_a_frame_is_an_error_result() -> None:
    async def story(hands: Hands) -> wire.Result:
        return await hands.bash("#" * (wire.MAX_HEADER + 1))

    answer = with_hands(story)
    assert not answer.ok and b"Too large" in answer.body


def test_a_runner_that_does_not_answer_is_gone() -> None:
    async def story() -> None:
        class Mute(Liar):
            def write(self, data: bytes) -> bool:
                return False

            async def drain(self) -> None:
                await asyncio.Event().wait()

        channel = RunnerChannel(Mute(lambda _frame: []))
        with pytest.raises(SandboxGone, match="did not answer"):
            await channel.open(timeout=0.05)

    asyncio.run(story())


def test_silence_fails_the_channel_and_a_frozen_sandbox_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE_SECONDS", 0.05)

    async def story(channel: RunnerChannel) -> None:
        pending = asyncio.create_task(call(channel))
        channel.unwatch()
        await asyncio.wait([pending], timeout=0.2)
        assert not pending.done() and channel.error is None
        channel.watch()
        with pytest.raises(SandboxGone, match="silent"):
            await pending

    against(lambda _frame: [], story)


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (Frame({"t": "result", "op": 5, "ok": True, "meta": {}}), ProtocolError),
        (Frame({"t": "result", "op": "a", "ok": "yes", "meta": {}}), ProtocolError),
        (Frame({"t": "result", "op": "a", "ok": True, "meta": []}), ProtocolError),
        (Frame({"t": "hello", "version": 1, "incarnation": 5, "ops": {}}), ProtocolError),
        (Frame({**HELLO, "version": [99] * 1000}), ProtocolError),
        (Frame({**HELLO, "incarnation": "another"}), SandboxGone),
        (Frame({"t": "refused", "why": "newer"}, b"", 1 << 63), SandboxGone),
        (b"x" * (MAX_GARBAGE + 1), ProtocolError),
        (b"", SandboxGone),
    ],
)
def test_a_lie_fails_the_channel_with_a_sandbox_error(lie: Frame | bytes, error: type[SandboxError]) -> None:
    async def story(channel: RunnerChannel) -> None:
        with pytest.raises(error):
            await call(channel)

    against(lambda _frame: [lie], story)


@pytest.mark.parametrize(
    "noise",
    [
        Frame({"t": "result", "op": "unknown", "ok": True, "meta": {}}),
        Frame({"t": "result", "op": "a", "ok": False, "meta": {}}, b"", 1),
        Frame({"t": "output", "op": ["a"]}, b"x"),
        Frame({"t": "output"}, b"x"),
        Frame({"t": "pong", "n": {}}),
        Frame({"t": "pong", "n": 77}),
        Frame({"t": 5}),
        Frame({"t": "net.open", "stream": 1}),
        Frame({"t": "refused", "why": ["x"] * 100}),
        b"garbage",
    ],
)
def test_noise_is_passed_over(noise: Frame | bytes) -> None:
    answer: wire.Result = against(lambda _frame: [noise, result(), result()], call)
    assert answer.ok


def test_checksums_made_to_be_computed_in_vain_are_bounded() -> None:
    size = 1 << 16
    head = wire.HEAD.pack(wire.MAGIC, 1, 0, size, 0)
    bomb = (head * (size // len(head) + 1))[:size] * 8

    async def story(channel: RunnerChannel) -> None:
        with pytest.raises(ProtocolError):
            await call(channel)

    against(lambda _frame: [bomb], story)


@pytest.mark.parametrize("waits", [False, True])
def test_network_frames_go_to_their_handler_in_order(waits: bool) -> None:
    seen: list[int] = []
    over = asyncio.Event()

    def plain(frame: Frame) -> None:
        seen.append(frame.header["stream"])
        if len(seen) == 3:
            over.set()

    async def waiting(frame: Frame) -> None:
        await asyncio.sleep(0)
        plain(frame)

    async def story() -> None:
        opens: list[Frame | bytes] = [Frame({"t": "net.open", "stream": n}) for n in range(3)]
        channel = RunnerChannel(Liar(lambda _frame: opens), on_net=waiting if waits else plain)
        await channel.open()
        await channel.send(Frame({"t": "net.ok", "stream": 1}))
        async with asyncio.timeout(10):
            await over.wait()
        await channel.close()

    asyncio.run(story())
    assert seen == [0, 1, 2]


def test_a_writer_that_is_cancelled_leaves_no_half_frame_and_a_dead_one_frees_all_who_wait() -> None:
    class Slow(Liar):
        stuck = asyncio.Event()

        def write(self, data: bytes) -> bool:
            return len(data) <= 1_000_000 and super().write(data)

        async def drain(self) -> None:
            await self.stuck.wait()
            raise OSError("broken")

    async def story() -> None:
        transport = Slow(lambda _frame: [])
        channel = RunnerChannel(transport)
        await channel.open()
        sends = [asyncio.create_task(channel.send(Frame({"t": "x"}, b"x" * 5_000_000))) for _ in range(3)]
        await asyncio.wait(sends, timeout=0.05)
        assert not all(send.done() for send in sends), "more than the bound waits"
        transport.stuck.set()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert isinstance(outcomes[-1], SandboxGone)
        await channel.close()

    asyncio.run(story())


DEAF = """
import os, sys, time
from sandbox import wire
decoder = wire.Decoder()
epoch = next(frame.epoch for frame in decoder.feed(os.read(0, 65536)))
say = lambda header: os.write(1, wire.encode(wire.Frame(header, b"", epoch)))
say({"t": "hello", "version": wire.VERSION, "incarnation": "x", "ops": {}})
os.close(0)
while True:
    time.sleep(0.05)
    say({"t": "beat"})
"""
"""A runner that lives, beats, and reads no more."""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux, as the embedded sandbox does")
def test_a_runner_that_reads_no_more_is_gone_though_it_beats() -> None:
    async def story() -> None:
        command = (sys.executable, "-c", DEAF)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT)
        channel = RunnerChannel(Process(process, os.pidfd_open(process.pid), None))
        async with asyncio.timeout(30):
            await channel.open(timeout=20)
            with pytest.raises(SandboxGone):
                for _ in range(1_000):
                    await channel.send(Frame({"t": "cancel", "op": "a"}))
                    await asyncio.sleep(0.01)
            await channel.close()

    asyncio.run(story())
