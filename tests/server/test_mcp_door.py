"""The MCP door through the official client, in both protocol eras, on a real Skiff with the scripted model."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import ImageContent

from server.app import App
from server.doors.mcp import progress
from server.doors.mcp.server import INSTRUCTIONS, build
from server.errors import SkiffError
from server.sessions.service import NewSession
from tests.support.mcp_door import NO_TOOLS, opened, script

ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOLS = {
    "create_session", "send_message", "wait", "get_session", "list_sessions", "read_workspace", "write_workspace",
    "read_transcript", "interrupt", "delete_session", "respond",
}  # fmt: skip
Story = Callable[[Client, App], Coroutine[Any, Any, None]]


@asynccontextmanager
async def host(folder: Path, era: str, **options: Any) -> AsyncIterator[tuple[Client, App]]:
    async with opened(folder, **options) as (mcp, app), Client(mcp, mode=era) as client:
        yield client, app


def tell(folder: Path, era: str, story: Story, **options: Any) -> None:
    """Run a story with a client and the application behind it."""

    async def run() -> None:
        async with asyncio.timeout(60), host(folder, era, **options) as (client, app):
            await story(client, app)

    asyncio.run(run())


async def call(client: Client, name: str, **arguments: Any) -> Mapping[str, Any]:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def refusal(client: Client, name: str, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    assert result.is_error and result.structured_content is None
    return str(getattr(result.content[0], "text", ""))


@ERAS
def test_every_tool_has_title_description_annotations_and_schemas(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS
        for tool in tools:
            hints = tool.annotations
            assert tool.title and tool.description and len(tool.description) < 1_000 and hints
            given = (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)
            assert None not in given
            assert tool.output_schema and tool.output_schema["type"] == "object"
            assert tool.input_schema["additionalProperties"] is False
            for schema in tool.input_schema["properties"].values():
                assert schema.get("description")
        core = {tool.name for tool in tools if (tool.meta or {}).get("anthropic/alwaysLoad")}
        assert core == {"create_session", "send_message", "wait", "read_workspace", "get_session"}
        assert len(INSTRUCTIONS) < 4_096

    tell(tmp_path, era, story)


@ERAS
def test_a_task_is_done_and_its_result_says_everything(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        task = script({"say": "It is 42."})
        done = await call(client, "create_session", task=task, agent=NO_TOOLS, title="sum")
        assert (done["status"], done["stop_reason"], done["reply"]) == ("idle", "end_turn", "It is 42.")
        assert done["turns"] == 1 and done["tool_calls"] == 0 and done["usage"]["output_tokens"] > 0
        assert done["title"] == "sum" and done["session_id"] in done["next"] and done["error"] is None
        assert await call(client, "get_session", session_id=done["session_id"]) == done
        again = await call(client, "send_message", session_id=done["session_id"], message=script({"say": "Still 42."}))
        assert (again["reply"], again["turns"]) == ("Still 42.", 2) and again["cursor"] > done["cursor"]

    tell(tmp_path, era, story)


@ERAS
def test_work_goes_on_when_the_wait_is_over_and_wait_brings_its_result(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        task = script({"wait": 0.5, "say": "late"})
        begun = await call(client, "create_session", task=task, agent=NO_TOOLS, wait_seconds=0)
        assert begun["status"] == "running" and "wait(session_ids=" in begun["next"] and begun["reply"] is None
        (rested,) = (await call(client, "wait", session_ids=[begun["session_id"]]))["sessions"]
        assert (rested["status"], rested["reply"]) == ("idle", "late")

    tell(tmp_path, era, story)


def test_any_returns_with_the_first_and_all_with_the_last(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        slow = await call(
            client, "create_session", task=script({"wait": 1.0, "say": "slow"}), agent=NO_TOOLS, wait_seconds=0
        )
        quick = await call(
            client, "create_session", task=script({"wait": 0.1, "say": "quick"}), agent=NO_TOOLS, wait_seconds=0
        )
        ids = [slow["session_id"], quick["session_id"]]
        first = await call(client, "wait", session_ids=ids, mode="any")
        assert [one["status"] for one in first["sessions"]] == ["running", "idle"]
        assert slow["session_id"] in first["next"]
        both = await call(client, "wait", session_ids=ids, mode="all")
        assert [one["reply"] for one in both["sessions"]] == ["slow", "quick"]

    tell(tmp_path, "auto", story)


@ERAS
def test_a_client_that_times_out_changes_nothing(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        idle = await call(client, "create_session", agent=NO_TOOLS)
        message = {"session_id": idle["session_id"], "message": script({"wait": 1.5, "say": "survived"})}
        with pytest.raises(MCPError, match=r"[Tt]imed out"):
            await client.call_tool("send_message", message, read_timeout_seconds=0.5)
        (rested,) = (await call(client, "wait", session_ids=idle["session_id"]))["sessions"]
        assert (rested["reply"], rested["turns"]) == ("survived", 1)

    tell(tmp_path, era, story)


@ERAS
def test_a_call_that_is_cancelled_changes_nothing(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        task = script({"wait": 0.8, "say": "survived"})
        begun = await call(client, "create_session", task=task, agent=NO_TOOLS, wait_seconds=0)
        told = asyncio.Event()

        async def listen(progress: float, total: float | None, message: str | None) -> None:
            told.set()

        waiting = asyncio.create_task(
            client.call_tool("wait", {"session_ids": [begun["session_id"]]}, progress_callback=listen)
        )
        await told.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        (rested,) = (await call(client, "wait", session_ids=[begun["session_id"]]))["sessions"]
        assert rested["reply"] == "survived"

    tell(tmp_path, era, story)


@ERAS
def test_a_client_that_disconnects_changes_nothing(tmp_path: Path, era: str) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), opened(tmp_path) as (mcp, _):
            async with Client(mcp, mode=era) as client:
                task = script({"wait": 0.5, "say": "survived"})
                begun = await call(client, "create_session", task=task, agent=NO_TOOLS, wait_seconds=0)
                left = asyncio.create_task(client.call_tool("wait", {"session_ids": [begun["session_id"]]}))
                await asyncio.sleep(0)
            await asyncio.wait({left})
            left.exception()
            async with Client(mcp, mode=era) as client:
                (rested,) = (await call(client, "wait", session_ids=[begun["session_id"]]))["sessions"]
                assert rested["reply"] == "survived"

    asyncio.run(run())


@ERAS
def test_progress_says_what_goes_on_with_growing_values(
    tmp_path: Path, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "MAX_SILENCE", 0.1)
    monkeypatch.setattr(progress, "MIN_INTERVAL", 0.01)

    async def story(client: Client, app: App) -> None:
        told: list[tuple[float, str]] = []

        async def listen(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, message or ""))

        arguments = {"agent": NO_TOOLS, "task": script({"wait": 1.5, "say": "done"})}
        await client.call_tool("create_session", arguments, progress_callback=listen)
        values = [value for value, _ in told]
        assert len(values) >= 3 and values == sorted(set(values))
        assert any("turn 1: thinking" in message for _, message in told), told
        assert all(len(message) <= 200 for _, message in told)

    tell(tmp_path, era, story)


@ERAS
def test_interrupt_stops_the_turn_and_leaves_the_session_usable(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        begun = await call(client, "create_session", task=script({"hang": True}), agent=NO_TOOLS, wait_seconds=0)
        stopped = await call(client, "interrupt", session_id=begun["session_id"])
        assert stopped["status"] == "idle"
        after = await call(client, "send_message", session_id=begun["session_id"], message=script({"say": "back"}))
        assert after["reply"] == "back"

    tell(tmp_path, era, story)


def test_a_deleted_session_is_gone_even_while_it_runs(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        begun = await call(client, "create_session", task=script({"hang": True}), agent=NO_TOOLS, wait_seconds=0)
        assert (await call(client, "delete_session", session_id=begun["session_id"]))["deleted"]
        assert "list_sessions" in await refusal(client, "get_session", session_id=begun["session_id"])
        assert (await call(client, "list_sessions"))["sessions"] == []

    tell(tmp_path, "auto", story)


@ERAS
def test_a_model_that_fails_is_reported_with_its_reason(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        task = script({"fail": {"status": 400, "message": "no such thing"}})
        failed = await call(client, "create_session", task=task, agent=NO_TOOLS)
        assert (failed["status"], failed["stop_reason"]) == ("idle", "retries_exhausted")
        assert "no such thing" in failed["error"] and "send_message" in failed["next"]

    tell(tmp_path, era, story)


@ERAS
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        assert "no argument `bugdet`" in await refusal(client, "create_session", bugdet={"usd": 1})
        said = await refusal(client, "wait", session_id="sesn_1")
        assert "no argument `session_id`" in said and "session_ids, mode, wait_seconds" in said
        said = await refusal(client, "wait", session_ids=["sesn_1"], wait_seconds=500)
        assert "`wait_seconds`" in said and "240" in said
        assert "No session 'sesn_1'" in await refusal(client, "send_message", session_id="sesn_1", message="hello")
        assert "agent.colour is unknown" in await refusal(client, "create_session", agent={"colour": "red"})
        assert "outside the workspace" in await refusal(client, "create_session", files={"../x": "y"})
        assert "cursor" in await refusal(client, "list_sessions", cursor="nonsense")

    tell(tmp_path, era, story)


@ERAS
def test_an_unexpected_failure_is_told_and_logged(tmp_path: Path, era: str, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> Any:
        raise RuntimeError("the wheel came off")

    async def missing() -> Any:
        raise SkiffError("The data folder is locked. Stop the other process.")

    async def run() -> None:
        async with Client(build(broken), mode=era) as client:
            said = await refusal(client, "list_sessions")
            assert "RuntimeError: the wheel came off" in said and "session is unharmed" in said
        async with Client(build(missing), mode=era) as client:
            assert await refusal(client, "list_sessions") == "The data folder is locked. Stop the other process."

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert [record.exc_info for record in caplog.records if "list_sessions" in record.getMessage()]


def test_text_that_looks_like_json_stays_text_and_json_text_becomes_an_object(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        made = await call(
            client, "create_session", task='["not", "a", "list"]', agent=json.dumps(NO_TOOLS), title='{"a": 1}'
        )
        assert made["title"] == '{"a": 1}'
        shown = await call(client, "read_transcript", session_id=made["session_id"])
        (message,) = [event for event in shown["events"] if event["type"] == "user.message"]
        assert message["content"][0]["text"] == '["not", "a", "list"]'

    tell(tmp_path, "auto", story)


def test_the_same_request_key_makes_one_session(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        once = await call(client, "create_session", agent=NO_TOOLS, request_key="k")
        assert (await call(client, "create_session", agent=NO_TOOLS, request_key="k")) == once
        assert "another request" in await refusal(
            client, "create_session", agent=NO_TOOLS, title="other", request_key="k"
        )

    tell(tmp_path, "auto", story)


def test_sessions_are_listed_in_pages_newest_first(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        made = [
            (await call(client, "create_session", agent=NO_TOOLS, title=f"number {n}"))["session_id"] for n in range(5)
        ]
        listed: list[str] = []
        cursor: str | None = None
        while True:
            shown = await call(client, "list_sessions", limit=2, **({"cursor": cursor} if cursor else {}))
            listed += [one["session_id"] for one in shown["sessions"]]
            cursor = shown["next_cursor"]
            if cursor is None:
                break
        assert listed == made[::-1]

    tell(tmp_path, "auto", story)


@ERAS
def test_a_long_reply_points_to_the_rest_of_it(tmp_path: Path, era: str) -> None:
    text = "".join(f"line {n}\n" for n in range(6_000))

    async def story(client: Client, app: App) -> None:
        done = await call(client, "create_session", agent=NO_TOOLS, task=script({"say": text}))
        assert len(json.dumps(done).encode()) < 20_000
        assert done["reply"].startswith("line 0\n") and done["reply"].rstrip().endswith("line 5999")
        _, _, pointer = done["reply"].partition("read_transcript(")
        numbers = dict(part.split("=") for part in pointer.split(")")[0].split(", ")[1:])
        after, offset = int(numbers["after"]), int(numbers["offset"])
        collected = text[:offset]
        while True:
            part = await call(
                client, "read_transcript", session_id=done["session_id"], after=after, offset=len(collected)
            )
            assert len(json.dumps(part).encode()) < 20_000
            collected += part["portion"]
            if part["next_offset"] is None:
                break
        assert collected == text

    tell(tmp_path, era, story)


def test_twenty_sessions_with_long_replies_share_one_budget(tmp_path: Path) -> None:
    async def story(client: Client, app: App) -> None:
        ids = []
        for n in range(20):
            view = await app.service.create_session(NewSession(script({"say": f"{n} " * 5_000}), NO_TOOLS))
            ids.append(view.id)
        rested = await call(client, "wait", session_ids=ids, mode="all")
        assert [one["reply"].split()[0] for one in rested["sessions"]] == [str(n) for n in range(20)]
        assert all("get_session" in one["reply"] for one in rested["sessions"])
        assert len(json.dumps(rested).encode()) < 24_000

    tell(tmp_path, "auto", story)


@ERAS
def test_files_are_placed_listed_and_read_back(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        files = [{"path": "src/a.py", "content": "print('ä')\n"}]
        session_id = (await call(client, "create_session", agent=NO_TOOLS, files=files))["session_id"]
        written = await call(client, "write_workspace", session_id=session_id, path="b.txt", content="one\ntwo\n")
        assert written["size"] == 8
        top = await call(client, "read_workspace", session_id=session_id)
        assert [(entry["name"], entry["type"]) for entry in top["entries"]] == [("b.txt", "file"), ("src", "dir")]
        read = await call(client, "read_workspace", session_id=session_id, path="src/a.py")
        assert (read["kind"], read["text"], read["next_offset"]) == ("text", "print('ä')\n", None)
        part = await call(client, "read_workspace", session_id=session_id, path="b.txt", offset=4, limit=4)
        assert (part["text"], part["offset"]) == ("two\n", 4)
        assert "no such file" in await refusal(client, "read_workspace", session_id=session_id, path="c.txt")

    tell(tmp_path, era, story)


@ERAS
def test_an_image_is_shown_as_an_image(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        view = await app.service.create_session(NewSession(agent=NO_TOOLS, files={"a.png": PNG, "b.bin": b"\0\1"}))
        result = await client.call_tool("read_workspace", {"session_id": view.id, "path": "a.png"})
        image = result.content[0]
        assert isinstance(image, ImageContent) and base64.b64decode(image.data) == PNG
        assert result.structured_content and result.structured_content["kind"] == "image"
        assert f"workspace://{view.id}/a.png" in result.structured_content["next"]
        binary = await call(client, "read_workspace", session_id=view.id, path="b.bin")
        assert (binary["kind"], binary["text"], binary["size"]) == ("binary", None, 2)
        (contents,) = (await client.read_resource(f"workspace://{view.id}/a.png")).contents
        assert contents.mime_type == "image/png"

    tell(tmp_path, era, story)


@ERAS
def test_transcripts_and_files_are_resources(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        done = await call(client, "create_session", agent=NO_TOOLS, task=script({"say": "hi"}), files={"a.txt": "A"})
        session_id = done["session_id"]
        templates = {each.uri_template for each in (await client.list_resource_templates()).resource_templates}
        assert templates == {"session://{session_id}/transcript{?after,limit}", "workspace://{session_id}/{+path}"}
        (contents,) = (await client.read_resource(f"session://{session_id}/transcript?after=4")).contents
        events = json.loads(getattr(contents, "text", ""))["events"]
        assert all(event["number"] > 4 for event in events) and events[-1]["type"] == "session.status_idle"
        (contents,) = (await client.read_resource(f"workspace://{session_id}/a.txt")).contents
        assert getattr(contents, "text", "") == "A"
        with pytest.raises(MCPError, match="No session"):
            await client.read_resource("session://sesn_none/transcript")

    tell(tmp_path, era, story)


@ERAS
def test_the_delegate_prompt_carries_the_task_and_others_are_refused_in_words(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        prompt = await client.get_prompt("delegate", {"task": "count the stars"})
        assert "count the stars" in getattr(prompt.messages[0].content, "text", "")
        with pytest.raises(MCPError, match="nope"):
            await client.get_prompt("nope")
        with pytest.raises(MCPError, match="task"):
            await client.get_prompt("delegate")

    tell(tmp_path, era, story)


def test_tools_are_listed_before_anything_slow_is_imported_or_opened() -> None:
    program = """
import asyncio, sys
from mcp import Client
from server.doors.mcp.server import build

async def service():
    raise AssertionError("tools/list must not need the service")

async def main():
    async with Client(build(service)) as client:
        assert (await client.list_tools()).tools
    slow = ("anthropic", "docker", "sqlite3", "server.sessions.service", "server.store.store", "server.app", "sandbox")
    print([name for name in slow if name in sys.modules])

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]", ran.stdout
