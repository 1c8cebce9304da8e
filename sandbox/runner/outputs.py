"""What the agent hands out: the files below one folder, listed and deleted for the host.

Above: `files.perform`. Below: `workspace.Walker`, so that no link leads anywhere else. Fetching is `workspace.fetch`.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, Iterator, List

from sandbox.runner.replies import Refused, Reply, done, shown
from sandbox.runner.workspace import MAX_ENTRIES, Walker
from sandbox.wire import OUTPUTS, Outputs, Remove

MAX_LISTED = 10_000
"""Files in one answer: about a megabyte of JSON."""


def outputs(op: Outputs, top: str = OUTPUTS) -> Reply:
    """Every file below `top`. See `wire.Outputs`. meta.total counts them, as far as MAX_ENTRIES entries were seen."""
    if not 1 <= op.limit <= MAX_LISTED:
        raise Refused(f"limit must be from 1 to {MAX_LISTED}, not {op.limit}.")
    found = sorted(_files(top), key=lambda entry: str(entry["path"]))
    return done(json.dumps(found[: op.limit]), total=len(found))


def _files(top: str) -> Iterator[Dict[str, Any]]:
    """The regular files, by name and not by link. Of a folder that goes away or is closed meanwhile, none."""
    seen = 0
    folders: List[str] = [""]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(OSError), os.scandir(os.path.join(top, folder)) as entries:
            for entry in entries:
                seen += 1
                if seen > MAX_ENTRIES:
                    return
                path = os.path.join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False) and not entry.name.startswith(".skiff-"):
                    status = entry.stat(follow_symlinks=False)
                    yield {"path": path, "size": status.st_size, "changed": status.st_mtime_ns}


def remove(op: Remove, top: str = OUTPUTS) -> Reply:
    """Delete a file or link below `top`, never what a link points at."""
    folder, _, name = op.path.rpartition("/")
    if not name or name in (".", "..") or op.path.startswith("/"):
        raise Refused(f"{shown(op.path)} names no file below {top}.")
    with Walker(top) as way:
        try:
            last = way.parent_of(folder) if folder else ""
            if last:
                way.enter(last)
            os.unlink(name, dir_fd=way.folder)
        except FileNotFoundError:
            return done("It was not there.")
        except IsADirectoryError:
            raise Refused(f"{shown(op.path)} is a folder; only files can be deleted.") from None
    return done(f"Deleted {shown(op.path)}.")
