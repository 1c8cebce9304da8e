"""What the whole server spends in a day, over all its sessions, held to the operator's caps.

Above: `asking`, which reserves before it asks. Below: the store, where each answer's cost is added in the answer's own
transaction, so that it survives whatever happens to this process; `budget` says what fits.

A request that fits what is left of the day, but not beside those that are under way, waits for them: most take less
than was reserved for them. One that fits no more is refused, and so ends its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.errors import DayCapReached
from server.ids import now
from server.sessions.money.budget import Amount, Caps, Need, admitted
from server.store.store import Store

UNPRICED = (
    "The operator's cap on dollars a day (setting SKIFF_MAX_USD_PER_DAY) cannot be kept for a model without a known"
    " price, so it was not asked. Add its price to a price file (setting SKIFF_PRICES)."
)


class Spending:
    """The day's account of this data folder's engine. A day is one of UTC, by the clock of `server.ids`."""

    def __init__(self, store: Store, caps: Caps) -> None:
        self._store = store
        self._caps = caps
        self._reserved = Amount()
        self._settled = asyncio.Event()
        """Set, and replaced, whenever a reservation ends."""

    @asynccontextmanager
    async def reserve(self, request: Need) -> AsyncIterator[int]:
        """Hold the worst that this request can cost until the block ends; gives the most tokens of its answer.

        The answer has to be stored inside the block. Raises DayCapReached, also for a model without a known price
        where there is a cap in dollars.
        """
        if self._caps == Caps():
            yield request.answer
            return
        answer = await self._admit(request)
        worst = request.worst(answer)
        try:
            yield answer
        finally:
            self._reserved -= worst
            self._settled.set()
            self._settled = asyncio.Event()

    async def _admit(self, request: Need) -> int:
        """Wait until the request fits, and reserve for it; nothing is awaited between the two."""
        if self._caps.usd is not None and request.rates is None:
            raise DayCapReached(UNPRICED)
        while True:
            settled, day = self._settled, now()[:10]
            spent = Amount(*await self._store.spent_on(day))
            if settled.is_set():
                continue  # what ended meanwhile may be in neither figure
            answer = admitted(self._caps, spent, self._reserved, request)
            if answer == 0:
                raise DayCapReached(_reached(self._caps, spent, day))
            if answer is not None:
                self._reserved += request.worst(answer)
                return answer
            await settled.wait()


def _reached(caps: Caps, spent: Amount, day: str) -> str:
    bounds = []
    if caps.usd is not None:
        bounds.append(f"{spent.usd:.4f} of {caps.usd} US dollars (setting SKIFF_MAX_USD_PER_DAY)")
    if caps.tokens is not None:
        bounds.append(f"{spent.tokens:,} of {caps.tokens:,} tokens (setting SKIFF_MAX_TOKENS_PER_DAY)")
    return (
        f"The operator's cap for the day is reached: all sessions of this server have used {' and '.join(bounds)} on"
        f" {day}, and the next request might go beyond it. Send a message after midnight UTC, or once the cap was"
        " raised; files and history are kept."
    )
