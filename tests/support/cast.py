"""What most tests of the wire begin with: an agent, an environment, sessions, and their turns, through the SDK."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import anthropic
import httpx2
from anthropic.types.beta import BetaManagedAgentsSession

from server.ids import new_id
from tests.support.scenario import MODEL, Step, script
from tests.support.served import BETA, TOKEN, VERSION, Site

ENDS = ("session.status_idle", "session.status_terminated", "session.deleted")
TOOLSET: Mapping[str, Any] = {
    "type": "agent_toolset_20260401",
    "default_config": {"enabled": False},
    "configs": [{"name": "bash", "enabled": True}],
}
"""Bash alone: what is not tested needs no room in the prompt."""


def message(text: str) -> Any:
    """A user.message event."""
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


def told(*steps: Step, say: str = "Go on.") -> Any:
    """A user.message event with a script for the model."""
    return message(script(*steps, say=say))


class Cast:
    """An agent and an environment on a server, and the sessions that are made of them."""

    def __init__(self, client: anthropic.Anthropic, tools: Any = ()) -> None:
        self.client = client
        self.agent = client.beta.agents.create(name="helper", model=MODEL, tools=list(tools))
        self.environment = client.beta.environments.create(
            name=f"place-{new_id('t')}", config={"type": "cloud", "networking": {"type": "limited"}}
        )

    @property
    def events(self) -> Any:
        return self.client.beta.sessions.events

    def session(self, *steps: Step, **asked: Any) -> BetaManagedAgentsSession:
        """A new session; with steps, one that begins with them."""
        begun = {"initial_events": [told(*steps)]} if steps else {}
        return self.client.beta.sessions.create(
            **{"agent": self.agent.id, "environment_id": self.environment.id, **begun, **asked}
        )

    def rested(self, *steps: Step, **asked: Any) -> BetaManagedAgentsSession:
        """A session whose first turn is over."""
        made = self.session(*(steps or ({"say": "ok"},)), **asked)
        self.until(made.id, *ENDS)
        return self.client.beta.sessions.retrieve(made.id)

    def until(self, session_id: str, *types: str, after: int = 0) -> list[Any]:
        """The events of a session above a number, up to the first of these types."""
        found = []
        with self.events.stream(session_id, extra_query={"after": after}, timeout=60) as stream:
            for event in stream:
                found.append(event)
                if event.type in types:
                    return found
        raise AssertionError(f"none of {types} among {[event.type for event in found]}")

    def turn(self, session_id: str, *events: Any) -> list[Any]:
        """Send events, and what then comes on a stream up to the end of the turn."""
        found = []
        with self.events.stream(session_id, timeout=60) as stream:
            self.events.send(session_id, events=list(events))
            for event in stream:
                found.append(event)
                if event.type in ENDS:
                    return found
        raise AssertionError(f"no end among {[event.type for event in found]}")


def text_of(event: Any) -> str:
    """The text of an event's content."""
    return "".join(block.text for block in event.content if block.type == "text")


def silent_reader(site: Site, session_id: str) -> socket.socket:
    """An open stream on a bare socket with a small window: what is not read stays with the server."""
    address = httpx2.URL(site.url)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect((address.host, address.port or 80))
    head = {"host": address.netloc.decode(), "authorization": f"Bearer {TOKEN}"}
    head |= {"anthropic-beta": BETA, "anthropic-version": VERSION}
    lines = [f"GET /v1/sessions/{session_id}/events/stream HTTP/1.1", *(f"{k}: {v}" for k, v in head.items())]
    reader.sendall("\r\n".join([*lines, "", ""]).encode())
    assert reader.recv(12) == b"HTTP/1.1 200"
    return reader
