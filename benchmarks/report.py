"""Rows for people (a table a group) and for later comparison (JSON).

Above: `__main__`. Below: rich, and the folder of results, which git ignores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.row import Figure, Row

MARKS = {True: "[green]holds[/]", False: "[red]MISSED[/]", None: "-"}


@dataclass(frozen=True)
class Measured:
    """What came of one group."""

    group: str
    rows: Sequence[Row]
    left_out: Mapping[str, str]
    """What was not measured, and why."""


def show(console: Console, measured: Measured) -> None:
    """Print a group's table, what was left out and why, and the notes."""
    if measured.rows:
        console.print(_table(measured))
    for name, reason in measured.left_out.items():
        console.print(f"[yellow]left out:[/] {escape(name)}: {escape(reason)}")
    for note, names in _notes(measured.rows).items():
        console.print(f"[dim]{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: {note}[/]", soft_wrap=True)


def _table(measured: Measured) -> Table:
    title = f"{measured.group}: medians (p95), each beside its other side in the same run"
    table = Table(title=title, title_justify="left")
    for heading in ("figure", "to hold", "ours", "floor", "ratio", "", "the floor is"):
        table.add_column(heading, justify="right" if heading in ("ours", "floor", "ratio") else "left", overflow="fold")
    for row in measured.rows:
        table.add_row(
            row.name,
            _hold(row),
            _figure(row.ours, row.unit),
            _figure(row.floor, row.unit),
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            MARKS[row.holds],
            row.beside,
        )
    return table


class Kept:
    """The rows of one run in `<date>.json`, beside those of earlier runs; written again with every group, so that what
    was measured outlives a run that is broken off."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        now = datetime.now(UTC)
        self.path = folder / f"{now:%Y-%m-%dT%H%M%SZ}.json"
        self._rows: list[dict[str, Any]] = []
        self._left_out: dict[str, str] = {}
        self._body = {
            "at": now.isoformat(timespec="seconds"),
            "facts": dict(facts),
            "rows": self._rows,
            "left_out": self._left_out,
        }

    def add(self, measured: Measured) -> None:
        """Write these too."""
        self._rows += [_as_json(row) for row in measured.rows]
        self._left_out |= measured.left_out
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self._body, indent=1, ensure_ascii=False) + "\n", "utf-8")
        draft.replace(self.path)


def _notes(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Each note once, with the rows that it is about."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            notes.setdefault(note, []).append(row.name)
    return notes


def _as_json(row: Row) -> dict[str, Any]:
    derived = {"ratio": row.ratio, "limit": row.limit, "holds": row.holds}
    return {**asdict(row), "hold": row.hold.describe(row.unit) if row.hold else None, **derived}


def _hold(row: Row) -> str:
    if row.hold is None:
        return "-"
    words = row.hold.describe(row.unit)
    return f"{words} = {row.limit:.3g}" if row.hold.times and row.limit is not None else words


def _figure(value: Figure | None, unit: str) -> str:
    if value is None:
        return "-"
    spread = f" ({value.p95:.3g})" if value.samples > 1 else ""
    return f"{value.median:.3g}{spread} {unit}".rstrip()
