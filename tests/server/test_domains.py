"""Where web tools may go: an agent's settings within an environment's hosts."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequest, NotSupported
from server.sessions.domains import narrowed


@pytest.mark.parametrize(
    ("setting", "hosts", "left"),
    [
        ({}, [], {}),
        ({"allowed_domains": ["a.com"]}, [], {"allowed_domains": ["a.com"]}),
        ({"blocked_domains": ["a.com"]}, [], {"blocked_domains": ["a.com"]}),
        ({"max_content_tokens": 5}, ["*.A.com"], {"max_content_tokens": 5, "allowed_domains": ["a.com"]}),
        ({"allowed_domains": ["docs.a.com", "b.com"]}, ["a.com"], {"allowed_domains": ["docs.a.com"]}),
        ({"allowed_domains": ["a.com"]}, ["docs.a.com", "b.com"], {"allowed_domains": ["docs.a.com"]}),
        ({"allowed_domains": ["a.com/Guide"]}, ["a.com"], {"allowed_domains": ["a.com/Guide"]}),
        ({"blocked_domains": ["b.com"]}, ["a.com", "x.b.com"], {"allowed_domains": ["a.com"]}),
    ],
)
def test_a_web_tool_reaches_what_both_the_agent_and_its_environment_allow(
    setting: dict[str, Any], hosts: list[str], left: dict[str, Any]
) -> None:
    assert narrowed("web_fetch", setting, hosts) == left


@pytest.mark.parametrize("setting", [{"allowed_domains": ["b.com"]}, {"blocked_domains": ["com"]}])
def test_a_web_tool_that_could_reach_nothing_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="can reach nothing"):
        narrowed("web_search", setting, ["a.com"])


def test_an_exception_below_an_allowed_host_is_refused_by_name() -> None:
    with pytest.raises(NotSupported, match=r"web_search\.blocked_domains: x\.a\.com"):
        narrowed("web_search", {"blocked_domains": ["x.a.com"]}, ["a.com"])
