"""What a session is made of, frozen at its creation: agent, environment, rendered prompt and tools, sandbox backend.

Frozen, because the rendered bytes are the head of every model request of the session: an upgrade of Skiff must not
change them under a session that lives on (the provider's prompt cache would be lost, and the agent would be another).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from sandbox.protocol import SandboxSpec
from sandbox.wire import OUTPUTS
from server.catalog import environments
from server.errors import InvalidRequest, NotSupported
from server.events import Permission
from server.providers import Block, Said
from server.providers.anthropic import server_tool
from server.sessions.conversation.context import estimate
from server.sessions.conversation.transcript import CACHE_MARK
from server.sessions.domains import narrowed
from server.tools import toolset

WORKSPACE = "/workspace"
_OFFERED = ("name", "description", "input_schema")
"""What a model is told of a client's own tool."""


@dataclass(frozen=True)
class Spec:
    """The frozen part of a session, read from its row."""

    agent: Mapping[str, Any]
    environment: Mapping[str, Any]
    system: Sequence[Block]
    tools: Sequence[Block]
    max_tokens: int
    options: Mapping[str, Any]
    backend: str
    given: Sequence[str] = ()
    """A line about each thing that the session was given, as its prompt names them."""

    @property
    def model(self) -> str:
        return str(self.agent["model"]["id"])

    @property
    def agent_name(self) -> str:
        return str(self.agent["name"])

    @cached_property
    def in_sandbox(self) -> frozenset[str]:
        """The enabled tools that run inside the sandbox."""
        return frozenset(toolset.enabled(self.agent["tools"])) & frozenset(toolset.IN_SANDBOX)

    @cached_property
    def custom(self) -> frozenset[str]:
        """The names of the client's own tools."""
        return frozenset(tool["name"] for tool in self.agent["tools"] if tool["type"] == "custom")

    @cached_property
    def head(self) -> int:
        """Tokens with which every prompt of it begins, estimated: system prompt and tools."""
        return estimate([*self.system, *self.tools])

    def permission(self, name: str) -> Permission:
        """What the session's policy says of a builtin tool; `deny` for one that it does not have."""
        if name not in self.in_sandbox:
            return "deny"
        return "ask" if toolset.policy(self.agent["tools"], name) == "always_ask" else "allow"

    @property
    def sandbox(self) -> SandboxSpec:
        return environments.sandbox_spec(self.environment)


def freeze(
    agent: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    backend: str,
    max_tokens: int,
    web: bool,
    given: Sequence[str] = (),
) -> dict[str, Any]:
    """The spec as stored. `web` says whether the provider has web tools of its own; `given` are lines about what lies
    in the sandbox from the start.

    Raises NotSupported when the agent names a web tool that this provider does not have, InvalidRequest when it could
    reach nothing: a provider takes an empty list of domains for all of them.
    """
    names = _usable(agent["tools"], environment)
    missing = [name for name in names if name in toolset.WEB and not web]
    if missing:
        raise NotSupported(
            f"agent.tools: {', '.join(missing)} needs a model provider with web tools of its own; this one has none."
            " Leave it out."
        )
    own = environment["skiff"]["network"]
    if own == "limited" and not environments.reaches_out(environment) and (web_tools := set(names) & set(toolset.WEB)):
        raise InvalidRequest(
            f"agent.tools: {', '.join(sorted(web_tools))} can reach nothing, because the environment's network is"
            " limited to no hosts. Give allowed_hosts, or leave it out."
        )
    tools = [_definition(name, agent["tools"], environment) for name in names]
    tools += [{key: tool[key] for key in _OFFERED} for tool in toolset.custom(agent["tools"])]
    if tools:
        tools[-1] = {**tools[-1], "cache_control": CACHE_MARK}
    return {
        "agent": dict(agent),
        "environment": dict(environment),
        "system": _system(agent, environment, names, given),
        "tools": tools,
        "max_tokens": agent.get("max_tokens") or max_tokens,
        "options": _options(agent),
        "backend": backend,
        "given": list(given),
    }


def thaw(stored: Mapping[str, Any]) -> Spec:
    """The inverse of `freeze`."""
    heads = {name: [Said(block) for block in stored[name]] for name in ("system", "tools")}
    return Spec(**{**stored, **heads})


def _usable(tools: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> list[str]:
    """The enabled builtin tools, but for web tools that nobody asked for by name and that could reach nothing."""
    named = {config["name"] for item in tools for config in item.get("configs", ())}
    closed = environment["skiff"]["network"] == "limited" and not environments.reaches_out(environment)
    return [name for name in toolset.enabled(tools) if not closed or name not in toolset.WEB or name in named]


def _definition(name: str, tools: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> dict[str, Any]:
    if name in toolset.IN_SANDBOX:
        return toolset.IN_SANDBOX[name].definition()
    hosts = environment["config"]["networking"].get("allowed_hosts", [])
    kind: Literal["web_search", "web_fetch"] = "web_search" if name == "web_search" else "web_fetch"
    return server_tool(kind, narrowed(name, toolset.setting(tools, name), hosts))


def _options(agent: Mapping[str, Any]) -> dict[str, Any]:
    """Further request fields: adaptive thinking and effort, for the models that know them."""
    model = str(agent["model"]["id"])
    if not model.startswith("claude-") or "haiku-4" in model or "sonnet-4-5" in model or "opus-4-5" in model:
        return {}
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": agent["model"]["effort"]["type"]}}


def _system(
    agent: Mapping[str, Any], environment: Mapping[str, Any], names: list[str], given: Sequence[str]
) -> list[dict[str, Any]]:
    parts = [agent["system"]] if agent.get("system") else []
    parts.append(_surroundings(environment, names))
    if given:
        parts[-1] += "\n\nYou were given:\n" + "\n".join(f"- {line}" for line in given)
    blocks: list[dict[str, Any]] = [{"type": "text", "text": part} for part in parts]
    blocks[-1]["cache_control"] = CACHE_MARK
    return blocks


def _surroundings(environment: Mapping[str, Any], names: list[str]) -> str:
    """What the agent should know of the place it works in."""
    if not any(name in toolset.IN_SANDBOX for name in names):
        return "You work for somebody who reads your last message as the result. You have no sandbox and no files."
    network = {
        "none": "It has no network.",
        "limited": "Its network reaches only these hosts, through an HTTP proxy that the environment variables name: "
        + (", ".join(environment["config"]["networking"].get("allowed_hosts", ())) or "none")
        + ".",
        "unrestricted": "Its network reaches public hosts, through an HTTP proxy that the environment variables name.",
    }[environment["skiff"]["network"]]
    return (
        f"You work in a sandbox: a Linux container of your own, where you are an ordinary user. {network} Your files"
        f" are in {WORKSPACE}, which is the working directory; it is kept from turn to turn, while /tmp and running"
        " processes may not be. Whoever sent you reads your last message as the result and can fetch any file from"
        f" {WORKSPACE} and {OUTPUTS}; put what you hand over into the latter, and name the files that matter. Nobody"
        " can answer questions while you work, so decide and go on."
    )
