"""Processes that die, leave or share a data folder: no turn is lost, no command runs twice."""

from __future__ import annotations

import pytest

from tests.support.program import Host, Machine, ToolFailed, play
from tests.support.sandboxes import require
from tests.support.scenario import bash, call, containers, docker, eventually, script

COUNTED = "echo line >> counter; until [ -e on ]; do sleep 0.05; done; echo finished with $(wc -l < counter)"
"""Leaves a line for each time it runs, and waits to be told to go on."""


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker)])
def engine(request: pytest.FixtureRequest) -> str:
    """What outlives a server is a container's alone."""
    require(request.param)
    return str(request.param)


async def _at_work(host: Host) -> str:
    """A session whose command runs and waits for the file `on`."""
    task = script(call(bash(COUNTED)), {"say": "$RESULT"})
    session = str((await host.call("create_session", task=task, wait_seconds=0))["session_id"])
    await host.appears(session, "counter")
    return session


async def _let_go(host: Host, session: str) -> dict[str, object]:
    await host.call("write_workspace", session_id=session, path="on", content="")
    return await host.finish(session)


def test_a_command_outlives_a_killed_server_and_is_answered_with_its_real_result(engine: str) -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as host:
            session = await _at_work(host)
            host.kill()
        async with machine.host() as host:
            found = await _let_go(host, session)
            assert found["reply"] == "finished with 1\n"
            assert await host.text(session, "counter") == "line\n"
            assert len(await host.events(session, "agent.tool_use", "agent.tool_result")) == 2
            assert len(machine.api.requests) == 2
            await host.call("delete_session", session_id=session)
            assert containers(machine.folder) == []

    play(engine, story)


def test_a_result_that_came_while_no_server_was_there_is_fetched(engine: str) -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as host:
            task = script(call(bash("echo line >> counter; sleep 1; echo over; touch over")), {"say": "$RESULT"})
            session = (await host.call("create_session", task=task, wait_seconds=0))["session_id"]
            await host.appears(session, "counter")
            host.kill()
        (container,) = containers(machine.folder)

        async def over() -> bool:
            return "over" in docker("exec", container, "ls", "/workspace").split()

        await eventually(over)
        async with machine.host() as host:
            assert (await host.finish(session))["reply"] == "over\n"
            assert await host.text(session, "counter") == "line\n"
            await host.call("delete_session", session_id=session)

    play(engine, story)


def test_a_call_whose_sandbox_died_with_the_server_is_answered_in_words_and_never_run_again() -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as host:
            task = script(call(bash(COUNTED)), call(bash("cat counter")), {"say": "$RESULT"})
            session = (await host.call("create_session", task=task, wait_seconds=0))["session_id"]
            await host.appears(session, "counter")
            host.kill()
        async with machine.host() as host:
            assert (await host.finish(session))["reply"].endswith("line\n")
            first, _ = await host.events(session, "agent.tool_result")
            assert "may or may not have taken effect" in str(first["content"])
            assert await host.text(session, "counter") == "line\n"
            await host.call("delete_session", session_id=session)

    require("local")
    play("local", story)


def test_a_model_request_that_died_with_the_server_is_made_again() -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as host:
            task = script({"say": "The whole answer, at last.", "stream": 1.5})
            session = (await host.call("create_session", task=task, wait_seconds=0))["session_id"]
            await machine.asked(lambda api: len(api.requests) == 1)
            host.kill()
        await machine.asked(lambda api: api.requests[0].aborted)
        async with machine.host() as host:
            found = await host.finish(session)
            assert (found["reply"], found["turns"]) == ("The whole answer, at last.", 1)
            assert len(machine.api.requests) == 2
            assert machine.api.bodies[0] == machine.api.bodies[1]
            assert len(await host.events(session, "agent.message")) == 1
            await host.call("delete_session", session_id=session)

    require("local")
    play("local", story)


def test_a_host_that_closes_its_server_finds_the_turn_finished_by_a_successor(engine: str) -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as host:
            task = script(
                call(bash("echo line >> counter; sleep 2; echo slept")), call(bash("cat counter")), {"say": "$RESULT"}
            )
            session = (await host.call("create_session", task=task, wait_seconds=0))["session_id"]
            await host.appears(session, "counter")
            first = host.pid
        assert first not in machine.processes()
        assert machine.processes(), "nobody took over"
        await machine.quiet()
        assert len(machine.api.requests) == 3
        async with machine.host() as host:
            found = await host.call("get_session", session_id=session)
            assert (found["status"], found["reply"], found["turns"]) == ("idle", "line\n", 1)
            assert "slept" in str((await host.events(session, "agent.tool_result"))[0]["content"])
            await host.call("delete_session", session_id=session)

    play(engine, story)


def test_a_terminated_server_hands_its_turn_over_as_well(engine: str) -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as host:
            session = await _at_work(host)
            host.terminate()

            async def successor() -> bool:
                return host.pid not in machine.processes() and bool(machine.processes())

            await eventually(successor)
        async with machine.host() as host:
            assert (await _let_go(host, session))["reply"] == "finished with 1\n"
            await host.call("delete_session", session_id=session)

    play(engine, story)


def test_two_hosts_on_one_data_folder_work_with_the_same_sessions(engine: str) -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as first:
            session = await _at_work(first)
            async with machine.host("legacy") as second:
                listed = await second.call("list_sessions")
                assert [item["session_id"] for item in listed["sessions"]] == [session]
                assert await second.text(session, "counter") == "line\n"
                assert (await _let_go(second, session))["reply"] == "finished with 1\n"
                assert (await first.finish(session))["reply"] == "finished with 1\n"

                told = await second.call("send_message", session_id=session, message=script({"say": "From the door."}))
                assert told["reply"] == "From the door."
                made = await second.call(
                    "create_session", task=script(call(bash("echo by the second > mine")), {"say": "Made."})
                )
                assert await first.text(made["session_id"], "mine") == "by the second\n"
                await first.call("delete_session", session_id=made["session_id"])

                await second.call(
                    "send_message", session_id=session, message=script(call(bash("sleep 1000"))), wait_seconds=0
                )
                stopped = await second.call("interrupt", session_id=session)
                assert (stopped["status"], stopped["turns"]) == ("idle", 3)
                await second.call("delete_session", session_id=session)
                assert (await first.call("list_sessions"))["sessions"] == []

    play(engine, story)


def test_a_door_takes_over_when_the_engine_is_killed_and_the_turn_ends(engine: str) -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as first:
            session = await _at_work(first)
            async with machine.host() as second:
                assert (await second.call("get_session", session_id=session))["status"] == "running"
                first.kill()

                async def writable() -> bool:
                    try:
                        await second.call("write_workspace", session_id=session, path="on", content="")
                    except ToolFailed:
                        return False
                    return True

                await eventually(writable)
                found = await second.finish(session)
                assert (found["reply"], found["turns"]) == ("finished with 1\n", 1)
                assert await second.text(session, "counter") == "line\n"
                await second.call("delete_session", session_id=session)

    play(engine, story)
