"""Lives of the program to be killed: `python -m tests.crash.armed` imports it once, and forks a process for each life.

Importing costs two to three seconds of processor, a hundred lives of it several minutes; a forked life goes on where
`python -m server` is after its imports, in a process of its own. Each line on standard input is a life:

    {"point": a point's name or null, "second": whether its second place is meant, "arguments": [...],
     "environment": {...}, "said": path}

and each line on standard output tells of one: `{"pid": ...}` when it was started, `{"pid": ..., "status": ...}` when
it is over (minus a signal's number, or the exit code).
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import sys
from collections.abc import Mapping
from typing import Any

import anthropic.resources.messages
import docker

import server.app
import server.backends
import server.cli
import server.commands.mcp
import server.commands.serve
import server.commands.work
from sandbox.docker import backend as docker_backend
from sandbox.local import backend as local_backend
from server.store import sqlite
from tests.crash.points import POINTS

LOADED = (anthropic, docker, server, docker_backend, local_backend)
"""What the program imports on first need."""


def main() -> None:
    """Serve until standard input ends."""
    gc.freeze()
    sqlite.MOST_TOGETHER = 1  # type: ignore[attr-defined]  # sharing a commit is luck, and what a point finds is not
    lives: dict[int, int] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(sys.stdin, selectors.EVENT_READ, None)
        pending = b""
        while True:
            for key, _ in ready.select():
                if key.data is not None:
                    ready.unregister(key.fd)
                    _bury(key.data, lives.pop(key.data))
                    continue
                portion = os.read(0, 1 << 16)
                if not portion:
                    return
                *lines, pending = (pending + portion).split(b"\n")
                for line in lines:
                    pid = _live(json.loads(line))
                    lives[pid] = os.pidfd_open(pid)
                    ready.register(lives[pid], selectors.EVENT_READ, pid)
                    _tell(pid=pid)


def _bury(pid: int, handle: int) -> None:
    os.close(handle)
    _, status = os.waitpid(pid, 0)
    _tell(pid=pid, status=os.waitstatus_to_exitcode(status))


def _tell(**said: int) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


def _live(asked: Mapping[str, Any]) -> int:
    """Fork; in the child, be the program, and never return."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        said = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.environ.clear()
        os.environ.update(asked["environment"])
        if asked["point"] is not None:
            point = POINTS[asked["point"]]
            site = point.second if asked["second"] else point.site
            assert site is not None
            site.arm()
        sys.argv = ["skiff", *asked["arguments"]]
        server.cli.main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
        if isinstance(leaving.code, str):
            os.write(2, leaving.code.encode())
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
