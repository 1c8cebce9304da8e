"""File operations beside the shell, through a real runner: parallel, bounded, stoppable."""

from __future__ import annotations

import asyncio

import pytest

from sandbox import wire
from sandbox.runner.jobs import KEEP_CALLS
from sandbox.wire import Fetch, Put, Read, Write
from tests.sandbox.support import ISOLATED, Hands, with_hands


def test_a_file_is_written_read_and_seen_by_the_shell() -> None:
    async def story(hands: Hands) -> None:
        written = await hands.do(Write("a.txt"), body=b"one\ntwo\n")
        assert written.ok, written.body
        assert b"two" in (await hands.do(Read("a.txt"))).body
        assert (await hands.bash("cat a.txt")).body == b"one\ntwo\n"

    with_hands(story)


def test_file_operations_do_not_wait_for_a_running_command() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("mkfifo go")
        running = asyncio.create_task(hands.bash("read x <go; cat a.txt"))
        results = await asyncio.gather(*(hands.do(Write(f"{n}.txt"), body=b"x") for n in range(40)))
        assert all(result.ok for result in results)
        await hands.do(Write("a.txt"), body=b"written meanwhile")
        await hands.bash("echo >go", thread="other")
        assert (await running).body == b"written meanwhile"

    with_hands(story)


def test_an_operation_that_hangs_blocks_nobody_and_can_be_cancelled() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("mkdir d; printf 'a%.0s' {1..60} >d/a.txt; echo ! >>d/a.txt")
        call = hands.new_call(wire.Grep(r"^(a|a)*(aa|a)*$", "d"))
        search = asyncio.create_task(hands.channel.call(call))
        assert (await hands.bash("echo free")).body == b"free\n"
        await hands.channel.cancel(call.op_id)
        assert (await search).op_id == call.op_id
        await hands.channel.ping()

    with_hands(story)


def test_a_failing_operation_is_an_error_result() -> None:
    async def story(hands: Hands) -> wire.Result:
        return await hands.do(Read("missing.txt"))

    result = with_hands(story)
    assert not result.ok and result.body


def test_files_are_written_and_read_one_after_another_for_as_long_as_one_likes() -> None:
    async def story(hands: Hands) -> None:
        for number in range(2 * KEEP_CALLS + 10):
            assert (await hands.do(Write("a.txt"), body=b"%d" % number)).ok
            assert b"%d" % number in (await hands.do(Read("a.txt"))).body

    with_hands(story)


def test_a_large_file_between_small_ones_is_placed_whole() -> None:
    async def story(hands: Hands) -> None:
        assert (await hands.do(Write("small"), body=b"x")).ok
        assert (await hands.do(Put("large"), body=b"abcd" * 1_000_000)).ok
        assert (await hands.do(Fetch("large", 0, 4_000_000))).body == b"abcd" * 1_000_000
        assert b"x" in (await hands.do(Read("small"))).body

    with_hands(story)


def test_an_operation_after_a_cancelled_one_has_a_child_of_its_own() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("mkdir d; printf 'a%.0s' {1..60} >d/a.txt; echo ! >>d/a.txt")
        assert (await hands.do(Read("d/a.txt"))).ok
        call = hands.new_call(wire.Grep(r"^(a|a)*(aa|a)*$", "d"))
        search = asyncio.create_task(hands.channel.call(call))
        await hands.channel.ping()
        await hands.channel.cancel(call.op_id)
        assert (await search).meta.get("cancelled")
        assert (await hands.do(Read("d/a.txt"))).ok

    with_hands(story)


@pytest.mark.skipif(not ISOLATED, reason="signals to every process need a namespace of their own")
@pytest.mark.parametrize("number", ["KILL", "STOP", "TERM"])
def test_a_waiting_child_that_the_agent_signals_costs_the_next_operation_nothing(number: str) -> None:
    async def story(hands: Hands) -> None:
        assert (await hands.do(Write("a.txt"), body=b"kept")).ok
        await hands.bash(f"kill -{number} -1")
        assert b"kept" in (await hands.do(Read("a.txt"))).body

    with_hands(story)


@pytest.mark.skipif(not ISOLATED, reason="the runner's processes are told apart in a namespace of their own")
def test_a_waiting_child_cannot_be_looked_into() -> None:
    async def story(hands: Hands) -> None:
        assert (await hands.do(Write("a.txt"), body=b"x")).ok
        look = "for p in $(pgrep -f -- --workspace); do ls /proc/$p/fd/ >/dev/null 2>&1 && echo open; echo seen; done"
        seen = (await hands.bash(look)).body.split()
        assert seen.count(b"seen") >= 3 and b"open" not in seen

    with_hands(story)
