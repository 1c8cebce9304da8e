"""`respond`: an agent's calls are answered over MCP, so that no session is stuck there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcp import Client

from server.app import App
from tests.server.test_mcp_door import ERAS, call, refusal, tell
from tests.support.mcp_door import script

LOOKUP = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks something up.",
    "input_schema": {"type": "object", "properties": {"key": {"type": "string"}}},
}
ASKS = {"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": "always_ask"}}}
AGENT = {"tools": [ASKS, LOOKUP]}


def task(*calls: dict[str, Any]) -> str:
    return script({"call": list(calls)}, {"say": "$RESULT"})


@ERAS
def test_the_result_of_a_tool_of_the_callers_own_is_given(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        asked = task({"tool": "lookup", "input": {"key": "answer"}})
        waiting = await call(client, "create_session", task=asked, agent=AGENT)
        assert (waiting["status"], waiting["stop_reason"]) == ("needs_input", "requires_action")
        assert "respond(" in waiting["next"]
        (pending,) = waiting["pending"]
        assert (pending["needs"], pending["tool"], pending["input"]) == ("result", "lookup", '{"key": "answer"}')
        session = waiting["session_id"]
        (rests,) = (await call(client, "wait", session_ids=[session]))["sessions"]
        assert rests["status"] == "needs_input"
        (listed,) = (await call(client, "list_sessions"))["sessions"]
        assert listed["status"] == "needs_input"
        done = await call(
            client, "respond", session_id=session, responses=[{"call_id": pending["call_id"], "result": "42"}]
        )
        assert (done["status"], done["reply"], done["pending"], done["turns"]) == ("idle", "42", [], 1)

    tell(tmp_path, era, story)


@ERAS
def test_a_call_is_denied_with_a_reason(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        asked = task({"tool": "bash", "input": {"command": "rm -rf ."}})
        waiting = await call(client, "create_session", task=asked, agent=AGENT)
        assert waiting["status"] == "needs_approval"
        (pending,) = waiting["pending"]
        assert pending["needs"] == "approval" and "rm -rf ." in pending["input"]
        answer = {"call_id": pending["call_id"], "allow": False, "reason": "Keep them."}
        done = await call(client, "respond", session_id=waiting["session_id"], responses=[answer])
        assert done["reply"] == "Permission to use bash has been denied. Keep them."

    tell(tmp_path, era, story)


@ERAS
def test_what_is_no_answer_is_refused_in_words_and_loses_nothing(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        asked = task({"tool": "lookup", "input": {}}, {"tool": "bash", "input": {"command": "true"}})
        waiting = await call(client, "create_session", task=asked, agent=AGENT)
        session, (own, asks) = waiting["session_id"], [known["call_id"] for known in waiting["pending"]]
        for responses, words in (
            ([{"call_id": own}], "give `allow`"),
            ([{"call_id": asks, "allow": "yes"}], "`responses.0.allow`"),
            ([{"call_id": own, "allow": True, "result": "x"}], "give `allow`"),
            ([{"call_id": own, "allow": True}], "is not waiting for this"),
            ([{"call_id": asks, "result": "x"}], "is not waiting for this"),
            ([{"call_id": "sevt_none", "allow": True}], "is not an open call"),
            ([{"call_id": own, "result": "1"}, {"call_id": own, "result": "2"}], "responses.1: "),
        ):
            assert words in await refusal(client, "respond", session_id=session, responses=responses)
        problem = await refusal(client, "send_message", session_id=session, message="Hello?")
        assert f"{own} (give its result)" in problem and f"{asks} (allow or deny)" in problem
        assert await call(client, "get_session", session_id=session) == waiting
        stopped = await call(client, "interrupt", session_id=session)
        assert (stopped["status"], stopped["pending"]) == ("idle", [])
        assert "not an open call" in await refusal(
            client, "respond", session_id=session, responses=[{"call_id": own, "result": "late"}]
        )

    tell(tmp_path, era, story)


@ERAS
def test_a_long_input_is_shortened_with_a_pointer(tmp_path: Path, era: str) -> None:
    async def story(client: Client, app: App) -> None:
        asked = task({"tool": "lookup", "input": {"key": "x" * 30_000}})
        waiting = await call(client, "create_session", task=asked, agent=AGENT)
        shown = waiting["pending"][0]["input"]
        assert len(shown.encode()) < 8_200 and "read_transcript" in shown

    tell(tmp_path, era, story)
