"""The Docker backend against the real engine: hardening in effect, lives and deaths, ownership, the pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from sandbox import channel, wire
from sandbox.docker import container
from sandbox.docker.engine import Engine
from sandbox.docker.idle import IdleSettings, should_pause
from sandbox.egress.mux import MuxStream, Serve
from sandbox.errors import ImageMissing, SandboxGone, SandboxUnavailable, SpecRefused
from sandbox.protocol import NetworkPolicy
from sandbox.wire import Bash, Call
from tests.sandbox.docker_engine import SPEC, backend, bash, bash_in, require_engine, run

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True, scope="module")
def engine() -> None:
    require_engine()


def test_a_command_runs_as_the_agent_in_an_empty_workspace() -> None:
    async def story() -> None:
        async with backend() as docker:
            sandbox = await docker.create(SPEC, "one")
            assert (await bash(sandbox, "id -u; pwd; ls")).body == b"1000\n/workspace\n"

    run(story)


def test_every_hardening_is_in_effect_inside() -> None:
    probe = """
    grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t' ' '
    touch /etc/x 2>&1 | grep -o 'Read-only file system'
    ls /sys/class/net
    ulimit -c
    printf '#!/bin/sh\\necho executable' > /tmp/x; chmod +x /tmp/x; /tmp/x
    for s in 9 15 2 1 19; do kill -$s 1 2>/dev/null; done
    cat /proc/1/environ 2>/dev/null || echo hidden
    env | grep -ciE 'key|secret|token|proxy'
    """

    async def story() -> None:
        async with backend() as docker:
            lines = (await bash(await docker.create(SPEC, "one"), probe)).body.decode().split("\n")
        assert lines[:2] == ["CapEff: 0000000000000000", "CapBnd: 0000000000000000"]
        assert lines[2:10] == [
            "NoNewPrivs: 1", "Seccomp: 2", "Read-only file system", "lo", "0", "executable", "hidden", "0",
        ]  # fmt: skip

    run(story)


def test_a_memory_hog_dies_and_the_sandbox_lives() -> None:
    async def story() -> None:
        async with backend() as docker:
            sandbox = await docker.create(SPEC, "one")
            hog = await bash(sandbox, "python3 -c 'x = bytearray(400 << 20)'")
            assert hog.meta["exit_code"] == 137
            assert (await bash(sandbox, "echo alive")).body == b"alive\n"

    run(story)


def test_closing_and_attaching_again_finds_the_same_life_and_the_running_operation() -> None:
    async def story() -> None:
        async with backend() as docker:
            first = await docker.create(SPEC, "one")
            await bash(first, "mkfifo gate; x=kept")
            call = Call("slow", waiting := Bash("read line < gate; echo $line $x"))
            running = asyncio.ensure_future(first.call(call))
            await bash_in(first, "side", "until pgrep -f runner > /dev/null; do :; done")
            await first.close()
            with pytest.raises(SandboxGone):
                await running
            second = await docker.attach(first.ref, SPEC)
            assert second.incarnation == first.incarnation
            again = asyncio.ensure_future(second.call(Call("slow", waiting)))
            await bash_in(second, "side", "echo through > gate")
            assert (await again).body == b"through kept\n"

    run(story)


def test_a_second_process_takes_over_what_the_first_left_running() -> None:
    async def story() -> None:
        async with backend() as docker:
            first = await docker.create(SPEC, "one")
            await bash(first, "x=kept")
            async with type(docker)(docker.installation, default=SPEC) as other:
                second = await other.attach(first.ref, SPEC)
                assert second.incarnation == first.incarnation
                assert (await bash(second, "echo $x")).body == b"kept\n"

    run(story)


def test_a_clock_that_was_set_back_does_not_cost_a_sandbox_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with backend() as docker:
            first = await docker.create(SPEC, "one")
            await bash(first, "x=kept")
            await first.close()
            yesterday = time.time_ns() - 86_400 * 10**9
            monkeypatch.setattr(channel, "time", SimpleNamespace(time_ns=lambda: yesterday))
            second = await docker.attach(first.ref, SPEC)
            assert second.incarnation == first.incarnation
            assert (await bash(second, "echo $x")).body == b"kept\n"
            third = await docker.attach(first.ref, SPEC)
            assert third.incarnation == first.incarnation
            assert (await bash(third, "echo $x")).body == b"kept\n"

    run(story)


def test_a_runner_that_does_not_answer_is_killed_and_started_anew() -> None:
    async def story() -> None:
        async with backend() as docker:
            first = await docker.create(SPEC, "one")
            await bash(first, "echo kept > file")
            engine = Engine()
            await engine.call("freeze it", lambda client: client.kill(first.ref.container, "SIGSTOP"))
            await engine.close()
            second = await docker.attach(first.ref, SPEC)
            assert second.incarnation != first.incarnation
            assert (await bash(second, "cat file")).body == b"kept\n"

    run(story)


def test_a_creation_that_is_cancelled_leaves_nothing_behind() -> None:
    async def story() -> None:
        async with backend() as docker:
            making = asyncio.ensure_future(docker.create(SPEC, "one"))
            while not await docker.list():
                assert not making.done()
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making
            assert await docker.list() == []

    run(story)


def test_a_stopped_sandbox_keeps_its_files_and_begins_a_new_life() -> None:
    async def story() -> None:
        async with backend() as docker:
            first = await docker.create(SPEC, "one")
            await bash(first, "echo kept > file")
            await first.stop()
            second = await docker.attach(first.ref, SPEC)
            assert second.incarnation != first.incarnation
            assert (await bash(second, "cat file")).body == b"kept\n"

    run(story)


def test_a_lost_container_is_made_anew_around_its_workspace() -> None:
    async def story() -> None:
        async with backend() as docker:
            first = await docker.create(SPEC, "one")
            await bash(first, "echo kept > file")
            engine = Engine()
            await engine.call("remove", lambda client: client.remove_container(first.ref.container, force=True))
            with pytest.raises(SandboxGone):
                await bash(first, "true")
            second = await docker.attach(first.ref, SPEC)
            assert second.ref.container != first.ref.container
            assert (await bash(second, "cat file")).body == b"kept\n"
            await engine.close()

    run(story)


def test_a_destroyed_sandbox_is_gone_and_destroying_it_again_is_nothing() -> None:
    async def story() -> None:
        async with backend() as docker:
            sandbox = await docker.create(SPEC, "one")
            await docker.destroy(sandbox.ref)
            await docker.destroy(sandbox.ref)
            assert await docker.list() == []
            with pytest.raises(SandboxGone, match="no longer exist"):
                await docker.attach(sandbox.ref, SPEC)

    run(story)


def test_a_frozen_sandbox_thaws_at_the_next_call() -> None:
    async def story() -> None:
        async with backend() as docker:
            sandbox = await docker.create(SPEC, "one")
            await sandbox.pause()
            engine = Engine()
            found = await engine.call("look", lambda client: client.inspect_container(sandbox.ref.container))
            assert found["State"]["Paused"]
            await engine.close()
            assert (await bash(sandbox, "echo thawed")).body == b"thawed\n"

    run(story)


def test_a_command_that_fills_the_disk_is_stopped_and_told_why() -> None:
    async def story() -> None:
        async with backend() as docker:
            sandbox = await docker.create(SPEC, "one")
            filler = "i=0; while :; do head -c 8M /dev/zero > big$i; i=$((i+1)); sleep 0.2; done"
            result = await bash(sandbox, filler)
            assert not result.ok
            assert result.meta["disk_exceeded"]
            assert "its bound is 64 MB" in result.meta["notes"][-1]
            assert (await bash(sandbox, "rm big*; echo freed")).body == b"freed\n"

    run(story)


def test_the_pool_hands_out_a_ready_sandbox_once_and_fills_up_again() -> None:
    async def story() -> None:
        async with backend(pool_size=1) as docker:
            await docker.pool_filled()
            first = await docker.create(SPEC, "one")
            assert first.ref.slot.startswith("pool-")
            assert (await bash(first, "ls; echo ready")).body == b"ready\n"
            await docker.pool_filled()
            second = await docker.create(SPEC, "two")
            assert second.ref.slot not in (first.ref.slot, "two")
            other = await docker.create(replace(SPEC, memory_mb=128), "three")
            assert other.ref.slot == "three"

    run(story)


def test_collection_removes_what_nobody_knows_and_nothing_of_others() -> None:
    async def story() -> None:
        async with backend() as docker, backend() as other:
            known = await docker.create(SPEC, "known")
            await known.close()
            forgotten = await docker.create(SPEC, "forgotten")
            await forgotten.close()
            theirs = await other.create(SPEC, "theirs")
            assert await docker.reap({"known"}) == ["forgotten"]
            assert [ref.slot for ref in await docker.list()] == ["known"]
            assert [ref.slot for ref in await other.list()] == [theirs.ref.slot]

    run(story)


def test_leaving_removes_the_pool_and_keeps_the_sandboxes() -> None:
    async def story() -> None:
        async with backend() as docker:
            async with type(docker)(docker.installation, default=SPEC, pool_size=1) as pooled:
                await pooled.create(replace(SPEC, pids=64), "kept")
                await pooled.pool_filled()
            assert [ref.slot for ref in await docker.list()] == ["kept"]

    run(story)


def test_an_idle_sandbox_is_frozen_unless_its_background_works() -> None:
    settings = IdleSettings(pause_after=60, background_for=600, busy_share=0.02)
    assert not should_pause(59, 0.0, settings)
    assert should_pause(61, 0.0, settings)
    assert not should_pause(61, 0.9, settings)
    assert should_pause(661, 0.9, settings)
    assert not should_pause(1e6, 0.0, IdleSettings(pause_after=0))


def test_an_opened_network_goes_through_the_servers_proxy_and_nowhere_else() -> None:
    def net_serve(policy: NetworkPolicy) -> Serve:
        async def serve(stream: MuxStream) -> None:
            await stream.read()
            body = f"for {policy.allowed_hosts[0]}"
            await stream.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

        return serve

    async def story() -> None:
        async with backend(net_serve=net_serve) as docker:
            spec = replace(SPEC, network=NetworkPolicy("limited", ("example.org",)))
            sandbox = await docker.create(spec, "one")
            assert (await bash(sandbox, "curl -s http://example.org/")).body == b"for example.org"
            assert (await bash(sandbox, "ls /sys/class/net")).body == b"lo\n"
            assert (await bash(sandbox, "curl -s --noproxy '*' http://192.0.2.1/")).meta["exit_code"] == 7
            again = await docker.attach(sandbox.ref, spec)
            assert (await bash(again, "curl -s http://example.org/")).body == b"for example.org"

    run(story)


def test_what_cannot_be_promised_is_refused_by_name() -> None:
    async def story() -> None:
        async with backend() as docker:
            with pytest.raises(SpecRefused, match="egress proxy"):
                await docker.create(replace(SPEC, network=NetworkPolicy("unrestricted")), "one")
            with pytest.raises(ImageMissing, match="no/such"):
                await docker.create(replace(SPEC, image="no/such:image"), "one")
            with pytest.raises(SpecRefused, match="CPUs"):
                await docker.create(replace(SPEC, cpus=10_000), "one")
            assert await docker.list() == []

    run(story)


# --- freezing, thawing and stopping when something goes wrong --------------------------------------------------------

T = TypeVar("T")


class TroubledEngine(Engine):
    """The real engine, which refuses the chosen actions a number of times, and tells when an action begins or is done.

    Its own requests (`Engine.call(engine, ...)`) are never refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusals: dict[str, int] = {}
        self.begun: dict[str, asyncio.Event] = {}
        self.done: dict[str, asyncio.Event] = {}

    async def call(self, action: str, work: Callable[[Any], T]) -> T:
        self.begun.setdefault(action, asyncio.Event()).set()
        if self.refusals.get(action):
            self.refusals[action] -= 1
            raise SandboxUnavailable(f"refused to {action}")
        result = await super().call(action, work)
        self.done.setdefault(action, asyncio.Event()).set()
        return result

    async def wait(self, events: dict[str, asyncio.Event], action: str) -> None:
        await events.setdefault(action, asyncio.Event()).wait()

    async def aside(self, verb: str, container: str) -> Any:
        """Ask the engine directly, as another user of it would."""
        return await Engine.call(self, verb, lambda client: getattr(client, verb)(container))


