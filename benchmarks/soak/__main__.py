"""`python -m benchmarks.soak`: load a server for half an hour, print what it took up, and end non-zero if it leaks."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bench import RESULTS, find_engine
from benchmarks.fake import fake
from benchmarks.soak.gauges import Reading
from benchmarks.soak.load import Plan, Seen, serving, soak
from benchmarks.soak.verdict import compare, left_behind, percentile

KEPT = 500
"""Requests that the model's double remembers: its own memory is nobody's business here, but the machine has an end."""
SHOWN = (
    "seconds",
    "rss_mb",
    "pss_mb",
    "fds",
    "threads",
    "tasks",
    "processes",
    "containers",
    "sandboxes",
    "database_mb",
)


def main() -> int:
    """Soak as the command line says; 1 when something grew or was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="how long (default: half an hour)")
    parser.add_argument("--sessions", type=int, default=50, help="sessions at a time (default: 50)")
    parser.add_argument("--working", type=int, default=16, help="of these, sessions that run commands (default: 16)")
    parser.add_argument("--pause", type=float, default=3.0, help="mean seconds between turns (default: 3)")
    asked = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("SKIFF_", "ANTHROPIC_"))]:
        del os.environ[name]
    logging.basicConfig(level=logging.ERROR)
    engine, why = asyncio.run(find_engine())
    console = Console(highlight=False)
    console.width = max(console.width, 150)
    console.print(
        f"sandboxes: {'containers of engine ' + engine if engine else f'bubblewrap, for {why}'}", markup=False
    )
    working = min(asked.working, asked.sessions)
    plan = Plan(asked.seconds, asked.sessions - working, working, asked.pause, "docker" if engine else "local")
    seen = asyncio.run(_soaked(plan))
    return show(console, plan, seen)


async def _soaked(plan: Plan) -> Seen:
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".soak-", dir=RESULTS, ignore_cleanup_errors=True) as name:
        folder = Path(name) / "data"
        folder.mkdir()
        with fake("--keep", str(KEPT)) as model:
            url = f"http://127.0.0.1:{model.port}"
            async with serving(folder, plan, url) as site:
                return await soak(site, folder, plan, url)


def show(console: Console, plan: Plan, seen: Seen) -> int:
    """Print it all; the exit code."""
    table = Table(*SHOWN, title=f"{seen.sessions} sessions, {seen.turns} turns in {plan.seconds:.0f} s")
    for reading in (seen.before, *seen.readings, *([seen.after] if seen.after else [])):
        table.add_row(*(_number(reading, name) for name in SHOWN))
    console.print(table)
    for part, words in (((0.0, 0.2), "first"), ((0.8, 1.1), "last")):
        took = [ms for at, ms in seen.latencies if part[0] <= at / plan.seconds < part[1]]
        if took:
            figures = f"p50 {percentile(took, 50):.1f} ms, p95 {percentile(took, 95):.1f} ms of {len(took)}"
            console.print(f"send → first model request, {words} fifth: {figures}")
    compared = compare(seen.readings, seen.latencies, plan.seconds)
    for each in compared:
        mark = "[green]holds[/]" if each.holds else "[red]GREW [/]"
        console.print(
            f"{mark} {each.name:12} {each.start:9.1f} → {each.end:9.1f}  (at most {each.limit:.1f}: {each.why})"
        )
    troubles = [*left_behind(seen.before, seen.after)] if seen.after else ["it was never looked at afterwards"]
    troubles += [f"{seen.left} sessions are left"] if seen.left else []
    for trouble in (*troubles, *(f"lost: {each}" for each in seen.lost)):
        console.print(trouble, markup=False, style="red")
    bad = bool(troubles or seen.lost) or not all(each.holds for each in compared)
    console.print(
        "Something grew or was lost: see above." if bad else "Nothing grew without bound, and nothing was lost."
    )
    return 1 if bad else 0


def _number(reading: Reading, name: str) -> str:
    value = getattr(reading, name)
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
