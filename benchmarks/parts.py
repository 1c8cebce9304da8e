"""What no tool round can be without, done by nobody of ours: a durable log, and a shell that runs the command.

Above: `rows/`. Below: SQLite and bash. Between the requests of a bare SDK loop they make it the same work as a round of
ours, without a container. They have to be there, and not be added up beside it: whoever waits for the disk and for a
process comes back to cold caches.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL")
ROWS = 4
"""Of a commit: those of an answer with a call."""


class Parts:
    """One log and one shell. Its verbs block, as a bare loop would."""

    def __init__(self, connection: sqlite3.Connection, bash: subprocess.Popen[bytes]) -> None:
        self._connection, self._bash = connection, bash

    def commit(self) -> None:
        """Make a few rows durable."""
        self._connection.execute("BEGIN IMMEDIATE")
        for _ in range(ROWS):
            self._connection.execute("INSERT INTO parts (body) VALUES (?)", ("x" * 400,))
        self._connection.execute("COMMIT")

    def command(self, line: str) -> None:
        """Have the shell run it, and wait for what it says behind it."""
        assert self._bash.stdin is not None and self._bash.stdout is not None
        self._bash.stdin.write(f"{line}; echo\n".encode())
        os.read(self._bash.stdout.fileno(), 16)

    def round(self, line: str) -> None:
        """A call is kept before it runs, and its result before the model hears of it."""
        self.commit()
        self.command(line)
        self.commit()


@contextmanager
def parts(folder: Path) -> Iterator[Parts]:
    """A log in this folder, and a shell of this machine's own."""
    shell = ("bash", "--norc", "--noprofile")
    with (
        closing(sqlite3.connect(folder / "parts.db", isolation_level=None)) as connection,
        subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as bash,
    ):
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE parts (n INTEGER PRIMARY KEY, body TEXT)")
        yield Parts(connection, bash)
        assert bash.stdin is not None
        bash.stdin.close()
