"""At most once: the journal alone, and through a real runner with owners that come and go."""

from __future__ import annotations

import asyncio

import pytest

from sandbox import wire
from sandbox.errors import SandboxGone
from sandbox.runner.journal import Journal
from sandbox.wire import Bash, Result
from tests.sandbox.support import Hands, runner, with_hands


def test_a_result_is_kept_until_it_is_settled() -> None:
    journal = Journal()
    journal.begin("a")
    journal.begin("b")
    journal.finish(Result("a", True, b"done"))
    assert journal.states() == {"a": "done", "b": "running"}
    journal.settle(["a", "b", "unknown", 7])
    assert journal.states() == {"b": "running"}, "a running operation stays known"


def test_a_full_journal_says_why_and_settling_makes_room() -> None:
    journal = Journal(max_ops=2, max_bytes=10)
    journal.begin("a")
    journal.finish(Result("a", True, b"0123456789"))
    assert "10 bytes" in journal.full()
    journal.settle(["a"])
    assert journal.full() == ""
    journal.begin("b")
    journal.begin("c")
    assert "2 operations" in journal.full()


def test_the_same_operation_sent_again_returns_the_kept_result_and_runs_once() -> None:
    async def story(hands: Hands) -> None:
        call = hands.new_call(Bash("echo ran >>log; cat log"))
        first = await hands.channel.call(call)
        again = await hands.channel.call(call)
        assert first.body == again.body == b"ran\n"
        assert (await hands.bash("cat log")).body == b"ran\n"

    with_hands(story)


def test_a_new_owner_finds_running_and_finished_operations() -> None:
    async def story() -> None:
        async with asyncio.timeout(60), runner() as process:
            async with process.attached() as channel:
                hands = Hands(channel, process.workspace)
                await hands.bash("mkfifo go")
                done = wire.Call("done", Bash("echo once >>log; echo finished"), "other")
                await channel.call(done)
                running = wire.Call("running", Bash("echo once >>log; read x <go; echo came"))
                lost = asyncio.create_task(channel.call(running))
                await channel.call(wire.Call("wait", Bash("until [ $(wc -l <log) = 2 ]; do :; done"), "other"))
            with pytest.raises(SandboxGone):
                await lost
            incarnation = channel.incarnation
            async with process.attached() as channel:
                assert channel.incarnation == incarnation
                assert channel.ops["done"] == "done" and channel.ops["running"] == "running"
                assert (await channel.call(done)).body == b"finished\n"
                again = asyncio.create_task(channel.call(running))
                await channel.call(wire.Call("go", Bash("echo >go; cat log"), "other"))
                assert (await again).body == b"came\n"
                assert (await channel.call(wire.Call("log", Bash("cat log")))).body == b"once\nonce\n"

    asyncio.run(story())


def test_a_settled_operation_is_forgotten() -> None:
    async def story() -> dict[str, str]:
        async with asyncio.timeout(60), runner() as process:
            async with process.attached() as channel:
                await channel.call(wire.Call("a", Bash("true")))
                await channel.call(wire.Call("b", Bash("true")))
                await channel.settle(["a"])
                await channel.ping()
            async with process.attached() as channel:
                return channel.ops

    assert asyncio.run(story()) == {"b": "done"}


def test_a_lower_epoch_is_refused() -> None:
    async def story() -> None:
        async with asyncio.timeout(60), runner() as process:
            async with process.attached() as old:
                pass
            async with process.attached() as new:
                transport = process.transport()
                stale = wire.Call("stale", Bash("touch stolen")).frame()
                transport.write(wire.encode(wire.Frame(stale.header, stale.body, old.epoch)))
                await new.ping()
                assert (await new.call(wire.Call("look", Bash("ls")))).body == b""

    asyncio.run(story())


@pytest.mark.parametrize("cut", [2, 10, 24, 60, -1])
def test_half_a_frame_of_a_dead_owner_does_not_hide_the_next_owners_attach(cut: int) -> None:
    async def story() -> None:
        async with asyncio.timeout(60), runner() as process:
            async with process.attached():
                pass
            whole = wire.encode(wire.Frame({"t": "start", "op": "half"}, b"x" * 5_000_000, 1))
            transport = process.transport()
            transport.write(whole[:cut] if cut > 0 else whole[:1_000_000])
            await transport.drain()
            async with process.attached() as channel:
                assert (await channel.call(wire.Call("a", Bash("echo here")))).body == b"here\n"

    asyncio.run(story())


def test_garbage_on_stdin_is_skipped() -> None:
    async def story() -> None:
        async with asyncio.timeout(60), runner() as process:
            process.transport().write(b"SKFSKF1 no frame\x00" * 1000)
            async with process.attached() as channel:
                assert (await channel.call(wire.Call("a", Bash("echo here")))).body == b"here\n"

    asyncio.run(story())


def test_unknown_and_malformed_frames_are_answered_not_obeyed() -> None:
    async def story(hands: Hands) -> None:
        for header in ({"t": "nonsense"}, {"t": "start"}, {"t": "cancel"}, {"t": "settle", "ops": 5}, {"t": 7}):
            await hands.channel.send(wire.Frame(header))
        await hands.channel.ping()
        wrong = wire.Frame({"t": "start", "op": "w", "kind": "bash", "args": {"nope": 1}})
        result = asyncio.create_task(hands.channel.call(wire.Call("w", Bash("true"))))
        await hands.channel.send(wrong)
        assert (await result).op_id == "w"

    with_hands(story)
