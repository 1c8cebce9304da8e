"""The hosted service's quickstart, as its documentation tells it, against a real `skiff serve`.

The calls, their order and their shapes are the documentation's: an agent with the whole toolset, a cloud environment
with the network open, a session, a stream that is opened before the message goes out, and a `match` on what comes. Ours
are the client's address and key, the model's name, and the end of the environment's name. The task is told in plain
words, which the scripted model answers with a program that it really writes and runs. What the documentation's next
pages do follows: usage, the outputs, archive, delete.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from server.ids import new_id
from tests.support.cast import told
from tests.support.program import ROOT
from tests.support.scenario import MODEL, bash, call
from tests.support.served import BETA, TOKEN, Site

TASK = "Create a Python script that generates the first 20 Fibonacci numbers and saves them to fibonacci.txt"
NUMBERS = "0 1 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987 1597 2584 4181"
KEEP = "mkdir -p /mnt/session/outputs && python3 fibonacci.py > /mnt/session/outputs/fibonacci.txt"
"""What the second message has the agent do with the program of the first."""


def test_the_quickstart_runs_with_the_synchronous_client(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with site.client() as client:
        agent = client.beta.agents.create(
            name="Coding Assistant",
            model=MODEL,
            system="You are a helpful coding assistant. Write clean, well-documented code.",
            tools=[{"type": "agent_toolset_20260401"}],
        )
        print(f"Agent ID: {agent.id}, version: {agent.version}")

        environment = client.beta.environments.create(
            name=f"quickstart-env-{new_id('t')}",  # other stories share the server, and names are unique
            config={"type": "cloud", "networking": {"type": "unrestricted"}},
        )
        print(f"Environment ID: {environment.id}")

        session = client.beta.sessions.create(agent=agent.id, environment_id=environment.id, title="Quickstart session")
        print(f"Session ID: {session.id}")

        with client.beta.sessions.events.stream(session.id) as stream:
            client.beta.sessions.events.send(
                session.id,
                events=[{"type": "user.message", "content": [{"type": "text", "text": TASK}]}],
            )
            for event in stream:
                match event.type:
                    case "agent.message":
                        for block in event.content:
                            print(getattr(block, "text", ""), end="")
                    case "agent.tool_use":
                        print(f"\n[Using tool: {event.name}]")
                    case "session.status_idle":
                        print("\n\nAgent finished.")
                        break

        _as_told(capsys.readouterr().out)
        _aftermath(client, session.id)
        client.beta.environments.delete(environment.id)


def test_the_quickstart_runs_with_the_asynchronous_client(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(client: AsyncAnthropic) -> tuple[str, str]:
        agent = await client.beta.agents.create(
            name="Coding Assistant",
            model=MODEL,
            system="You are a helpful coding assistant. Write clean, well-documented code.",
            tools=[{"type": "agent_toolset_20260401"}],
        )
        environment = await client.beta.environments.create(
            name=f"quickstart-env-{new_id('t')}",
            config={"type": "cloud", "networking": {"type": "unrestricted"}},
        )
        session = await client.beta.sessions.create(
            agent=agent.id, environment_id=environment.id, title="Quickstart session"
        )
        async with await client.beta.sessions.events.stream(session.id) as stream:
            await client.beta.sessions.events.send(
                session.id,
                events=[{"type": "user.message", "content": [{"type": "text", "text": TASK}]}],
            )
            async for event in stream:
                match event.type:
                    case "agent.message":
                        for block in event.content:
                            print(getattr(block, "text", ""), end="")
                    case "agent.tool_use":
                        print(f"\n[Using tool: {event.name}]")
                    case "session.status_idle":
                        print("\n\nAgent finished.")
                        break
        return session.id, environment.id

    async def whole() -> tuple[str, str]:
        async with site.async_client() as client:
            return await run(client)

    session_id, environment_id = asyncio.run(whole())
    _as_told(capsys.readouterr().out)
    with site.client() as client:
        _aftermath(client, session_id)
        client.beta.environments.delete(environment_id)


def _as_told(printed: str) -> None:
    """The tool was announced before its outcome, and the last word is that the agent has finished."""
    assert printed.index("[Using tool: bash]") < printed.index(NUMBERS) < printed.index("Agent finished.")
    assert printed.endswith("Agent finished.\n")


def _aftermath(client: Anthropic, session_id: str) -> None:
    """What one does after the first turn, up to the end of the session."""
    session = client.beta.sessions.retrieve(session_id)
    assert session.status == "idle"
    assert session.title == "Quickstart session"
    assert (session.usage.input_tokens or 0) + (session.usage.cache_read_input_tokens or 0) > 0
    assert session.usage.output_tokens

    kept = _turn(client, session_id, told(call(bash(KEEP)), {"say": "Kept."}))
    assert not [event for event in kept if getattr(event, "is_error", False)]
    (output,) = client.beta.files.list(scope_id=session_id, betas=[BETA])
    assert (output.filename, output.downloadable) == ("fibonacci.txt", True)
    assert client.beta.files.download(output.id).read().decode().split() == NUMBERS.split()

    types = [event.type for event in client.beta.sessions.events.list(session_id)]
    assert (types.count("user.message"), types.count("session.status_idle")) == (2, 2)

    assert client.beta.sessions.archive(session_id).archived_at is not None
    assert client.beta.sessions.delete(session_id).type == "session_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.beta.sessions.retrieve(session_id)


def _turn(client: Anthropic, session_id: str, event: Any) -> list[Any]:
    """Send an event; what comes up to the end of its turn."""
    found = []
    with client.beta.sessions.events.stream(session_id) as stream:
        client.beta.sessions.events.send(session_id, events=[event])
        for told_of in stream:
            found.append(told_of)
            if told_of.type == "session.status_idle":
                return found
    raise AssertionError(f"no end among {[each.type for each in found]}")


def test_the_readmes_example_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme.split("\n## The Managed Agents API\n")[1].split("\n## ")[0]
    (example,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert example.count("http://127.0.0.1:8400") == 1
    monkeypatch.setenv("SKIFF_API_KEY", TOKEN)
    made: dict[str, Any] = {}
    exec(example.replace("http://127.0.0.1:8400", site.url), made)
    assert "83 89 97" in capsys.readouterr().out
    with made["client"] as client:
        client.beta.sessions.delete(made["session"].id)
        client.beta.environments.delete(made["environment"].id)
