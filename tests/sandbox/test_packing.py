"""How the packing of a sandbox's files is waited for, on either backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sandbox.docker import packing
from sandbox.errors import SandboxUnavailable
from sandbox.local import workspace

Within = Callable[[float, Awaitable[Any]], Awaitable[Any]]
both = pytest.mark.parametrize("within", [packing._within, workspace._within], ids=["docker", "local"])


@both
def test_a_packing_that_is_called_off_just_as_a_portion_comes_ends(within: Within) -> None:
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


@both
def test_a_packing_that_stands_still_is_given_up(within: Within) -> None:
    async def story() -> None:
        with pytest.raises(SandboxUnavailable, match="no progress"):
            await within(0.01, asyncio.Event().wait())

    asyncio.run(story())
