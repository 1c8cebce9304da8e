"""How much a workspace takes up, for the backend's disk bound.

Above: `files`. Below: nothing. It runs in a short-lived child as every file operation does, so a huge tree costs time
there and nowhere else.
"""

from __future__ import annotations

import os

from sandbox.runner.replies import Reply


def usage(workspace: str) -> Reply:
    """meta {bytes, files}: allocated bytes as `du` counts them, each inode once, links and other disks not followed."""
    disk = os.lstat(workspace).st_dev
    seen = set()
    total = 0
    folders = [workspace]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # gone meanwhile: it takes up nothing
                    if found.st_dev != disk or found.st_ino in seen:
                        continue
                    seen.add(found.st_ino)
                    total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue  # gone meanwhile, or closed by its mode: the hard bounds still hold
    return True, b"", {"bytes": total, "files": len(seen)}
