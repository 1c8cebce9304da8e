"""What was spent on each day, over all sessions: one row a day, added to in the transaction that stores an answer.

Above: `store.log`, which adds, and `sessions.spending`, which asks. Below: a `Database`. It knows numbers, not caps.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_UP, Decimal

from server.events import NewEvent, spent_in
from server.store.database import Cursor
from server.store.table import Table

NANO = Decimal(10) ** 9
"""Dollars are kept in whole nanodollars: a token of the cheapest cache reads costs ten, and a day of nine billion
dollars still fits the column."""


class SpendingTable(Table):
    """What was spent."""

    async def spent_on(self, day: str) -> tuple[Decimal, int]:
        """US dollars and tokens of a day, as in 2026-11-29. What had no known price counts in tokens only."""
        row = await self._database.read(
            lambda cursor: cursor.one("SELECT nano_usd, tokens FROM spending WHERE day = :day", {"day": day})
        )
        return (Decimal(row[0]) / NANO, int(row[1])) if row else (Decimal(0), 0)


def add_spending(cursor: Cursor, events: Sequence[NewEvent]) -> None:
    """Add what the model requests among these events cost, each fraction of a nanodollar rounded up."""
    for day, usd, tokens in spent_in(events):
        nano = int((Decimal(usd or 0) * NANO).to_integral_value(ROUND_UP))
        cursor.execute(
            "INSERT INTO spending (day, nano_usd, tokens) VALUES (:day, :nano, :tokens) ON CONFLICT (day) DO UPDATE"
            " SET nano_usd = nano_usd + :nano, tokens = tokens + :tokens",
            {"day": day, "nano": nano, "tokens": tokens},
        )
