"""A container engine of the tests' own, to be stopped, killed and started again: the machine's is everybody's.

Above: `tests/scenarios/test_engine_faults.py`. Below: `dockerd`, in namespaces of its own for network (a second one
would take the first one's bridge away), mounts (its data is a tmpfs that goes with them) and processes (so that nothing
of it, containers included, outlives the test). The sandbox image is copied into it from the machine's engine.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandbox.docker.engine import Engine
from sandbox.docker.images import Images, derived_tag, runner_version, toolbox_tag
from tests.support.sandboxes import data_folder, require

READY_SECONDS = 60.0
"""A first start takes two seconds, a start after a kill with containers to take over a few."""
LOOK_SECONDS = 0.05
PACK = """
cd / && L=usr/lib/$(uname -m)-linux-gnu
set -- bin sbin lib lib64 etc home mnt opt root run tmp workspace usr/bin usr/sbin usr/lib64 usr/lib/python3*
for name in acl attr bz2 c cap dl expat ffi gmp lzma m pcre2-8 pthread resolv rt selinux tinfo util z zstd; do
    set -- "$@" $(ls -d $L/lib$name.so* 2>/dev/null)
done
exec tar -c --exclude=__pycache__ --exclude='usr/bin/git*' --exclude='usr/bin/perl*' "$@" $L/ld-linux*
"""
"""What bash, the usual commands and the runner need of the sandbox image: a sixth of its bytes, and of the time."""
FIRST = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); signal.pause()"
"""The first process of the namespaces. The kernel buries what ends under it: an engine takes a containerd that
is dead but not buried for one that lives."""
TOOLS = ("dockerd", "docker", "unshare", "nsenter")


def require_private_engine() -> None:
    """Skip the running test, or fail it, where none can be started."""
    require("docker")
    missing = [name for name in TOOLS if shutil.which(name) is None]
    why = f"there is no {', '.join(missing)}" if missing else "only root can" if os.geteuid() else ""
    if why and os.environ.get("SKIFF_REQUIRE_DOCKER") == "1":
        pytest.fail(f"SKIFF_REQUIRE_DOCKER=1, but no engine can be started for the test: {why}")
    if why:
        pytest.skip(f"NOT TESTED: no engine can be started for the test: {why}")


def _sandbox_image() -> str:
    """The machine's own: made where it is missing."""

    async def make() -> str:
        engine = Engine()
        try:
            return await Images(engine).ensure("")
        finally:
            await engine.close()

    return asyncio.run(make())


@dataclass
class PrivateEngine:
    """One engine: `start` it, `stop` or `kill` it, and `start` it again on the same data."""

    folder: Path
    holder: int
    """The first process of its namespaces, as this machine numbers it."""
    live_restore: bool = False
    """Whether containers outlive it."""
    _daemon: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def host(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.folder}/docker.sock"

    def start(self, *, live_restore: bool = False) -> None:
        """Start it and return when it answers."""
        self.live_restore = live_restore
        with suppress(FileNotFoundError):
            (self.folder / "docker.pid").unlink()
        arguments = [
            *("--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
            *("--pidfile", f"{self.folder}/docker.pid", "-H", self.host),
            *("--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"),
            *(["--live-restore"] if live_restore else []),
        ]
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                ["nsenter", "-t", str(self.holder), "-n", "-m", "-p", "dockerd", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._until_it_answers()

    def _until_it_answers(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while subprocess.run(["docker", "-H", self.host, "version"], capture_output=True, check=False).returncode:
            assert self._daemon is not None
            if time.monotonic() > end or self._daemon.poll() is not None:
                raise AssertionError(f"no engine came up:\n{(self.folder / 'log').read_text()[-4000:]}")
            time.sleep(LOOK_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, in good order or by SIGKILL, and wait for its end."""
        assert self._daemon is not None
        for pid in self._daemons():
            os.kill(pid, how)
        self._daemon.wait(READY_SECONDS)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and answers nothing for the length of the block; its containers run on."""
        assert self._daemon is not None
        for pid in self._daemons():
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in (*self._daemons(), self._daemon.pid):  # nsenter stops with its child
                os.kill(pid, signal.SIGCONT)

    def bury(self) -> None:
        """Its namespaces are gone, and it with them."""
        if self._daemon is not None:
            self._daemon.wait(READY_SECONDS)

    def lives_alone(self) -> None:
        """Make it an engine that takes its containers along when it ends."""
        if self.live_restore:
            self.stop()
            self.start()

    def _daemons(self) -> list[int]:
        """The engine itself: nsenter has it as a child, in the new namespace."""
        assert self._daemon is not None
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def docker(self, *arguments: str) -> str:
        """What its command line says."""
        command = ["docker", "-H", self.host, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=READY_SECONDS).stdout

    def copy_image(self) -> None:
        """Bring the machine's sandbox image into this engine, slimmed: as its toolbox, and as the image of that."""
        pack = ["run", "--rm", "--network", "none", "-u", "0:0", "--entrypoint", "sh", _sandbox_image(), "-c", PACK]
        with subprocess.Popen(["docker", *pack], stdout=subprocess.PIPE) as packing:
            load = ["docker", "-H", self.host, "import", "-", toolbox_tag()]
            image = subprocess.run(load, stdin=packing.stdout, check=True, capture_output=True, text=True).stdout
        self.docker("tag", toolbox_tag(), derived_tag(image.strip(), runner_version()))

    def clear(self) -> None:
        """Remove every container, so that their cgroups go too."""
        if containers := self.docker("ps", "-aq").split():
            self.docker("rm", "-f", *containers)


@contextmanager
def private_engine() -> Iterator[PrivateEngine]:
    """Namespaces with a data folder in memory; nothing is started in them yet. All ends with the block."""
    with data_folder() as folder:
        (folder / "data").mkdir()
        inside = f"mount -t tmpfs -o size=2g tmpfs {folder}/data && echo ready && exec {sys.executable} -c '{FIRST}'"
        command = ["unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", inside]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer:
            assert outer.stdout is not None
            assert outer.stdout.readline() == "ready\n"
            holder = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
            engine = PrivateEngine(folder, holder)
            try:
                yield engine
                engine.clear()
            finally:
                outer.kill()
                engine.bury()
