"""Ending a block from outside: it and nothing else, whenever the wish comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.sessions.hands import side_by_side
from server.sessions.interrupting import UntilInterrupted
from server.sessions.record import News

PATIENCE = 10


def play(story: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await story()

    return asyncio.run(bounded())


async def nothing(_over: asyncio.Future[None]) -> None:
    """Ends at once."""


class Wish:
    """What is looked at: whether somebody wants the block to end, and how often it was asked."""

    def __init__(self, news: News) -> None:
        self.news, self.wanted, self.asked = news, False, 0

    async def __call__(self) -> bool:
        self.news.clear()
        self.asked += 1
        await asyncio.sleep(0)
        return self.wanted


def test_a_block_that_nobody_interrupts_gives_what_it_gives_and_nothing_runs_beside_it() -> None:
    async def story() -> None:
        news = News()
        wish = Wish(news)
        async with UntilInterrupted(news, wish, nothing):
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 1
        with pytest.raises(ValueError, match="its own"):
            async with UntilInterrupted(news, wish, nothing):
                raise ValueError("its own")
        assert wish.asked == 0

    play(story)


def test_news_that_ask_for_nothing_are_looked_at_each_time() -> None:
    async def story() -> None:
        news = News()
        wish = Wish(news)
        async with UntilInterrupted(news, wish, nothing):
            for number in (1, 2, 3):
                news.set()
                await asyncio.sleep(0.001)
                assert wish.asked == number

    play(story)


@pytest.mark.parametrize("before", [True, False])
def test_an_interrupt_ends_the_block_and_the_task_goes_on(before: bool) -> None:
    async def story() -> None:
        news = News()
        wish = Wish(news)
        wish.wanted, ended = True, []
        if before:
            news.set()
        else:
            asyncio.get_running_loop().call_later(0.001, news.set)
        async with UntilInterrupted(news, wish, nothing):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)
        assert ended
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()
        await asyncio.sleep(0)  # a cancellation that was left over would come here

    play(story)


def test_what_ends_by_itself_while_it_is_eased_is_not_cancelled() -> None:
    async def story() -> str:
        news, softly = News(), asyncio.Event()
        wish = Wish(news)
        wish.wanted, result = True, ""

        async def ease(over: asyncio.Future[None]) -> None:
            softly.set()
            await asyncio.wait({over}, timeout=PATIENCE)

        news.set()
        async with UntilInterrupted(news, wish, ease):
            await softly.wait()
            await asyncio.sleep(0.001)
            result = "its own end"
        await asyncio.sleep(0.001)
        return result

    assert play(story) == "its own end"


def test_news_that_come_with_the_end_of_the_block_touch_nothing_after_it() -> None:
    async def story() -> None:
        news = News()
        wish = Wish(news)
        wish.wanted = True
        async with UntilInterrupted(news, wish, nothing):
            news.set()  # its callback is on its way when the block ends
        for _ in range(10):
            await asyncio.sleep(0)
        assert wish.asked == 0

    play(story)


def test_a_cancellation_from_outside_is_passed_on_even_beside_an_interrupt() -> None:
    async def story() -> None:
        for wanted in (False, True):
            news = News()
            wish = Wish(news)
            wish.wanted = wanted

            async def block(news: News = news, wish: Wish = wish) -> None:
                async with UntilInterrupted(news, wish, nothing):
                    await asyncio.Event().wait()

            task = asyncio.create_task(block())
            await asyncio.sleep(0)
            news.set()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    play(story)


def test_what_looking_raises_ends_the_block_and_is_raised() -> None:
    async def story() -> None:
        news = News()

        async def broken() -> bool:
            raise OSError("the log cannot be read")

        news.set()
        with pytest.raises(OSError, match="cannot be read"):
            async with UntilInterrupted(news, broken, nothing):
                await asyncio.Event().wait()

    play(story)


def test_a_round_whose_calls_fail_together_can_still_be_interrupted() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise OSError("the sandbox is gone")

    async def lasts() -> None:
        await asyncio.Event().wait()

    async def story() -> None:
        news = News()
        wish = Wish(news)
        wish.wanted = True
        async with UntilInterrupted(news, wish, nothing):
            with pytest.raises(OSError, match="gone"):
                await side_by_side([lasts(), fails(), lasts()])
            asyncio.get_running_loop().call_later(0.001, news.set)
            await lasts()  # as a sandbox that is waited for
        assert len(asyncio.all_tasks()) == 1

    play(story)


def test_calls_side_by_side_all_end_and_a_cancelled_round_ends_them() -> None:
    async def story() -> None:
        done: list[int] = []

        async def act(number: int, seconds: float) -> None:
            try:
                await asyncio.sleep(seconds)
            finally:
                done.append(number)

        await side_by_side([act(1, 0.002), act(2, 0.001)])
        assert sorted(done) == [1, 2]
        round_of_calls = asyncio.create_task(side_by_side([act(3, 60), act(4, 60)]))
        await asyncio.sleep(0.001)
        round_of_calls.cancel()
        with pytest.raises(asyncio.CancelledError):
            await round_of_calls
        assert sorted(done) == [1, 2, 3, 4]

    play(story)


def test_what_is_on_its_way_out_already_is_left_to_clean_up() -> None:
    async def story() -> None:
        news, steps, looked = News(), list[str](), asyncio.Event()

        async def asked() -> bool:
            await looked.wait()
            return True

        async def block() -> None:
            async with UntilInterrupted(news, asked, nothing):
                try:
                    await asyncio.Event().wait()
                finally:
                    looked.set()
                    await asyncio.sleep(0.002)
                    steps.append("cleaned up")

        news.set()
        task = asyncio.create_task(block())
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["cleaned up"]

    play(story)
