"""`skiff mcp` as hosts use it: a process over pipes, spoken to by the official client in both protocol eras."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys

import pytest
from mcp.shared.exceptions import MCPError

from tests.support.program import Machine, ToolFailed, play
from tests.support.sandboxes import require
from tests.support.scenario import bash, call, eventually, script


@pytest.mark.parametrize(
    ("kind", "mode"), [("local", "legacy"), pytest.param("docker", "auto", marks=pytest.mark.docker)]
)
def test_a_session_made_worked_and_read_over_stdio(kind: str, mode: str) -> None:
    async def story(machine: Machine) -> None:
        async with machine.host(mode) as host:
            task = script(call(bash("cat given; echo made > made")), {"say": "It said: $RESULT"})
            made = await host.call("create_session", task=task, files={"given": "hello"}, wait_seconds=60)
            session = made["session_id"]
            assert (made["status"], made["reply"].strip()) == ("idle", "It said: hello")
            assert made["tool_calls"] == 1 and made["usage"]["output_tokens"] > 0 and made["cost_usd"] > 0
            assert await host.text(session, "made") == "made\n"
            told = await host.call("send_message", session_id=session, message=script({"say": "Again."}))
            assert (told["reply"], told["turns"]) == ("Again.", 2)
            assert (await host.finish(session))["reply"] == "Again."
            assert (await host.call("delete_session", session_id=session))["deleted"]
            with pytest.raises(ToolFailed, match="list_sessions"):
                await host.call("get_session", session_id=session)
        assert machine.processes() == []

    require(kind)
    play(kind, story)


def test_a_client_that_gives_up_or_cancels_changes_nothing() -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as host:
            steps = script(call(bash("echo x >> ran; until [ -e on ]; do sleep 0.05; done")), {"say": "Finished."})
            session = (await host.call("create_session", task=steps, wait_seconds=0))["session_id"]
            await host.appears(session, "ran")
            with pytest.raises(MCPError):
                await host.client.call_tool("wait", {"session_ids": [session]}, read_timeout_seconds=0.2)
            waiting = asyncio.create_task(host.call("wait", session_ids=[session], wait_seconds=60))
            telling = asyncio.create_task(host.call("send_message", session_id=session, message="And more."))

            async def queued() -> bool:
                found = await host.events(session, "user.message")
                return len(found) == 2

            await eventually(queued)
            waiting.cancel()
            telling.cancel()
            assert (await host.call("get_session", session_id=session))["status"] == "running"
            await host.call("write_workspace", session_id=session, path="on", content="")
            found = await host.finish(session)
            assert (found["reply"], found["turns"]) == ("Finished.", 1)
            assert await host.text(session, "ran") == "x\n"
            assert "And more." in str(machine.api.bodies[-1])
            await host.call("delete_session", session_id=session)

    require("local")
    play("local", story)


def test_a_data_folder_of_a_newer_schema_is_refused_in_words() -> None:
    async def story(machine: Machine) -> None:
        async with machine.host() as host:
            await host.call("list_sessions")
        await machine.quiet()
        connection = sqlite3.connect(machine.folder / "skiff.db")
        connection.execute("INSERT INTO migrations (number, at) VALUES (9999, 'later')")
        connection.commit()
        connection.close()
        async with machine.host() as host:
            with pytest.raises(ToolFailed, match="newer Skiff"):
                await host.call("list_sessions")
        arguments = [sys.executable, "-m", "server", "work", "--data-dir", str(machine.folder), "--sandbox", "local"]
        environment = {**os.environ, **machine.environment}
        ended = await asyncio.to_thread(
            subprocess.run, arguments, capture_output=True, text=True, env=environment, timeout=60, check=False
        )
        assert ended.returncode == 1 and "newer Skiff" in ended.stderr

    require("local")
    play("local", story)
