"""What every sandbox backend does, through the protocol alone. What a backend does not promise is not asked of it."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.errors import SandboxGone, SandboxUnavailable, SpecRefused, WorkspaceGone
from sandbox.protocol import NetworkPolicy, Sandbox, SandboxBackend, SandboxRef, SandboxSpec
from sandbox.wire import Bash, Edit, Fetch, Glob, Grep, List_, Outputs, Put, Read, Remove, Write
from tests.support.sandboxes import BACKENDS, SMALL, Story, bash, fresh_slot, op, run_on, says

Play = Callable[..., None]


@pytest.fixture(params=BACKENDS)
def play(request: pytest.FixtureRequest) -> Play:
    """Plays a story on a real backend."""

    def on_backend(story: Story, **options: tuple[str, int]) -> None:
        run_on(request.param, story, **options)

    return on_backend


# --- operations ------------------------------------------------------------------------------------------------------


def test_a_command_returns_its_output_and_exit_code_and_the_shell_keeps_its_state(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        first = await bash(sandbox, "cd /tmp; X=5; echo out; echo err >&2; (exit 42)")
        assert first.meta["exit_code"] == 42
        assert b"out" in first.body and b"err" in first.body
        assert await says(sandbox, "echo $PWD $X") == "/tmp 5"
        await sandbox.call(op(Bash(restart=True)))
        assert await says(sandbox, "echo $PWD-$X") == "/workspace-"

    play(story)


def test_every_file_operation_does_its_work_inside(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert (await sandbox.call(op(Write("/workspace/a/f.txt"), b"one\ntwo\n"))).ok
        assert (await sandbox.call(op(Edit("/workspace/a/f.txt", "two", "drei")))).ok
        assert b"drei" in (await sandbox.call(op(Read("/workspace/a/f.txt")))).body
        assert b"f.txt" in (await sandbox.call(op(Glob("**/*.txt")))).body
        assert b"drei" in (await sandbox.call(op(Grep("dr.i")))).body
        assert (await sandbox.call(op(Put("b.bin"), bytes(range(256))))).ok
        assert (await sandbox.call(op(Fetch("b.bin")))).body == bytes(range(256))
        listed = json.loads((await sandbox.call(op(List_()))).body)
        assert {"a", "b.bin"} <= {entry["name"] for entry in listed}
        missing = await sandbox.call(op(Read("/workspace/none")))
        assert not missing.ok and missing.body

    play(story)


def test_an_operation_asked_twice_runs_once(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        call = op(Bash(command="echo ran >> runs; cat runs"))
        first, beside = await asyncio.gather(sandbox.call(call), sandbox.call(call))
        again = await sandbox.call(call)
        assert first.body == beside.body == again.body
        assert await says(sandbox, "wc -l < runs") == "1"

    play(story)


def test_live_output_arrives_before_the_result(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        seen = asyncio.Event()
        call = op(Bash(command="echo early; until [ -e go ]; do read -t 0.05 <> <(:); done; echo late"))
        running = asyncio.create_task(sandbox.call(call, lambda portion: seen.set()))
        await seen.wait()
        assert not running.done()
        await sandbox.call(op(Put("go")))
        assert b"late" in (await running).body

    play(story)


def test_cancel_stops_an_operation_with_everything_it_started(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        started = asyncio.Event()
        call = op(Bash(command="setsid sleep 7777 & echo started; sleep 7777"))
        running = asyncio.create_task(sandbox.call(call, lambda portion: started.set()))
        await started.wait()
        await sandbox.cancel(call.op_id)
        assert (await running).meta["cancelled"] is True
        assert await says(sandbox, "pgrep -c -f '^sleep 7777'") == "0"
        await sandbox.cancel(call.op_id)  # of one that is over: nothing

    play(story)


def test_abandoning_a_call_does_not_stop_the_operation(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        started = asyncio.Event()
        call = op(Bash(command="echo started; until [ -e go ]; do read -t 0.05 <> <(:); done; echo finished"))
        running = asyncio.create_task(sandbox.call(call, lambda portion: started.set()))
        await started.wait()
        running.cancel()
        await asyncio.wait({running})
        await sandbox.call(op(Put("go")))
        assert b"finished" in (await sandbox.call(call)).body

    play(story)


def test_a_command_over_its_time_is_stopped_and_says_so(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        result = await bash(sandbox, "sleep 7777", timeout_ms=300)
        assert result.meta["timed_out"] is True and not result.ok
        assert await says(sandbox, "echo usable") == "usable"

    play(story)


def test_a_background_command_does_not_hold_the_result(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert await says(sandbox, "sleep 7777 & echo at once") != ""

    play(story)


# --- lives -----------------------------------------------------------------------------------------------------------


def test_files_survive_stop_and_attach_and_processes_do_not(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "echo kept > f; X=1")
        await sandbox.stop()
        with pytest.raises(SandboxGone):
            await bash(sandbox, "echo no")
        again = await backend.attach(sandbox.ref, SMALL)
        assert again.incarnation != sandbox.incarnation
        assert await says(again, "cat f; echo $X") == "kept"

    play(story)


def test_a_sandbox_that_was_let_go_can_be_taken_over_again(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        call = op(Bash(command="echo x >> f; X=1; cat f"))
        first = await sandbox.call(call)
        await sandbox.close()
        again = await backend.attach(sandbox.ref, SMALL)
        survived = again.incarnation == sandbox.incarnation
        assert survived or not backend.promises.survives_server_restart
        if survived:
            assert (await again.call(call)).body == first.body
        assert await says(again, "cat f") == "x"

    play(story)


def test_what_an_owner_left_unsettled_is_named_to_the_next_one(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert sandbox.left == {}
        kept, runs, settled = (
            op(Bash(command="true")),
            op(Bash(command="sleep 100"), thread="b"),
            op(List_("/workspace")),
        )
        for call in (kept, settled):
            await sandbox.call(call)
        await sandbox.settle([settled.op_id])
        running = asyncio.create_task(sandbox.call(runs))
        await bash(sandbox, "true")  # behind it in the pipe: it has begun
        await sandbox.close()
        with pytest.raises(SandboxGone):
            await running
        again = await backend.attach(sandbox.ref, SMALL)
        if again.incarnation == sandbox.incarnation:
            assert {kept.op_id: "done", runs.op_id: "running"}.items() <= again.left.items()
            assert settled.op_id not in again.left
            await again.cancel(runs.op_id)
            await again.call(runs)
            await again.settle(list(again.left))
            await again.call(last := op(List_("/workspace")))  # behind it in the pipe
            await again.close()
            again = await backend.attach(sandbox.ref, SMALL)
            assert again.left == {last.op_id: "done"}
        else:
            assert again.left == {}

    play(story)


def test_destroy_removes_everything_and_can_be_repeated(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "mkdir -p d/e && touch d/e/f && chmod 0 d/e")
        assert sandbox.ref.slot in {ref.slot for ref in await backend.list()}
        await backend.destroy(sandbox.ref)
        await backend.destroy(sandbox.ref)
        assert sandbox.ref.slot not in {ref.slot for ref in await backend.list()}
        with pytest.raises(SandboxGone):
            await backend.attach(sandbox.ref, SMALL)
        with pytest.raises(SandboxGone):
            await bash(sandbox, "echo no")

    play(story)


def test_a_sandbox_that_never_was_is_gone(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        with pytest.raises(SandboxGone):
            await backend.attach(SandboxRef(backend.name, fresh_slot()), SMALL)

    play(story)


def test_two_sandboxes_see_nothing_of_each_other(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        one, two = await asyncio.gather(*(backend.create(SMALL, fresh_slot()) for _ in range(2)))
        await bash(one, "echo mine > f; sleep 8888 & echo tmp > /tmp/f")
        assert await says(two, "ls /workspace /tmp; pgrep -c -f '^sleep 8888'") == "/tmp:\n\n/workspace:\n0"
        assert {one.ref, two.ref} <= set(await backend.list()) or len(await backend.list()) >= 2

    play(story)


def test_a_sandbox_that_nobody_is_attached_to_can_be_stopped(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "echo kept > f")
        await sandbox.close()
        await backend.stop(sandbox.ref)
        await backend.stop(sandbox.ref)
        again = await backend.attach(sandbox.ref, SMALL)
        assert again.incarnation != sandbox.incarnation
        assert await says(again, "cat f") == "kept"
        await backend.stop(SandboxRef(backend.name, fresh_slot()))

    play(story)


TREE = r"""
mkdir -p deep/er/empty 'sp ace' closed $'\xff\xfe'; echo one > deep/f; ln deep/f hard; ln -s /etc/passwd deep/link
echo bytes > $'\xff\xfe/\xc3\x28'; echo umlaut > $'\xc3\xa4'; echo run > tool; chmod 4750 tool; mkfifo fifo
echo in > closed/in; ln closed/in after; echo none > unreadable; chmod 0 unreadable closed
truncate -s 40M sparse; printf middle | dd of=sparse bs=1 seek=20000000 conv=notrunc 2>/dev/null; truncate -s 9M hole
for i in $(seq 60); do mkdir $(printf 'n%.0s' {1..99}) && cd n*; done; echo down > down; cd /workspace
head -c 3000000 /dev/urandom > random; echo handed > /mnt/session/outputs/out
touch -d @1000000001.5 tool deep; chmod 711 .
"""
LOOK = r"""
chmod 700 closed; chmod 600 unreadable
find . -path './.*' -prune -o -printf '%P %y %m %U %G %s %n %T@ %l\n' | LC_ALL=C sort > /tmp/seen
grep -av '^closed \|^unreadable \|nnn' /tmp/seen; grep -a nnn /tmp/seen | sha256sum
cat deep/f $'\xff\xfe/\xc3\x28' $'\xc3\xa4' tool closed/in unreadable /mnt/session/outputs/out
[ deep/f -ef hard ] && [ closed/in -ef after ] && echo linked; sha256sum random sparse hole
for i in $(seq 60); do cd n*; done; cat down; cd /workspace
"""


def test_what_was_packed_is_unpacked_as_it_was(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert (await bash(sandbox, TREE)).meta["exit_code"] == 0
        modes = await says(sandbox, "stat -c '%n %a' . closed unreadable")
        await _place(sandbox, "given", b"not the agent's")
        packed = [portion async for portion in backend.pack(sandbox.ref, SMALL)]
        assert max(map(len, packed)) <= 2 << 20 < sum(map(len, packed)) < 4 << 20
        before = await backend.attach(sandbox.ref, SMALL)
        assert await says(before, "stat -c '%n %a' . closed unreadable") == modes, "packing changes nothing"
        seen = await says(before, LOOK)
        await backend.destroy(sandbox.ref)
        await backend.unpack(sandbox.ref, SMALL, _each(packed))
        again = await backend.attach(sandbox.ref, SMALL)
        assert await says(again, "stat -c '%n %a' . closed unreadable") == modes
        assert (await says(again, LOOK)).splitlines() == seen.splitlines()
        assert int(await says(again, "du -ck sparse hole | tail -1 | cut -f1")) < 1000
        assert await says(again, "ls /mnt/session /mnt/session/uploads; id -u") == (
            "/mnt/session:\noutputs\nuploads\n\n/mnt/session/uploads:\n1000"
        )
        with tarfile.open(fileobj=io.BytesIO(b"".join(packed))) as archive:
            assert {"workspace/deep/f", "outputs/out"} <= set(archive.getnames())

    play(story)


async def _each(portions: Iterable[bytes]) -> AsyncIterator[bytes]:
    for portion in portions:
        yield portion


def test_half_an_archive_or_another_file_is_refused_and_leaves_nothing(play: Play) -> None:
    def tar(name: str) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        return packed.getvalue()

    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "echo kept > f; head -c 300000 /dev/urandom > random")
        packed = b"".join([portion async for portion in backend.pack(sandbox.ref, SMALL)])
        slot = replace(sandbox.ref, slot=fresh_slot())
        for bad in (packed[:-9], packed[:200_000], b"", b"no archive", tar("workspace/../../tmp/x"), tar("/etc/x")):
            with pytest.raises(SandboxUnavailable):
                await backend.unpack(slot, SMALL, _each([bad]))
            assert slot.slot not in {ref.slot for ref in await backend.list()}
        with pytest.raises(WorkspaceGone):
            await anext(backend.pack(slot, SMALL))
        again = await backend.attach(sandbox.ref, SMALL)
        assert await says(again, "cat f") == "kept"

    play(story)


def test_packing_that_is_broken_off_changes_nothing(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "head -c 30000000 /dev/urandom > random; chmod 0 random")
        packing = backend.pack(sandbox.ref, SMALL)
        assert await anext(packing)
        await packing.aclose()
        assert [ref.slot for ref in await backend.list()] == [sandbox.ref.slot]
        again = await backend.attach(sandbox.ref, SMALL)
        assert await says(again, "stat -c '%a %s' random") == "0 30000000"

    play(story)


def test_a_paused_sandbox_goes_on_with_the_next_call(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(sandbox, "X=1")
        await sandbox.pause()
        assert await says(sandbox, "echo $X") == "1"

    play(story)


# --- files given and handed out --------------------------------------------------------------------------------------


async def _portions(content: bytes) -> AsyncIterator[bytes]:
    size = max(1000, len(content) // 10)
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _place(sandbox: Sandbox, path: str, content: bytes) -> None:
    await sandbox.place(path, len(content), _portions(content))


def test_a_file_that_was_placed_is_there_whole_and_the_agent_can_only_read_it(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await _place(sandbox, "data/in put.bin", bytes(range(256)) * 40)
        await _place(sandbox, "empty", b"")
        there = "/mnt/session/uploads"
        assert await says(sandbox, f"wc -c < '{there}/data/in put.bin'; wc -c < {there}/empty") == "10240\n0"
        for attempt in (
            f"echo x >> '{there}/data/in put.bin'",
            f"rm -f '{there}/data/in put.bin'",
            f"mv {there}/data {there}/moved",
            f"mv {there} /mnt/session/moved",
            f"chmod u+w {there}/empty",
            f"touch {there}/new",
            "rmdir /mnt/session/outputs",
            "mv /mnt/session/outputs /mnt/session/other",
            "touch /mnt/session/new",
        ):
            assert (await bash(sandbox, attempt)).meta["exit_code"] != 0, attempt
        assert await says(sandbox, f"ls {there} {there}/data") == f"{there}:\ndata\nempty\n\n{there}/data:\nin put.bin"

    play(story)


def test_what_was_placed_survives_stop_and_start_and_more_can_come_and_go(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await _place(sandbox, "a", b"first")
        await bash(sandbox, "echo out > /mnt/session/outputs/kept")
        await sandbox.stop()
        again = await backend.attach(sandbox.ref, SMALL)
        assert await says(again, "cat /mnt/session/uploads/a /mnt/session/outputs/kept") == "firstout"
        await _place(again, "a", b"second")
        await _place(again, "b/c", b"late")
        assert await says(again, "cat /mnt/session/uploads/a /mnt/session/uploads/b/c") == "secondlate"
        await again.unplace("a")
        await again.unplace("a")
        assert await says(again, "ls /mnt/session/uploads") == "b"

    play(story)


def test_a_file_that_comes_shorter_than_it_said_is_refused(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        with pytest.raises(SandboxUnavailable):
            await sandbox.place("short", 10, _portions(b"12345"))
        assert await says(sandbox, "echo usable") == "usable"

    play(story)


def test_outputs_are_listed_fetched_and_deleted_by_the_host(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert (await sandbox.call(op(Outputs()))).body == b"[]"
        await bash(sandbox, "cd /mnt/session/outputs && mkdir -p a/b && echo one > a/b/f && printf two > g")
        listed = json.loads((await sandbox.call(op(Outputs()))).body)
        assert [(entry["path"], entry["size"]) for entry in listed] == [("a/b/f", 4), ("g", 3)]
        assert (await sandbox.call(op(Fetch("/mnt/session/outputs/a/b/f", 1, 2)))).body == b"ne"
        assert (await sandbox.call(op(Remove("a/b/f")))).ok and (await sandbox.call(op(Remove("a/b/f")))).ok
        assert not (await sandbox.call(op(Remove("a/b")))).ok
        assert await says(sandbox, "find /mnt/session/outputs -type f") == "/mnt/session/outputs/g"

    play(story)


def test_links_among_the_outputs_lead_the_host_nowhere(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await bash(
            sandbox, "cd /mnt/session/outputs && ln -s /etc e && ln -s /etc/passwd p && ln -s ../../.. up && touch f"
        )
        await bash(sandbox, "mkfifo /mnt/session/outputs/fifo")
        listed = json.loads((await sandbox.call(op(Outputs()))).body)
        assert [entry["path"] for entry in listed] == ["f"]
        for path in ("e/passwd", "p", "up/etc/passwd", "../uploads/x", "../../../etc/passwd", "fifo"):
            assert not (await sandbox.call(op(Fetch(f"/mnt/session/outputs/{path}")))).ok, path
        for path in ("e/passwd", "../uploads/x", "/etc/passwd", "..", ""):
            assert not (await sandbox.call(op(Remove(path)))).ok, path
        assert (await sandbox.call(op(Remove("p")))).ok and await says(sandbox, "head -c 4 /etc/passwd") == "root"

    play(story)


def test_outputs_count_towards_the_disk_bound_and_what_was_placed_does_not(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        await _place(sandbox, "big", bytes(70 << 20))
        assert "disk_exceeded" not in (await bash(sandbox, "sleep 1.1; wc -c < /mnt/session/uploads/big")).meta
        fill = "i=0; while head -c 4M /dev/zero > /mnt/session/outputs/$i; do i=$((i+1)); read -t 0.3 <> <(:); done"
        assert (await bash(sandbox, fill, timeout_ms=25_000)).meta.get("disk_exceeded") is True

    play(story)


# --- the walls -------------------------------------------------------------------------------------------------------


def test_an_image_is_used_or_refused_by_name(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        if backend.promises.own_image:
            return
        with pytest.raises(SpecRefused, match="python:3"):
            await backend.create(replace(SMALL, image="python:3"), fresh_slot())

    play(story)


def test_nothing_of_the_server_is_visible_inside(play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-visible")
    (tmp_path / "secret").write_text("sk-visible")

    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert "sk-visible" not in await says(sandbox, f"env; cat /proc/*/environ; cat {tmp_path}/secret")
        assert await says(sandbox, f"ls -d {tmp_path} 2>/dev/null") == ""

    play(story)


def test_inside_there_is_no_root_no_capability_and_a_filter(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert await says(sandbox, "id -u") == "1000"
        status = await says(sandbox, "cat /proc/self/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert all(int(fields[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
        assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
        assert (await bash(sandbox, "unshare -U true")).meta["exit_code"] != 0

    play(story)


def test_only_the_workspace_and_tmp_can_be_written(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        for place in ("/x", "/usr/x", "/etc/x", "/opt/skiff/x", "/opt/skiff/sandbox/wire.py"):
            assert (await bash(sandbox, f"echo x >> {place}")).meta["exit_code"] != 0, place
        for place in ("/workspace/x", "/tmp/x", "/mnt/session/outputs/x"):
            assert (await bash(sandbox, f"echo x >> {place}")).meta["exit_code"] == 0, place

    play(story)


def test_without_a_policy_there_is_no_network_but_loopback(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        sandbox = await backend.create(SMALL, fresh_slot())
        assert await says(sandbox, "ls /sys/class/net 2>/dev/null || tail -n +3 /proc/net/dev | cut -d: -f1") == "lo"
        connect = "import socket; socket.create_connection(('1.1.1.1', 53), 5)"
        assert (await bash(sandbox, f'python3 -c "{connect}"')).meta["exit_code"] != 0

    play(story)


def test_a_limited_network_reaches_the_allowed_host_and_no_other(play: Play) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached")
        await writer.drain()
        writer.close()

    async def story(backend: SandboxBackend) -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", address[1]):
            spec = replace(SMALL, network=NetworkPolicy("limited", ("allowed.example",)))
            sandbox = await backend.create(spec, fresh_slot())
            fetch = "python3 -c \"import urllib.request as u; print(u.urlopen('http://{}/').read())\" 2>&1 | tail -1"
            assert "reached" in await says(sandbox, fetch.format("allowed.example"))
            assert "403" in await says(sandbox, fetch.format("other.example"))
            direct = f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {address[1]}), 5)\""
            assert (await bash(sandbox, direct)).meta["exit_code"] != 0

    address = ("127.0.0.1", _free_port())
    play(story, address=address)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_memory_is_bounded_where_promised_and_the_sandbox_lives_on(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        if not backend.promises.memory_limit:
            pytest.skip(f"{backend.name} does not promise a memory bound here")
        sandbox = await backend.create(SMALL, fresh_slot())
        hog = await bash(sandbox, "python3 -c 'x = bytearray(600 << 20); print(len(x))'")
        assert hog.meta.get("exit_code") != 0
        assert await says(sandbox, "echo usable") == "usable"

    play(story)


def test_processes_are_bounded_where_promised(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        if not backend.promises.pids_limit:
            pytest.skip(f"{backend.name} does not promise a bound on processes here")
        sandbox = await backend.create(SMALL, fresh_slot())
        script = (
            b"import subprocess\nkids = []\ntry:\n"
            b"    for _ in range(200): kids.append(subprocess.Popen(['sleep', '60']))\n"
            b"except OSError as error: print(type(error).__name__, len(kids) < 64)\nfor kid in kids: kid.kill()\n"
        )
        await sandbox.call(op(Put("many.py"), script))
        assert await says(sandbox, "python3 many.py") == "BlockingIOError True"
        assert await says(sandbox, "echo usable") == "usable"

    play(story)


def test_backends_say_what_they_do_not_promise(play: Play) -> None:
    async def story(backend: SandboxBackend) -> None:
        await backend.check()
        assert backend.promises.notes
        assert SandboxSpec().network.mode == "none"

    play(story)