async def seen_frozen(engine: TroubledEngine, container: str) -> None:
    """Returns when the engine says so: its view comes milliseconds after the fact."""
    while not (await engine.aside("inspect_container", container))["State"]["Paused"]:
        pass


def test_a_call_that_is_cancelled_while_thawing_leaves_the_sandbox_usable() -> None:
    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            await sandbox.pause()
            first = asyncio.ensure_future(bash(sandbox, "echo first"))
            await engine.wait(engine.begun, "resume the sandbox")
            await asyncio.sleep(0.004)  # into the middle of the request
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert (await bash(sandbox, "echo second")).body == b"second\n"
            await sandbox.pause()
            await seen_frozen(engine, sandbox.ref.container)
            assert (await bash(sandbox, "echo third")).body == b"third\n"

    run(story)


def test_a_pause_that_is_cancelled_leaves_the_sandbox_usable() -> None:
    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            pausing = asyncio.ensure_future(sandbox.pause())
            await engine.wait(engine.begun, "pause the sandbox")
            pausing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pausing
            assert (await bash(sandbox, "echo usable")).body == b"usable\n"

    run(story)


def test_attaching_after_a_cancelled_thaw_finds_the_same_life() -> None:
    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            await sandbox.pause()
            thawing = asyncio.ensure_future(bash(sandbox, "true"))
            await engine.wait(engine.begun, "resume the sandbox")
            thawing.cancel()
            again = await docker.attach(sandbox.ref, SPEC)
            assert again.incarnation == sandbox.incarnation
            assert (await bash(again, "echo usable")).body == b"usable\n"

    run(story)


