"""What an agent can do to its sandbox, by accident or not: each time a clear result, a sandbox that can be used
afterwards (or says that it is gone), and nothing of the host touched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.errors import SandboxError, SandboxGone
from sandbox.protocol import Sandbox, SandboxBackend
from sandbox.wire import Bash, Edit, Fetch, Glob, List_, Put, Read, Write
from tests.support.sandboxes import BACKENDS, SMALL, Story, bash, fresh_slot, op, run_on, says

Play = Callable[[Story], None]


@pytest.fixture(params=BACKENDS)
def play(request: pytest.FixtureRequest) -> Play:
    """Plays a story on a real backend."""
    return lambda story: run_on(request.param, story)


async def restarted(sandbox: Sandbox) -> None:
    """The shell can be had anew, and works."""
    await sandbox.call(op(Bash(restart=True)))
    assert await says(sandbox, "echo usable") == "usable"


# --- too much of everything ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bomb",
    ["f() { f | f & }; f; sleep 7777", 'f() { setsid bash -c "$(declare -f f); f" & f & }; f; sleep 7777'],
    ids=["pipes", "setsid"],
)
def test_a_fork_bomb_ends_with_its_time_and_leaves_nothing(play: Play, bomb: str) -> None:
    async def story(backend: SandboxBackend) -> None:
        if not backend.promises.pids_limit:
            pytest.skip(f"{backend.name} does not promise a bound on processes here")
        sandbox = await backend.create(SMALL, fresh_slot())
        result = await bash(sandbox, bomb, timeout_ms=1500)
        assert not result.ok
        await restarted(sandbox)
        assert int(await says(sandbox, "ls -d /proc/[0-9]* | wc -l")) < 20

    play(story)


def test_a_memory_hog_is_killed_and_the_sandbox_goes_on(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        hog = "python3 -c 'l = []\nwhile True: l.append(bytearray(16 << 20))'"
        assert (await bash(sandbox, hog)).meta.get("exit_code") != 0
        await restarted(sandbox)

    play(story)


def test_a_full_disk_stops_the_writer_and_says_why(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        # Slow enough that the soft bound is met before the hard one, in files that the bound on one file lets pass.
        fill = "for i in $(seq 1000); do head -c 2500000 /dev/zero > f$i; sleep 0.2; done"
        result = await bash(sandbox, fill, timeout_ms=25_000)
        assert not result.ok and "bound" in json.dumps(result.meta["notes"])
        await restarted(sandbox)
        assert await says(sandbox, "rm -f f*; echo freed") == "freed"

    play(story)


def test_one_file_cannot_pass_the_disk_bound(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        result = await bash(sandbox, "head -c 300000000 /dev/zero > big")
        assert result.meta.get("exit_code") != 0
        assert int(await says(sandbox, "stat -c %s big")) <= SMALL.disk_mb << 20

    play(story)


def test_endless_output_is_bounded_and_ends_with_its_time(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        result = await bash(sandbox, "cat /dev/zero | tr '\\0' x", timeout_ms=1500)
        assert result.meta["timed_out"] is True
        assert len(result.body) < 4 << 20
        await restarted(sandbox)

    play(story)


def test_ten_thousand_files_are_listed_in_pages(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert await says(sandbox, "mkdir m; cd m; seq -f f%05g 10000 | xargs touch; echo made") == "made"
        names: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await sandbox.call(op(List_("m", after, 1000)))
            names += [entry["name"] for entry in json.loads(page.body)]
            after = page.meta["next"]
        assert names == [f"f{n:05}" for n in range(1, 10_001)]
        assert (await sandbox.call(op(Glob("m/*7777")))).body.strip() == b"/workspace/m/f07777"

    play(story)


def test_a_tree_too_deep_for_paths_can_be_archived_past_and_destroyed(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        dig = 'python3 -c \'import os\nfor _ in range(1500): os.mkdir("d" * 50); os.chdir("d" * 50)\'; echo dug'
        assert await says(sandbox, dig) == "dug"
        await backend.destroy(sandbox.ref)
        assert sandbox.ref.slot not in {ref.slot for ref in await backend.list()}

    play(story)


# --- odd commands ----------------------------------------------------------------------------------------------------


def test_a_reader_of_stdin_sees_its_end(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert (await bash(sandbox, "cat; read x; python3 -c 'input()'")).meta["exit_code"] == 1
        assert await says(sandbox, "echo usable") == "usable"

    play(story)


def test_children_that_leave_session_and_parent_die_with_the_timeout(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        daemon = (
            "import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\nos.closerange(0, 64)\n"
            "os.execve('/bin/sleep', ['sleep', '6666'], {})\n"
        )
        await sandbox.call(op(Put("daemon.py"), daemon.encode()))
        escape = "setsid nohup sleep 6666 >/dev/null 2>&1 & python3 daemon.py; trap '' TERM; sleep 6666"
        assert (await bash(sandbox, escape, timeout_ms=1500)).meta["timed_out"] is True
        assert await says(sandbox, "pgrep -c -x sleep") == "0"

    play(story)


def test_killing_everything_leaves_the_runner(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "kill -9 -1", timeout_ms=5000)
        await bash(sandbox, "for s in 1 2 3 9 10 12 13 14 15 19; do kill -$s 1; done", timeout_ms=5000)
        await bash(sandbox, "kill -9 $PPID $$", timeout_ms=5000)
        await restarted(sandbox)
        again = await backend.attach(sandbox.ref, SMALL)
        assert again.incarnation == sandbox.incarnation or not backend.promises.survives_server_restart

    play(story)


def test_output_that_is_no_text_is_delivered_or_described(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        result = await bash(sandbox, "head -c 4096 /dev/urandom; printf '\\000\\377SKF1\\000end\\n'")
        assert result.meta["exit_code"] == 0 and b"end" in result.body
        assert await says(sandbox, "echo usable") == "usable"

    play(story)


def test_the_runner_cannot_be_read_traced_or_written_to(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        for attack in ("ls /proc/1/fd/", "cat /proc/1/environ", "cat /proc/1/mem", "echo SKF1 > /proc/1/fd/1"):
            assert (await bash(sandbox, attack)).meta["exit_code"] != 0, attack
        trace = "import ctypes, sys; sys.exit(0 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) else 9)"
        assert (await bash(sandbox, f"python3 -c '{trace}'")).meta["exit_code"] == 0
        assert await says(sandbox, "echo usable") == "usable"

    play(story)


# --- links -----------------------------------------------------------------------------------------------------------


def test_links_out_of_the_workspace_are_refused_by_the_file_operations(play: Play, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("the host's")

    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, f"ln -s /etc/passwd file; ln -s /etc folder; ln -s {outside} host; ln -s / root")
        for call in (
            op(Fetch("file")),
            op(Fetch("folder/passwd")),
            op(Fetch("host")),
            op(List_("folder")),
            op(List_("root")),
        ):
            assert not (await sandbox.call(call)).ok, call
        for call in (op(Put("folder/x"), b"x"), op(Put("root/tmp/x"), b"x"), op(Put("../x"), b"x")):
            assert not (await sandbox.call(call)).ok, call
        assert "host's" not in str(await sandbox.call(op(Read(str(outside)))))
        await sandbox.call(op(Write(str(outside)), b"changed"))
        await sandbox.call(op(Edit(str(outside), "the", "changed")))
        await sandbox.call(op(Put("host"), b"changed"))
        await backend.destroy(sandbox.ref)
        assert outside.read_text() == "the host's"

    play(story)


def test_a_workspace_replaced_by_links_is_packed_and_destroyed_without_following_them(
    play: Play, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")

    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, f"ln -s {tmp_path}/precious p; ln -s .. up; ln p hard 2>/dev/null; mkfifo pipe; echo x > f")
        size = sum([len(portion) async for portion in backend.pack(sandbox.ref, SMALL)])
        assert 0 < size < 1 << 20
        await backend.destroy(sandbox.ref)
        assert (tmp_path / "precious" / "file").read_text() == "kept"

    play(story)


# --- death -----------------------------------------------------------------------------------------------------------


def test_a_sandbox_that_is_destroyed_in_mid_call_is_gone_for_its_caller(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        started = asyncio.Event()
        call = op(Bash(command="echo started; sleep 7777"))
        running = asyncio.create_task(sandbox.call(call, lambda portion: started.set()))
        await started.wait()
        await backend.destroy(sandbox.ref)
        with pytest.raises(SandboxGone):
            await running
        with pytest.raises(SandboxGone):
            await bash(sandbox, "echo no")

    play(story)


def test_slots_that_are_no_names_are_refused(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        for slot in ("../up", "", "/etc", ".hidden", "a/b", "x" * 300):
            with pytest.raises((SandboxError, ValueError)):
                await backend.create(SMALL, slot)

    play(story)
