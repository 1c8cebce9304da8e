"""A session as its row and its log have it now, whichever version of the program has cached its state beside the row.

Above: `looking`, `supervisor`, `opening`. Below: the store, and the fold.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.events import StoredEvent
from server.sessions.view import SessionView, cached, view_of
from server.store.store import SessionRow, Store


async def view_now(store: Store, session_id: str) -> SessionView:
    """A session as it is now. Raises NotFound."""
    row, tail = await store.session_and_tail(session_id)
    return await view_from(store, row, tail)


async def view_from(store: Store, row: SessionRow, tail: Sequence[StoredEvent] = ()) -> SessionView:
    """`tail`: the events that the cached fold does not cover, where they have been read already."""
    state = cached(row)
    if not tail or tail[0].seq != state.seq + 1:
        tail = await store.events(row.id, state.seq) if row.head > state.seq else ()
    return view_of(row, state, tail)
