"""File operations beside the shell, through a real runner: parallel, bounded, stoppable."""

from __future__ import annotations

import asyncio

from sandbox import wire
from sandbox.wire import Read, Write
from tests.sandbox.support import Hands, with_hands


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
