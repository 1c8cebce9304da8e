"""One session through both doors: begun over MCP and continued over REST, and the other way round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from anthropic import AsyncAnthropic
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.support.cast import Cast, message, told
from tests.support.scenario import Step, bash, call, script
from tests.support.served import TOKEN, Site, served

SECONDS = 60


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with served("local") as running:
        yield running


@dataclass
class Doors:
    """The official clients of both doors of one server."""

    rest: AsyncAnthropic
    mcp: Client

    async def tool(self, name: str, **arguments: Any) -> dict[str, Any]:
        """What a tool of the MCP door gives."""
        result = await self.mcp.call_tool(name, arguments)
        assert not result.is_error, result
        assert result.structured_content is not None
        return dict(result.structured_content)

    async def turn(self, session_id: str, *events: Any) -> list[Any]:
        """Send over REST, and what then comes on its stream up to the end of the turn."""
        found = []
        async with await self.rest.beta.sessions.events.stream(session_id, timeout=SECONDS) as stream:
            await self.rest.beta.sessions.events.send(session_id, events=list(events))
            async for event in stream:
                found.append(event)
                if event.type == "session.status_idle":
                    return found
        raise AssertionError(found)


@asynccontextmanager
async def doors(site: Site) -> AsyncIterator[Doors]:
    async with (
        site.async_client() as rest,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=SECONDS) as http,
        Client(streamable_http_client(f"{site.url}/mcp", http_client=http)) as mcp,
    ):
        yield Doors(rest, mcp)


def play(site: Site, story: Callable[[Doors], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(2 * SECONDS), doors(site) as both:
            await story(both)

    asyncio.run(run())


def replies(events: list[Any]) -> list[str]:
    return [event.content[0].text.strip() for event in events if event.type == "agent.message"]


def test_a_session_begun_over_mcp_goes_on_over_rest_and_back(site: Site) -> None:
    async def story(both: Doors) -> None:
        first: list[Step] = [call(bash("echo kept > note.txt")), {"say": "written"}]
        begun = await both.tool("create_session", task=script(*first), agent={"tools": ["bash"]}, title="both")
        session_id = begun["session_id"]
        shown = await both.rest.beta.sessions.retrieve(session_id)
        assert (shown.title, shown.status) == ("both", "idle")
        before = [event async for event in both.rest.beta.sessions.events.list(session_id)]
        assert replies(before) == ["written"]
        shown_now = await both.turn(session_id, told(call(bash("cat note.txt")), {"say": "$RESULT"}))
        assert replies(shown_now) == ["kept"]
        last = await both.tool("send_message", session_id=session_id, message=script({"say": "over MCP again"}))
        assert last["reply"] == "over MCP again"
        said = [event async for event in both.rest.beta.sessions.events.list(session_id, types=["agent.message"])]
        assert replies(said) == ["written", "kept", "over MCP again"]
        await both.rest.beta.sessions.delete(session_id)
        assert session_id not in str(await both.tool("list_sessions"))

    play(site, story)


def test_a_session_begun_over_rest_goes_on_over_mcp_and_back(site: Site) -> None:
    with site.client() as client:
        cast = Cast(client, tools=[{"type": "agent_toolset_20260401"}])

    async def story(both: Doors) -> None:
        first = told(call(bash("echo kept > note.txt")), {"say": "written"})
        made = await both.rest.beta.sessions.create(agent=cast.agent.id, environment_id=cast.environment.id)
        assert replies(await both.turn(made.id, first)) == ["written"]
        steps: list[Step] = [call(bash("cat note.txt")), {"say": "$RESULT"}]
        answered = await both.tool("send_message", session_id=made.id, message=script(*steps))
        assert (answered["reply"].strip(), answered["status"]) == ("kept", "idle")
        assert replies(await both.turn(made.id, told({"say": "over REST again"}))) == ["over REST again"]
        transcript = str(await both.tool("read_transcript", session_id=made.id))
        assert all(word in transcript for word in ("written", "kept", "over REST again"))
        await both.tool("delete_session", session_id=made.id)
        listed = [session.id async for session in both.rest.beta.sessions.list(include_archived=True)]
        assert made.id not in listed

    play(site, story)


def test_what_one_door_asks_for_the_other_sees_stopped(site: Site) -> None:
    async def story(both: Doors) -> None:
        begun = await both.tool(
            "create_session", task=script({"hang": True, "say": "never"}), agent={"tools": []}, wait_seconds=0
        )
        session_id = begun["session_id"]
        assert begun["status"] == "running"
        shown = await both.turn(session_id, {"type": "user.interrupt"})
        assert shown[-1].stop_reason.type == "end_turn"
        (after,) = (await both.tool("wait", session_ids=[session_id]))["sessions"]
        assert after["status"] == "idle"
        await both.rest.beta.sessions.archive(session_id)
        refused = await both.mcp.call_tool("send_message", {"session_id": session_id, "message": "more"})
        assert refused.is_error
        await both.rest.beta.sessions.delete(session_id)

    play(site, story)


def test_a_call_that_a_session_made_over_mcp_waits_for_is_answered_over_rest(site: Site) -> None:
    tool: Any = {"type": "custom", "name": "weather", "description": "d", "input_schema": {"type": "object"}}
    with site.client() as client:
        cast = Cast(client, tools=[tool])

    async def story(both: Doors) -> None:
        steps: list[Step] = [{"call": [{"tool": "weather", "input": {}}]}, {"say": "It is $RESULT."}]
        begun = await both.tool("create_session", task=script(*steps), agent=cast.agent.id)
        assert begun["status"] == "needs_input"
        session_id = begun["session_id"]
        waits = [e async for e in both.rest.beta.sessions.events.list(session_id, types=["agent.custom_tool_use"])]
        answer: Any = {
            "type": "user.custom_tool_result",
            "custom_tool_use_id": waits[0].id,
            "content": [{"type": "text", "text": "windy"}],
        }
        assert replies(await both.turn(session_id, answer)) == ["It is windy."]
        await both.turn(session_id, told({"call": [{"tool": "weather", "input": {}}]}, {"say": "Now $RESULT."}))
        waits = [e async for e in both.rest.beta.sessions.events.list(session_id, types=["agent.custom_tool_use"])]
        answered = await both.tool(
            "respond", session_id=session_id, responses=[{"call_id": waits[-1].id, "result": "calm"}]
        )
        assert answered["reply"] == "Now calm."
        await both.rest.beta.sessions.delete(session_id)

    play(site, story)


def test_a_message_over_rest_reaches_a_turn_that_mcp_began(site: Site) -> None:
    async def story(both: Doors) -> None:
        steps: list[Step] = [{"wait": 0.5, "say": "first"}]
        begun = await both.tool("create_session", task=script(*steps), agent={"tools": []}, wait_seconds=0)
        session_id = begun["session_id"]
        await both.rest.beta.sessions.events.send(session_id, events=[message("and this")])
        (after,) = (await both.tool("wait", session_ids=[session_id]))["sessions"]
        assert after["status"] == "idle"
        listed = [event async for event in both.rest.beta.sessions.events.list(session_id, types=["user.message"])]
        assert [event.processed_at is not None for event in listed] == [True, True]
        await both.rest.beta.sessions.delete(session_id)

    play(site, story)
