"""Entry point: `python3 -I -S /opt/skiff/sandbox/runner [flags]` or `python3 -m sandbox.runner [flags]`.

    --workspace DIR          root of relative paths and first directory of shells; default /workspace
    --home DIR               HOME of commands; default WORKSPACE/.home
    --max-timeout-ms N       longest time limit that a bash call may ask for; default 3,600,000
    --exit-on-eof            end, killing everything, when stdin ends (a pipe's owner does not come back)
    --net                    carry connections of the sandbox over the stream

or, for something else altogether, `--pack` or `--unpack` alone: see `packing`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import List, Tuple

if not __package__:  # run as a folder: `-I` ignores PYTHONPATH and puts only this folder on the path
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if path != here]  # its module names must not hide others
    sys.path.insert(0, os.path.dirname(os.path.dirname(here)))

from sandbox.runner import procs
from sandbox.runner.core import Options, Runner
from sandbox.runner.loop import Loop


def parse(arguments: List[str]) -> Options:
    """The flags. Exits with code 2 and a sentence on stderr when one is unknown or lacks its value."""
    values = Options()
    left = list(arguments)
    while left:
        flag = left.pop(0)
        if flag == "--exit-on-eof":
            values = values._replace(exit_on_eof=True)
        elif flag == "--net":
            values = values._replace(net=True)
        elif flag == "--workspace" and left:
            values = values._replace(workspace=os.path.abspath(left.pop(0)))
        elif flag == "--home" and left:
            values = values._replace(home=os.path.abspath(left.pop(0)))
        elif flag == "--max-timeout-ms" and left and left[0].isdigit():
            values = values._replace(max_timeout_ms=int(left.pop(0)))
        else:
            sys.stderr.write(f"skiff runner: {flag}: unknown flag, or its value is missing or wrong\n")
            sys.exit(2)
    return values


def take_stdio() -> Tuple[int, int]:
    """Move the stream to descriptors that no child inherits; leave /dev/null and stderr in their place."""
    read_fd, write_fd = os.dup(0), os.dup(1)  # CLOEXEC
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return read_fd, write_fd


def main() -> None:
    if sys.argv[1:] in (["--pack"], ["--unpack"]):
        from sandbox.runner import packing  # here alone: every sandbox would pay for tarfile

        sys.exit(packing.main(sys.argv[1]))
    options = parse(sys.argv[1:])
    # As PID 1 without handlers nothing inside can signal this process; Python's own SIGINT handler would be one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    procs.hide()
    procs.adopt_orphans()
    os.umask(0o022)
    read_fd, write_fd = take_stdio()
    home = options.home or os.path.join(options.workspace, ".home")
    try:
        os.makedirs(home, exist_ok=True)
        os.chdir(options.workspace)
    except OSError as error:
        sys.stderr.write(f"skiff runner: {options.workspace}: {error.strerror}\n")
    loop = Loop()
    Runner(loop, read_fd, write_fd, options)
    gc.collect()
    gc.freeze()  # forked children then touch, and so copy, fewer pages
    loop.run()


if __name__ == "__main__":
    main()
