"""Let what a session does be ended when somebody asks for it, and nothing but that.

Above: `loop`. Below: `News`, which tells that somebody has written. Nothing runs beside the block until something has
come: a round of tools has four such blocks, and a task for each would cost it more than the block's own work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from server.sessions.record import News


class UntilInterrupted:
    """An async context manager: its block is cancelled, and only the block, once what came asks for it.

    asked   whether what came is an interrupt; called whenever something has come
    ease    called then with a future that is done when the block has ended by itself: what can end well is let end
    Whatever these two raise ends the block too, and is raised from it. The block must not leave its task marked as
    being cancelled, as a TaskGroup that fails does before Python 3.13.
    """

    def __init__(
        self,
        news: News,
        asked: Callable[[], Awaitable[bool]],
        ease: Callable[[asyncio.Future[None]], Awaitable[None]],
    ) -> None:
        self._news, self._asked, self._ease = news, asked, ease
        self._looking: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._stopped = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listen()

    def _listen(self) -> None:
        self._told = self._news.told()
        self._told.add_done_callback(self._look)

    def _look(self, _told: asyncio.Future[None]) -> None:
        if not self._over.done():  # else this was on its way when the block ended
            self._looking = asyncio.create_task(self._end_if_asked())

    async def _end_if_asked(self) -> None:
        try:
            if not await self._asked():
                self._listen()
                return
            await self._ease(self._over)
        except Exception as error:
            self._error = error
        if not self._over.done() and self._task.cancelling() <= self._cancelling:  # else it is on its way out already
            self._stopped = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._over.set_result(None)
        self._told.remove_done_callback(self._look)
        if self._looking is not None and not self._looking.done():
            self._looking.cancel()
            await asyncio.wait({self._looking})
        ours = self._stopped and self._task.uncancel() <= self._cancelling
        if kind is not None and not (ours and issubclass(kind, asyncio.CancelledError)):
            return False
        if self._error is not None:
            raise self._error
        return True
