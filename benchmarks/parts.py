"""What no tool round can be without, done by nobody of ours: a durable commit, and a shell that runs the command.

Above: `rows/`. Below: SQLite and bash. Each after a pause as long as a round has between two of them: a disk and a
processor that have just worked answer in a third of the time.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import time
from contextlib import closing
from pathlib import Path

PAUSE_SECONDS = 0.005
SAMPLES = 100
ROWS = 4
"""Of one commit: those of an answer with a call."""


def commit(folder: Path) -> float:
    """Milliseconds of a transaction of a few rows on this disk: WAL, `synchronous=FULL`, the median."""
    took = []
    with closing(sqlite3.connect(folder / "parts.db", isolation_level=None)) as connection:
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE parts (n INTEGER PRIMARY KEY, body TEXT)")
        for _ in range(SAMPLES):
            time.sleep(PAUSE_SECONDS)
            began = time.monotonic()
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(ROWS):
                connection.execute("INSERT INTO parts (body) VALUES (?)", ("x" * 400,))
            connection.execute("COMMIT")
            took.append((time.monotonic() - began) * 1000)
    return statistics.median(took)


def command(line: str) -> float:
    """Milliseconds from a line typed into a bash of this machine's own to what it says behind it, the median."""
    took = []
    shell = ("bash", "--norc", "--noprofile")
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as bash:
        assert bash.stdin is not None and bash.stdout is not None
        for _ in range(SAMPLES):
            time.sleep(PAUSE_SECONDS)
            began = time.monotonic()
            bash.stdin.write(f"{line}; echo\n".encode())
            os.read(bash.stdout.fileno(), 16)
            took.append((time.monotonic() - began) * 1000)
        bash.stdin.close()
    return statistics.median(took)