def test_a_switch_that_somebody_else_has_done_already_counts_as_done() -> None:
    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            await sandbox.pause()
            await engine.aside("unpause", sandbox.ref.container)
            assert (await bash(sandbox, "echo thawed")).body == b"thawed\n"
            await engine.aside("pause", sandbox.ref.container)
            await sandbox.pause()
            assert (await bash(sandbox, "echo again")).body == b"again\n"

    run(story)


def test_a_thaw_that_the_engine_refuses_is_tried_again_at_the_next_call() -> None:
    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            await sandbox.pause()
            engine.refusals = {"resume the sandbox": 2}
            with pytest.raises(SandboxUnavailable, match="refused to resume"):
                await bash(sandbox, "true")
            assert (await bash(sandbox, "echo thawed")).body == b"thawed\n"

    run(story)


@pytest.mark.parametrize("also", [(), ("look at the sandbox",)], ids=["state known", "state unknown"])
def test_a_failed_pause_leaves_the_sandbox_usable(also: tuple[str, ...]) -> None:
    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            engine.refusals = {"pause the sandbox": 2, **dict.fromkeys(also, 1)}
            with pytest.raises(SandboxUnavailable, match="refused to"):
                await sandbox.pause()
            assert (await bash(sandbox, "echo usable")).body == b"usable\n"
            engine.refusals = {}
            await sandbox.pause()
            await seen_frozen(engine, sandbox.ref.container)

    run(story)


