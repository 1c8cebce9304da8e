"""What both backends do around the process that packs or unpacks a sandbox's files: feed it, bound its silences, say
what became of it.

Above: `docker/packing`, `local/workspace`. Below: a `channel.Transport`, and `wire`, which knows how portions are
framed. The process itself is `runner/packing`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from sandbox.channel import Transport
from sandbox.errors import SandboxUnavailable
from sandbox.wire import PORTION

SILENCE_SECONDS = 120.0
"""Without a portion in or out. A gigabyte of holes and a hundred thousand empty files each pass in a second."""

T = TypeVar("T")


async def feed(process: Transport, portions: AsyncIterator[bytes]) -> None:
    """Give it every portion, and the end. One that has gone is told by its exit code. Raises SandboxUnavailable."""
    with contextlib.suppress(ConnectionError):
        async for portion in portions:
            process.write(PORTION.pack(len(portion)) + portion)
            await within(SILENCE_SECONDS, process.drain())
        process.write(PORTION.pack(0))
        await within(SILENCE_SECONDS, process.drain())


async def within(seconds: float, step: Awaitable[T]) -> T:
    """What the step gives. Raises SandboxUnavailable when it takes longer."""
    try:
        async with asyncio.timeout(seconds):  # not `wait_for`: whoever calls it off must be heard (Python 3.11)
            return await step
    except TimeoutError:
        raise SandboxUnavailable(f"packing or unpacking the files made no progress for {seconds:.0f} s") from None


def failed(why: str) -> SandboxUnavailable:
    """It has ended, and not well."""
    return SandboxUnavailable(f"the files could not be packed or unpacked: {why}")
