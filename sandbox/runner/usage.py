"""How much a workspace takes up, for the backend's disk bound.

Above: `files`. Below: nothing. It runs in a short-lived child as every file operation does, so a huge tree costs time
there and nowhere else.
"""

from __future__ import annotations

import os
from typing import Set, Tuple

from sandbox.runner.replies import Reply
from sandbox.wire import OUTPUTS


def usage(workspace: str) -> Reply:
    """meta {bytes, files}: allocated bytes as `du` counts them, each inode once, links and other disks not followed."""
    seen: Set[Tuple[int, int]] = set()
    total = count(workspace, seen) + (count(OUTPUTS, seen) if os.path.isdir(OUTPUTS) else 0)
    return True, b"", {"bytes": total, "files": len(seen)}


def count(top: str, seen: Set[Tuple[int, int]]) -> int:
    """The bytes below one folder, without the (disk, inode) pairs already `seen`, which gets those that it counts."""
    disk = os.lstat(top).st_dev
    total = 0
    folders = [top]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # gone meanwhile: it takes up nothing
                    if found.st_dev != disk or (disk, found.st_ino) in seen:
                        continue
                    seen.add((disk, found.st_ino))
                    total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue  # gone meanwhile, or closed by its mode: the hard bounds still hold
    return total
