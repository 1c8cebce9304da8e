"""What a server's process takes up at one moment: memory, handles, threads, tasks, processes, containers, its database.

Above: `load`, which reads them at intervals, and `verdict`, which compares. Below: /proc, the server's own `/metrics`,
and the container engine's list.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.site import KEY, Site
from sandbox.docker.labels import INSTALLATION


@dataclass(frozen=True)
class Reading:
    """One look. Megabytes are of 1,048,576 bytes."""

    seconds: float
    """Since the load began."""
    rss_mb: float
    pss_mb: float
    fds: int
    threads: int
    tasks: int
    processes: int
    """Below the server: the embedded sandboxes are its children."""
    containers: int
    sandboxes: int
    database_mb: float
    """With its write-ahead log."""


async def look(site: Site, folder: Path, installation: str, seconds: float) -> Reading:
    """Read everything now; without an installation's id no containers are counted."""
    own = await _figures(site)
    containers = await asyncio.to_thread(_containers, installation) if installation else 0
    status = _status(site.pid)
    return Reading(
        seconds=round(seconds, 1),
        rss_mb=status["VmRSS"] / 1024,
        pss_mb=_pss_kb(site.pid) / 1024,
        fds=len(os.listdir(f"/proc/{site.pid}/fd")),
        threads=status["Threads"],
        tasks=int(own["skiff_tasks"]),
        processes=_descendants(site.pid),
        containers=containers,
        sandboxes=int(own["skiff_sandboxes"]),
        database_mb=_size(folder) / 2**20,
    )


async def _figures(site: Site) -> dict[str, float]:
    """The gauges without labels. On a connection that is closed afterwards, or it would be counted the next time."""
    async with httpx2.AsyncClient(headers={"x-api-key": KEY, "connection": "close"}, timeout=60) as http:
        answer = await http.get(f"{site.url}/metrics")
    lines = (line.split() for line in answer.raise_for_status().text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, value in lines if "{" not in name}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("skiff.db*"))


def _status(pid: int) -> dict[str, int]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[0] in ("VmRSS:", "Threads:")}


def _pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel does not tell the proportional share of memory")


def _descendants(pid: int) -> int:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents.setdefault(int(words[1]), []).append(int(stat.parent.name))
    found, below = 0, [pid]
    while below:
        children = parents.get(below.pop(), [])
        found += len(children)
        below += children
    return found


def _containers(installation: str) -> int:
    command = ["docker", "ps", "-aq", "--filter", f"label={INSTALLATION}={installation}"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split())
