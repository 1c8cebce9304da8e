"""A place that is lent to others, and what becomes of it when its owner is called off."""

from __future__ import annotations

import asyncio

from server.sessions.line import Line


def test_a_lent_place_is_taken_by_another_and_waited_for_again() -> None:
    async def story() -> None:
        line, over = Line(1), asyncio.Event()
        assert line.take_at_once()

        async def wait_aside() -> None:
            async with line.aside("a"):
                await over.wait()

        owner = asyncio.create_task(wait_aside())
        await asyncio.sleep(0)
        assert line.take_at_once(), "it is lent"
        over.set()
        await asyncio.sleep(0.01)
        assert not owner.done() and line.before("a") == 0
        line.leave()
        await owner
        assert line.full

    asyncio.run(story())


def test_who_is_called_off_has_a_place_at_once_and_one_too_many_is_not_handed_on() -> None:
    async def story() -> None:
        line = Line(1)
        assert line.take_at_once()

        async def wait_aside() -> None:
            async with line.aside("a"):
                await asyncio.Event().wait()

        owner = asyncio.create_task(wait_aside())
        await asyncio.sleep(0)
        assert line.take_at_once()
        next_one = line.join("b")
        owner.cancel()
        await asyncio.wait({owner})
        line.leave()  # the owner, when it has done what it was called off for
        assert not next_one.done(), "somebody has the one place"
        line.leave()
        assert next_one.done()

    asyncio.run(story())


def test_who_is_called_off_in_line_gives_nothing_away() -> None:
    async def story() -> None:
        line = Line(1)
        assert line.take_at_once()

        async def wait_aside() -> None:
            async with line.aside("a"):
                assert line.take_at_once()

        owner = asyncio.create_task(wait_aside())
        await asyncio.sleep(0.01)
        assert line.before("a") == 0
        owner.cancel()
        await asyncio.wait({owner})
        assert line.before("a") is None
        line.leave()
        line.leave()
        assert line.take_at_once() and line.full

    asyncio.run(story())
