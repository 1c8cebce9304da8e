"""What must be true of a session after a crash, read from the database file and from what the model was sent.

Above: `matrix`. Below: the fold and the transcript's rules. It looks at what is stored, not at what a door shows.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.local.backend import SYSTEM_FOLDER
from sandbox.local.workspace import PARTS
from server.events import CALL_TYPES, COMPACTED, PRIVATE_CLEARED, PRIVATE_DELIVERED, StoredEvent
from server.providers.scripted.validation import refusal
from server.providers.summary import SUMMARIZE
from server.sessions.fold import fold
from server.sessions.state import SessionState, dump
from tests.support.drive import plain_blocks

Body = Mapping[str, Any]
EMPTIED = ("files", "archives", "fetching", "sandboxes")
KEPT = {*EMPTIED, "skiff.db", "skiff.db-wal", "skiff.db-shm", "engine.lock", "engine.sock", "token", "work.log", "git"}
"""What a data folder may hold for good; `git` is a story's own."""


def log_of(folder: Path, session: str) -> list[StoredEvent]:
    """The session's whole log, private rows too."""
    sql = "SELECT seq, session_id, thread_id, id, type, public, private FROM events WHERE session_id = ? ORDER BY seq"
    rows = _query(folder, sql, session)
    return [StoredEvent(*row[:5], *(json.loads(text) if text else None for text in row[5:])) for row in rows]


def folded(log: Sequence[StoredEvent]) -> SessionState:
    """What a log means."""
    return fold(SessionState(), log)


def check_log(folder: Path, session: str) -> SessionState:
    """The state of a session at rest. Its log must be dense, finished, folded as its cache says, and owe nothing."""
    log = log_of(folder, session)
    assert [event.seq for event in log] == list(range(1, len(log) + 1)), "numbers are dense"
    state = folded(log)
    ((head, attention, cached, covered),) = _query(
        folder, "SELECT head, attention, fold, fold_seq FROM sessions WHERE id = ?", session
    )
    assert (head, attention) == (len(log), 0), "at rest, and its row says so"
    assert cached is not None or not log
    assert not log or json.loads(cached) == json.loads(json.dumps(dump(folded(log[:covered]))))
    assert (state.status, state.calls, state.open_request, state.queue) == ("idle", (), None, ())
    check_calls(log)
    check_inputs(log)
    ends = [event.private for event in log if event.type == "span.model_request_end" and event.private]
    assert state.usage.output_tokens == sum(end["usage"]["output_tokens"] for end in ends)
    return state


def check_calls(log: Sequence[StoredEvent]) -> None:
    """Every call has exactly one result."""
    asked = [event.id for event in log if event.type in CALL_TYPES]
    given = [
        body.get("tool_use_id") or body.get("custom_tool_use_id")
        for event in log
        if event.type in ("agent.tool_result", "user.custom_tool_result") and (body := event.public or {})
    ]
    assert Counter(given) == Counter(asked), "every call has exactly one result"


def check_inputs(log: Sequence[StoredEvent]) -> None:
    """Every input was delivered once; messages in the order in which they came."""
    given = [name for event in log if event.type == PRIVATE_DELIVERED for name in (event.private or {})["ids"]]
    for kind in ("user.message", "user.interrupt"):
        sent = [event.id for event in log if event.type == kind]
        assert [name for name in given if name in sent] == sent, f"every {kind} delivered once, in order"


def check_requests(bodies: Sequence[Body], log: Sequence[StoredEvent]) -> None:
    """What the model was sent: valid, and each request begins with the bytes of the one before, but at the steps that
    the log names, at which the conversation was made smaller."""
    steps = sum(event.type in (COMPACTED, PRIVATE_CLEARED) for event in log)
    said: list[str] = []
    changes = 0
    for body in bodies:
        assert refusal(body) is None, refusal(body)
        if body["messages"][-1]["content"][-1].get("text") == SUMMARIZE:
            continue  # what comes after it goes on from before it
        head = [json.dumps(body["system"]), json.dumps(body["tools"])]
        now = [*head, *map(json.dumps, plain_blocks(list(body["messages"])))]
        changes += now[: len(said)] != said
        said = now
    assert changes <= steps, "what was said before must be sent the same"


def sandbox_state(folder: Path, session: str) -> str:
    """What the session's row says of its sandbox; "" when it has none."""
    rows = _query(folder, "SELECT state FROM sandboxes WHERE session_id = ?", session)
    return str(rows[0][0]) if rows else ""


def fence_off(folder: Path) -> None:
    """Let whatever engine there is be an old one: nothing that it appends counts from now on."""
    connection = sqlite3.connect(folder / "skiff.db", isolation_level=None, timeout=10)
    connection.execute("UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE key = 'epoch'")
    connection.close()


def leftovers(folder: Path) -> list[str]:
    """Rows and files that a deleted session left."""
    tables = ("sessions", "events", "sandboxes", "staged_files", "resources", "files", "blobs")
    rows = [
        f"{count} rows of {table}"
        for table in tables
        if (count := _query(folder, f"SELECT count(*) FROM {table}")[0][0])
    ]
    rows += [path.name for path in folder.iterdir() if path.name not in KEPT]
    roots = SYSTEM_FOLDER / hashlib.sha256(str(folder).encode()).hexdigest()[:12]  # of sandboxes, when root serves
    below = [roots, *(folder / name for name in EMPTIED)]
    inside = [path for place in below if place.is_dir() for path in place.iterdir() if path.name != PARTS]
    return rows + [f"{path.parent.name}/{path.name}" for path in inside]


def _query(folder: Path, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{folder / 'skiff.db'}?mode=ro", uri=True)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()