def test_the_silence_of_a_runner_is_noticed_after_a_failed_pause_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            monkeypatch.setattr(wire, "SILENCE_SECONDS", 1.0)
            engine.refusals = {"pause the sandbox": 2}
            with pytest.raises(SandboxUnavailable):
                await sandbox.pause()
            await engine.aside("pause", sandbox.ref.container)
            with pytest.raises(SandboxGone, match="silent"):
                await bash(sandbox, "true")

    run(story)


def test_a_stop_that_the_engine_refuses_leaves_the_sandbox_attached_and_can_be_repeated() -> None:
    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            engine.refusals = {"stop the sandbox": 1}
            with pytest.raises(SandboxUnavailable, match="refused to stop"):
                await sandbox.stop()
            assert sandbox.alive
            assert (await bash(sandbox, "echo attached")).body == b"attached\n"
            again = await docker.attach(sandbox.ref, SPEC)
            assert again.incarnation == sandbox.incarnation
            await again.stop()
            assert not again.alive
            assert not (await engine.aside("inspect_container", again.ref.container))["State"]["Running"]

    run(story)


def test_a_frozen_sandbox_can_be_stopped() -> None:
    async def story() -> None:
        async with backend() as docker:
            sandbox = await docker.create(SPEC, "one")
            await sandbox.pause()
            await sandbox.stop()
            with pytest.raises(SandboxGone):
                await bash(sandbox, "true")
            again = await docker.attach(sandbox.ref, SPEC)
            assert again.incarnation != sandbox.incarnation

    run(story)


def test_idleness_is_watched_on_after_the_engine_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "WATCH_SECONDS", 0.05)

    async def story() -> None:
        engine = TroubledEngine()
        engine.refusals = {"read the sandbox's processor use": 2, "pause the sandbox": 2}
        async with backend(engine=engine, idle=IdleSettings(pause_after=0.05, background_for=0)) as docker:
            sandbox = await docker.create(SPEC, "one")
            await engine.wait(engine.done, "pause the sandbox")
            await seen_frozen(engine, sandbox.ref.container)

    run(story)


def test_the_watch_of_idleness_ends_with_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "WATCH_SECONDS", 0.05)

    async def story() -> None:
        engine = TroubledEngine()
        async with backend(engine=engine) as docker:
            sandbox = await docker.create(SPEC, "one")
            await engine.aside("kill", sandbox.ref.container)
            await sandbox.watch_idle(IdleSettings(pause_after=0.05))

    run(story)
