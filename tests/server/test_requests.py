"""Bodies that create and update sessions."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequest, NotSupported
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


def test_what_a_session_cannot_have_yet_is_refused_by_name() -> None:
    with pytest.raises(NotSupported, match="vault_ids"):
        read_new({**GOOD, "vault_ids": ["vlt_1"]})


def limit(amount: Any, currency: Any = "USD", kind: Any = "limit") -> dict[str, Any]:
    return {"type": kind, "max_list_cost": {"amount": amount, "currency": currency}}


def test_a_budget_is_one_of_dollars_and_of_measures_of_our_own() -> None:
    own = {"tokens": 1000, "turns": 2, "seconds": 1.5}
    asked = read_new({**GOOD, "budget": limit("250"), "skiff": {"budget": own}})
    assert asked.budget == {"usd": "2.5", **own}
    assert read_new({**GOOD, "budget": None, "skiff": {"budget": {"tokens": None}}}).budget == {}
    assert read_update({"budget": None, "skiff": {"budget": {"turns": None}}}).budget == {"usd": None, "turns": None}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"budget": 5}, "budget"),
        ({"budget": limit("100") | {"more": 1}}, "budget.more"),
        ({"budget": limit("100", kind="soft")}, "budget.type"),
        ({"budget": limit("100", currency="EUR")}, "budget.max_list_cost.currency"),
        *[({"budget": limit(amount)}, "budget.max_list_cost.amount") for amount in (100, "0", "01", "1.5", "-1", "")],
        ({"skiff": {"budget": {"usd": 1}}}, "skiff.budget.usd"),
        ({"skiff": {"bugdet": {}}}, "skiff.bugdet"),
        *[({"skiff": {"budget": {"tokens": value}}}, "skiff.budget.tokens") for value in (0, 1.5, True, "a", 10**16)],
        *[({"skiff": {"budget": {"seconds": value}}}, "skiff.budget.seconds") for value in (0, -1, True, "a", 1e99)],
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_budget_is_named(body: dict[str, Any], named: str) -> None:
    for read, asked in ((read_new, {**GOOD, **body}), (read_update, body)):
        with pytest.raises(InvalidRequest, match=f"^{named}\\b"):
            read(asked)


def test_an_update_tells_a_title_that_is_taken_away_from_one_that_is_kept() -> None:
    assert read_update({"title": None}).title == (None,)
    assert read_update({}).title is None


def test_vaults_cannot_be_given_later() -> None:
    with pytest.raises(NotSupported, match="vault_ids"):
        read_update({"vault_ids": []})


@pytest.mark.parametrize("field", ["model", "system", "skills"])
def test_of_its_agent_a_session_can_change_tools_and_servers_alone(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"agent.{field}"):
        read_update({"agent": {field: None}})
