"""Looking up in a session's log what its agent no longer has before it: by number, or by words.

Above: `hands`, for the tool of that name. Below: the log, read page by page, so that a long one costs no memory. The
answer is bounded and says how to go on. Only what the agent itself has seen is found: its own thread's talk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.events import StoredEvent
from server.sessions.log import Log
from server.tools.recall import Query

MOST = 20_000
"""Characters of an answer: a few thousand tokens, as it takes room in the context that was just made there."""
AROUND = 200
"""Characters shown on either side of the words that were looked for."""
FINDS = 3
"""Places shown of one event; its number says where the others are."""
PAGE = 100
"""Events read at a time."""
_NAMES = {
    "user.message": "user",
    "agent.message": "you",
    "agent.tool_use": "your call",
    "agent.custom_tool_use": "your call",
    "agent.tool_result": "result",
    "user.custom_tool_result": "result",
}


async def recall(log: Log, session_id: str, thread: str, query: Query) -> str:
    """What was found, as text for the model."""
    answer = _Answer(query)
    at = query.first - 1
    while True:
        page = await log.read(session_id, at, PAGE)
        for event in page:
            if query.last is not None and event.seq > query.last:
                return answer.text()
            if event.thread_id == thread and event.type in _NAMES and not answer.take(event):
                return answer.text()
        if len(page) < PAGE:
            return answer.text()
        at = page[-1].seq


class _Answer:
    """Grows by `take`, up to MOST characters."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._parts: list[str] = []
        self._room = MOST

    def take(self, event: StoredEvent) -> bool:
        """Add what the event has to say; False once no more fits, and the answer says how to go on."""
        text = spoken(event.public or {})
        head = f"#{event.seq} {_NAMES[event.type]}"
        wanted = self._query.text
        part = _found(text, wanted, head) if wanted else f"{head}:\n{text[self._passed(event) :]}"
        if not part:
            return True
        if len(part) <= self._room:
            self._parts.append(part)
            self._room -= len(part)
            return True
        if self._parts:
            self._go_on(event.seq, 0)
        else:
            self._parts.append(part[:MOST])
            self._go_on(event.seq, self._passed(event) + MOST - len(head) - 2)
        return False

    def text(self) -> str:
        """The whole answer."""
        return "\n\n".join(self._parts) or "Nothing was found."

    def _passed(self, event: StoredEvent) -> int:
        return self._query.offset if event.seq == self._query.first else 0

    def _go_on(self, number: int, offset: int) -> None:
        given = {
            "query": json.dumps(self._query.text, ensure_ascii=False) if self._query.text else "",
            "first": str(number),
            "last": "" if self._query.last is None else str(self._query.last),
            "offset": str(offset) if offset else "",
        }
        call = ", ".join(f"{name}={value}" for name, value in given.items() if value)
        self._parts.append(f"[There is more: recall({call}) goes on.]")


def _found(text: str, wanted: str, head: str) -> str:
    """The places where the words stand, with what is around them; empty when they are not there."""
    low, wanted = text.lower(), wanted.lower()
    count = low.count(wanted)
    if not count:
        return ""
    places, at = [], 0
    for _ in range(min(count, FINDS)):
        start = low.index(wanted, at)
        at = start + len(wanted)
        before, after = max(0, start - AROUND), min(len(text), at + AROUND)
        places.append(f"{'…' if before else ''}{text[before:after]}{'…' if after < len(text) else ''}")
    shown = f", {count} places" if count > 1 else ""
    return "\n".join([f"{head} ({len(text):,} characters{shown}):", *places])


def spoken(body: Mapping[str, Any]) -> str:
    """What an event says, as text: its content, or a call's name and input."""
    if "input" in body:
        return f"{body['name']} {json.dumps(body['input'], ensure_ascii=False)}"
    parts = [block["text"] if block["type"] == "text" else f"({block['type']})" for block in body.get("content", ())]
    return "\n".join(parts)
