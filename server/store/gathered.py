"""A small write that waits to be made together with those of others.

Above: `store.sqlite`, which makes them. Below: nothing. It knows nothing of transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from server.store.database import Cursor

T = TypeVar("T")

MOST_TOGETHER = 16
"""Of one commit: their statements take a fifth of a millisecond each, and everybody waits for them."""


class Gathered(Generic[T]):
    """The work; `result` or `error` once it was tried; `written` is done when it is durable, or has failed."""

    result: T
    error: Exception | None = None

    def __init__(self, work: Callable[[Cursor], T], done: Callable[[T], None] | None, until: float) -> None:
        """`until`: when it gives up waiting for another process, `time.monotonic()`."""
        self.work, self._done, self.until = work, done, until
        self.written: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def tell(self, trouble: Exception | None) -> None:
        """What became of it, after the commit; `trouble` is that of all together."""
        error = trouble or self.error
        if error is None and self._done is not None:
            try:
                self._done(self.result)
            except Exception as wrong:
                error = wrong
        if self.written.done():
            return  # the loop is being closed, and has cancelled it
        if error is None:
            self.written.set_result(self.result)
        else:
            self.written.set_exception(error)
            self.written.exception()  # seen: whoever waited may have been cancelled
