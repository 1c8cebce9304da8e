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
    """The work; its `result` or `error` of the last time that it was tried. `written` is done when it is durable,
    or has failed."""

    result: T
    error: Exception | None = None

    def __init__(self, work: Callable[[Cursor], T], done: Callable[[T], None] | None, until: float) -> None:
        """`until`: when it gives up waiting for another process, `time.monotonic()`."""
        self.work, self._done, self.until = work, done, until
        self.written: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def tell(self) -> None:
        """What became of it, once that is sure."""
        if self.error is None and self._done is not None:
            try:
                self._done(self.result)
            except Exception as error:
                self.error = error
        if self.error is None:
            self.written.set_result(self.result)
        else:
            self.written.set_exception(self.error)
            self.written.exception()  # seen: whoever waited may have been cancelled
