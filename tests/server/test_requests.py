"""Bodies that create and update sessions."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequest, NotSupported, Refused
from server.sessions.requests import read_new, read_update

GOOD: dict[str, Any] = {"agent": "agent_1", "environment_id": "env_1"}


def test_what_is_left_out_of_a_new_session_is_empty() -> None:
    asked = read_new(GOOD)
    assert (asked.title, asked.metadata, list(asked.resources), list(asked.initial_events)) == (None, {}, [], [])
    assert read_new({**GOOD, "budget": None, "vault_ids": [], "metadata": None}) == asked


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"environment_id": "env_1"}, "agent"),
        ({"agent": "agent_1"}, "environment_id"),
        ({**GOOD, "agent": 3}, "agent"),
        ({**GOOD, "environment_id": ""}, "environment_id"),
        ({**GOOD, "title": 3}, "title"),
        ({**GOOD, "title": "t" * 1025}, "title"),
        ({**GOOD, "metadata": {"a": None}}, "metadata"),
        ({**GOOD, "metadata": {"k" * 65: "v"}}, "metadata"),
        ({**GOOD, "metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({**GOOD, "resources": {}}, "resources"),
        ({**GOOD, "initial_events": "go"}, "initial_events"),
        ({**GOOD, "initial_events": [{}] * 51}, "initial_events"),
        ({**GOOD, "vault_ids": "vlt_1"}, "vault_ids"),
        ({**GOOD, "system": "be brief"}, "system"),
    ],
)
def test_what_is_wrong_with_a_new_session_is_named(body: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{named}\\b"):
        read_new(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [("budget", {"type": "limit", "max_list_cost": {"amount": "1", "currency": "USD"}}), ("vault_ids", ["vlt_1"])],
)
def test_what_a_session_cannot_have_yet_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(NotSupported, match=field):
        read_new({**GOOD, field: value})


def test_an_update_tells_a_title_that_is_taken_away_from_one_that_is_kept() -> None:
    assert read_update({"title": None}).title == (None,)
    assert read_update({}).title is None


def test_vaults_and_budgets_cannot_be_given_later() -> None:
    with pytest.raises(NotSupported, match="vault_ids"):
        read_update({"vault_ids": []})
    with pytest.raises(Refused, match="budget") as caught:
        read_update({"budget": {"type": "limit", "max_list_cost": {"amount": "1", "currency": "USD"}}})
    assert caught.value.code == "budget_create_only"
    assert read_update({"budget": None}) == read_update({})


@pytest.mark.parametrize("field", ["model", "system", "skills"])
def test_of_its_agent_a_session_can_change_tools_and_servers_alone(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"agent.{field}"):
        read_update({"agent": {field: None}})
