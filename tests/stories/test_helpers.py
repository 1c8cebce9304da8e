"""The SDK's own helpers for sessions at work: the tool runner, and messages put together from their pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import AsyncAnthropic, beta_async_tool, beta_tool
from anthropic.lib.sessions import accumulate_managed_agents_event
from anthropic.lib.tools import ToolError

from tests.support.cast import TOOLSET, Cast, message, text_of, told
from tests.support.scenario import bash, call
from tests.support.served import Site

SECONDS = 60.0
LONG = "One word after the other, as a model writes them. " * 40


@beta_async_tool
async def tide(harbour: str) -> str:
    """When the tide turns in a harbour.

    Args:
        harbour: its name
    """
    return f"the tide of {harbour} turns at noon"


@beta_tool
def wind(place: str) -> str:
    """How the wind blows at a place.

    Args:
        place: its name
    """
    raise ToolError(f"no station at {place}")


TOOLS = (tide, wind)


@pytest.fixture
def cast(site: Site) -> Iterator[Cast]:
    with site.client() as client:
        yield Cast(client, tools=[TOOLSET, *(_declared(tool) for tool in TOOLS)])


def _declared(tool: Any) -> Any:
    """A runnable tool as an agent's custom tool."""
    schema = tool.to_dict()
    return {"type": "custom", **{name: schema[name] for name in ("name", "description", "input_schema")}}


def _texts(cast: Cast, session_id: str, kind: str) -> list[str]:
    return [text_of(event).strip() for event in cast.events.list(session_id, types=[kind])]


def _end(cast: Cast, session_id: str) -> None:
    cast.client.beta.sessions.archive(session_id)
    cast.client.beta.sessions.delete(session_id)


def test_the_tool_runner_answers_custom_tools_beside_the_sandboxs_own(site: Site, cast: Cast) -> None:
    made = cast.session(
        call({"tool": "tide", "input": {"harbour": "Kiel"}}, bash("echo in the sandbox")),
        call({"tool": "wind", "input": {"place": "Kiel"}}),
        {"say": "Heard: $RESULT"},
    )

    async def run() -> list[Any]:
        async with site.async_client() as client, asyncio.timeout(SECONDS):
            runner = client.beta.sessions.events.tool_runner(made.id, tools=[*TOOLS], max_idle=0.2)
            return [dispatched async for dispatched in runner]

    dispatched = asyncio.run(run())
    # The runner shows every call that it sees, and answers those that are its own.
    answered = [(one.name, one.is_error) for one in dispatched if one.posted]
    assert answered == [("tide", False), ("wind", True)]
    assert [one.name for one in dispatched if not one.posted] == ["bash"]
    assert _texts(cast, made.id, "agent.tool_result") == ["in the sandbox"]
    assert _texts(cast, made.id, "user.custom_tool_result")[0] == "the tide of Kiel turns at noon"
    assert "no station at Kiel" in _texts(cast, made.id, "agent.message")[-1]
    _end(cast, made.id)


def test_a_message_grows_while_it_is_written_and_ends_as_the_stored_one(site: Site, cast: Cast) -> None:
    made = cast.session()

    async def run(client: AsyncAnthropic) -> tuple[list[str], Any]:
        events, seen, snapshot = client.beta.sessions.events, [], None
        async with await events.stream(made.id, event_deltas=["agent.message"], timeout=SECONDS) as stream:
            await events.send(made.id, events=[told({"say": LONG, "stream": 0.2})])
            async for event in stream:
                snapshot = accumulate_managed_agents_event(snapshot, event)
                if event.type == "event_delta":
                    seen.append(text_of(snapshot))
                if event.type == "session.status_idle":
                    break
        return seen, snapshot

    async def whole() -> tuple[list[str], Any]:
        async with site.async_client() as client:
            return await run(client)

    seen, last = asyncio.run(whole())
    (stored,) = cast.events.list(made.id, types=["agent.message"])
    assert last == stored
    assert len(seen) > 1 and seen == sorted(seen, key=len)
    assert all(text_of(stored).startswith(text) for text in seen)
    _end(cast, made.id)


def test_a_follower_that_asks_for_no_deltas_reads_whole_messages_with_the_same_helper(cast: Cast) -> None:
    made = cast.session()
    snapshot = None
    for event in cast.turn(made.id, message("hello")):
        snapshot = accumulate_managed_agents_event(snapshot, event)
    stored = list(cast.events.list(made.id, types=["agent.message"]))
    assert snapshot == stored[-1]
    _end(cast, made.id)
