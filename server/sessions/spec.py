"""What a session is made of, frozen at its creation: agent, environment, rendered prompt and tools, sandbox backend.

Frozen, because the rendered bytes are the head of every model request of the session: an upgrade of Skiff must not
change them under a session that lives on (the provider's prompt cache would be lost, and the agent would be another).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.protocol import SandboxSpec
from server.errors import InvalidRequest, NotSupported
from server.providers.anthropic import server_tool
from server.sessions import environments
from server.sessions.transcript import CACHE_MARK
from server.tools import toolset

WORKSPACE = "/workspace"


@dataclass(frozen=True)
class Spec:
    """The frozen part of a session, read from its row."""

    agent: Mapping[str, Any]
    environment: Mapping[str, Any]
    system: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    max_tokens: int
    options: Mapping[str, Any]
    backend: str

    @property
    def model(self) -> str:
        return str(self.agent["model"]["id"])

    @property
    def agent_name(self) -> str:
        return str(self.agent["name"])

    @property
    def in_sandbox(self) -> frozenset[str]:
        """The enabled tools that run inside the sandbox."""
        return frozenset(toolset.enabled(self.agent["tools"])) & frozenset(toolset.IN_SANDBOX)

    @property
    def sandbox(self) -> SandboxSpec:
        return environments.sandbox_spec(self.environment)


def freeze(
    agent: Mapping[str, Any], environment: Mapping[str, Any], *, backend: str, max_tokens: int, web: bool
) -> dict[str, Any]:
    """The spec as stored. `web` says whether the provider has web tools of its own.

    Raises NotSupported when the agent names a web tool that this provider does not have, InvalidRequest when it could
    reach nothing: a provider takes an empty list of domains for all of them.
    """
    names = toolset.enabled(agent["tools"])
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
    tools = [_definition(name, environment) for name in names]
    if tools:
        tools[-1] = {**tools[-1], "cache_control": CACHE_MARK}
    return {
        "agent": dict(agent),
        "environment": dict(environment),
        "system": _system(agent, environment, names),
        "tools": tools,
        "max_tokens": agent.get("max_tokens") or max_tokens,
        "options": _options(agent),
        "backend": backend,
    }


def thaw(stored: Mapping[str, Any]) -> Spec:
    """The inverse of `freeze`."""
    return Spec(**stored)


def _definition(name: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    if name in toolset.IN_SANDBOX:
        return toolset.IN_SANDBOX[name].definition()
    networking = environment["config"]["networking"]
    hosts = networking.get("allowed_hosts", [])
    # The provider matches a domain with all its subdomains; `*.x` therefore becomes x, the nearest rule it has.
    domains = sorted({host.removeprefix("*.").lower() for host in hosts})
    kind: Literal["web_search", "web_fetch"] = "web_search" if name == "web_search" else "web_fetch"
    return server_tool(kind, {"allowed_domains": domains} if domains else {})


def _options(agent: Mapping[str, Any]) -> dict[str, Any]:
    """Further request fields: adaptive thinking and effort, for the models that know them."""
    model = str(agent["model"]["id"])
    if not model.startswith("claude-") or "haiku-4" in model or "sonnet-4-5" in model or "opus-4-5" in model:
        return {}
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": agent["model"]["effort"]["type"]}}


def _system(agent: Mapping[str, Any], environment: Mapping[str, Any], names: list[str]) -> list[dict[str, Any]]:
    parts = [agent["system"]] if agent.get("system") else []
    parts.append(_surroundings(environment, names))
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
        f" {WORKSPACE}; name the files that matter. Nobody can answer questions while you work, so decide and go on."
    )
