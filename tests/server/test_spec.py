"""What a session is made of: frozen once, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.catalog import agents, environments
from server.errors import InvalidRequest, NotSupported
from server.providers.scripted.validation import refusal
from server.sessions.spec import freeze, thaw
from tests.server.test_environments import BOUNDS


def frozen(agent: dict[str, Any], environment: dict[str, Any] | None = None, *, web: bool = False) -> dict[str, Any]:
    return freeze(
        agents.resolve(agent, default_model="claude-sonnet-5-5", web=False),
        environments.resolve(environment or {}, BOUNDS),
        backend="local",
        max_tokens=1_000,
        web=web,
    )


@pytest.mark.parametrize("agent", [{}, {"tools": []}, {"system": "You help.", "tools": ["bash"]}, {"max_tokens": 500}])
def test_a_frozen_spec_survives_json_and_makes_a_request_that_the_api_takes(agent: dict[str, Any]) -> None:
    stored = frozen(agent)
    spec = thaw(json.loads(json.dumps(stored)))
    assert spec == thaw(stored)
    user = {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
    body = {"model": spec.model, "max_tokens": spec.max_tokens, "system": spec.system, "messages": [user]}
    assert refusal({**body, "tools": spec.tools} if spec.tools else body) is None
    assert spec.max_tokens == agent.get("max_tokens", 1_000)


def test_equal_asks_freeze_to_equal_bytes() -> None:
    one, other = frozen({"system": "a"}), frozen({"system": "a"})
    assert json.dumps([one["system"], one["tools"]]) == json.dumps([other["system"], other["tools"]])


def test_system_and_tools_carry_one_cache_mark_each() -> None:
    assert str(frozen({"system": "a"})["system"]).count("cache_control") == 1
    assert str(frozen({})["tools"]).count("cache_control") == 1


def test_a_web_tool_is_refused_by_name_where_the_provider_has_none() -> None:
    with pytest.raises(NotSupported, match="web_fetch"):
        frozen({"tools": ["bash", "web_fetch"]})


def test_web_tools_reach_the_environments_hosts_only() -> None:
    spec = frozen({"tools": ["web_fetch"]}, {"allowed_hosts": ["B.org", "*.a.org"]}, web=True)
    assert spec["tools"][0]["allowed_domains"] == ["a.org", "b.org"]


def test_a_web_tool_that_could_reach_nothing_is_refused_rather_than_let_loose() -> None:
    with pytest.raises(InvalidRequest, match="web_search can reach nothing"):
        frozen({"tools": ["web_search"]}, {"network": "limited", "allowed_hosts": []}, web=True)


def test_the_agent_is_told_what_its_network_is() -> None:
    assert "no network" in str(frozen({})["system"])
    assert "a.org" in str(frozen({}, {"allowed_hosts": ["a.org"]})["system"])
    assert "public hosts" in str(frozen({}, {"network": "open"})["system"])
    assert "no sandbox" in str(frozen({"tools": []})["system"])
