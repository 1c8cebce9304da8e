"""`python -m benchmarks`: measure, print a table, keep the numbers. Asserts nothing and needs no key."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType

from rich.console import Console

from benchmarks import report
from benchmarks.bench import RESULTS, Bench, find_engine, opened, say
from benchmarks.facts import facts
from benchmarks.row import Row
from benchmarks.rows import create, memory, resume, rounds, send, startup, stdio, throughput

GROUPS: Mapping[str, ModuleType] = {
    "send": send,
    "startup": startup,
    "rounds": rounds,
    "create": create,
    "stdio": stdio,
    "throughput": throughput,
    "memory": memory,
    "resume": resume,
}
WIDTH = 150
"""Columns of the table where the output is no terminal, or a narrow one: wrapped lines read worse than long ones."""
PARTLY = {
    "memory": "memory of a live sandbox",
    "resume": "sessions that are killed while they run a command",
}
"""Groups that go without an engine, less these rows."""


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"any of: {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few samples of each, for development")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.groups) - set(GROUPS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    for name in [name for name in os.environ if name.startswith(("SKIFF_", "ANTHROPIC_"))]:
        del os.environ[name]  # an operator's settings would be measured, and a real key used
    logging.basicConfig(level=logging.ERROR)
    engine, why = asyncio.run(find_engine())
    about = facts(engine)
    with opened(asked.quick, engine) as bench:
        rows, left_out = measure(bench, asked.groups or list(GROUPS), why)
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    report.show(console, rows, left_out)
    console.print(f"stored: {report.store(RESULTS, about, rows, left_out).relative_to(RESULTS.parents[1])}")


def measure(bench: Bench, groups: list[str], why_no_engine: str) -> tuple[list[Row], dict[str, str]]:
    """The rows of these groups, one group after the other, and why any were left out. One that fails does not end
    the run: its error is its reason."""
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    for name in groups:
        if not bench.engine and (getattr(GROUPS[name], "NEEDS_ENGINE", False) or name in PARTLY):
            left_out[PARTLY.get(name, name)] = why_no_engine
            if name not in PARTLY:
                continue
        say(f"measuring: {name}")
        try:
            rows += asyncio.run(_one(bench, GROUPS[name].measure))
        except Exception as error:  # whatever a measurement runs into, the others are still wanted
            left_out[name] = f"failed: {type(error).__name__}: {error}"
    return rows, left_out


async def _one(bench: Bench, measure_group: Callable[[Bench], Awaitable[list[Row]]]) -> list[Row]:
    gc.collect()
    return await measure_group(bench)


if __name__ == "__main__":
    main()
