"""`python -m benchmarks`: measure, print a table a group, keep the numbers. Asserts nothing and needs no key."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from rich.console import Console

from benchmarks import report
from benchmarks.bench import RESULTS, Bench, find_engine, opened, say
from benchmarks.facts import facts
from benchmarks.row import Row
from benchmarks.rows import (
    context,
    create,
    followers,
    listing,
    memory,
    money,
    peers,
    rest,
    resume,
    rounds,
    send,
    startup,
    stdio,
    throughput,
)

GROUPS: Mapping[str, ModuleType] = {
    "send": send,
    "startup": startup,
    "rounds": rounds,
    "rest": rest,
    "followers": followers,
    "listing": listing,
    "create": create,
    "stdio": stdio,
    "throughput": throughput,
    "peers": peers,
    "memory": memory,
    "money": money,
    "resume": resume,
    "context": context,
}
WIDTH = 150
"""Columns of the table where the output is no terminal, or a narrow one: wrapped lines read worse than long ones."""
PARTLY = {
    "rest": "a tool round through the REST door",
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
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    kept = report.Kept(RESULTS, about)
    chosen = {name: GROUPS[name] for name in asked.groups or GROUPS}
    with opened(asked.quick, engine) as bench:
        for measured in measure(bench, chosen, why):
            report.show(console, measured)
            kept.add(measured)
    console.print(f"stored: {kept.path.relative_to(RESULTS.parents[1])}")


def measure(bench: Bench, groups: Mapping[str, Any], why_no_engine: str) -> Iterator[report.Measured]:
    """The rows of each of these groups as soon as they are there, and why any were left out. One that fails does not
    end the run: its error is its reason."""
    for name, group in groups.items():
        rows: list[Row] = []
        left_out: dict[str, str] = {}
        alone = getattr(group, "NEEDS_ENGINE", False)
        if not bench.engine and (alone or name in PARTLY):
            left_out[PARTLY.get(name, name)] = why_no_engine
        if bench.engine or not alone:
            say(f"measuring: {name}")
            try:
                rows = asyncio.run(_one(bench, group.measure))
            except Exception as error:  # whatever a measurement runs into, the others are still wanted
                left_out[name] = f"failed: {type(error).__name__}: {error}"
        yield report.Measured(name, rows, left_out)


async def _one(bench: Bench, measure_group: Callable[[Bench], Awaitable[list[Row]]]) -> list[Row]:
    gc.collect()
    return await measure_group(bench)


if __name__ == "__main__":
    main()
