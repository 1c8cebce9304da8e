"""How the packing of a sandbox's files is waited for, on either backend."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.errors import SandboxUnavailable
from sandbox.packing import within


def test_a_packing_that_is_called_off_just_as_a_portion_comes_ends() -> None:
    async def story() -> None:
        portion = asyncio.get_running_loop().create_future()

        async def pack() -> None:
            await within(60.0, portion)

        packs = asyncio.create_task(pack())
        await asyncio.sleep(0)
        portion.set_result(b"x")
        packs.cancel()
        await asyncio.wait({packs})
        assert packs.cancelled()

    asyncio.run(story())


def test_a_packing_that_stands_still_is_given_up() -> None:
    async def story() -> None:
        with pytest.raises(SandboxUnavailable, match="no progress"):
            await within(0.01, asyncio.Event().wait())

    asyncio.run(story())
