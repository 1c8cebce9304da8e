"""The catalog on a real database: inline agents found again, names, versions, ready-made environments, old data."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from server.catalog.environments import Bounds, sandbox_spec
from server.catalog.service import Catalog, Offer
from server.errors import InvalidRequest, NotFound, Refused
from server.store.catalog import CatalogStore
from server.store.database import Cursor
from server.store.migrate import migrate, statements
from server.store.sqlite import SqliteDatabase

BOUNDS = Bounds(images=(), max_cpus=2, max_memory_mb=4096, cpus=1, memory_mb=1024, disk_mb=2048, pids=512)
FIRST = Path(__file__).parents[2] / "server" / "store" / "migrations" / "0001_first.sql"


def on_catalog(
    folder: Path, work: Callable[[Catalog], Awaitable[Any]], old: Callable[[Cursor], None] | None = None
) -> Any:
    """What `work` gives on a new catalog, or on one whose database `old` has begun."""

    async def scenario() -> Any:
        database = SqliteDatabase(folder / "skiff.db")
        await database.open()
        try:
            if old is not None:
                await database.write(old)
            await database.write(migrate)
            return await work(Catalog(CatalogStore(database), Offer("scripted", BOUNDS, lambda model: False)))
        finally:
            await database.close()

    return asyncio.run(scenario())


def inline(**asked: Any) -> dict[str, Any]:
    return {"name": "a", "tools": [], **asked}


def test_equal_agents_are_one_and_the_newest_of_a_name_is_found(tmp_path: Path) -> None:
    async def work(catalog: Catalog) -> None:
        async def find(asked: Any) -> dict[str, Any]:
            return await catalog.find_agent(asked, open_network=False)

        first = await find(inline())
        assert (await find(inline()))["id"] == first["id"]
        second = await find(inline(system="x"))
        assert (await find("a"))["id"] == second["id"]
        assert (await find(first["id"]))["id"] == first["id"]
        assert (await find(inline()))["id"] == first["id"]  # saved anew: its name stands for it again
        assert (await find("a"))["id"] == first["id"]
        with pytest.raises(NotFound, match=r"No agent is saved as 'nobody' \(saved: a\)"):
            await find("nobody")

    on_catalog(tmp_path, work)


def test_an_inline_agent_that_somebody_changed_or_archived_is_another_one(tmp_path: Path) -> None:
    async def work(catalog: Catalog) -> None:
        first = await catalog.find_agent(inline(), open_network=False)
        assert (await catalog.update_agent(first["id"], {"system": "x"}))["version"] == 2
        second = await catalog.find_agent(inline(), open_network=False)
        assert second["id"] != first["id"]
        await catalog.archive_agent(second["id"])
        assert (await catalog.find_agent("a", open_network=False))["id"] == first["id"]
        assert (await catalog.find_agent(inline(), open_network=False))["id"] not in (first["id"], second["id"])
        with pytest.raises(Refused, match="is archived"):
            await catalog.find_agent(second["id"], open_network=False)

    on_catalog(tmp_path, work)


def test_an_agent_made_through_one_door_is_found_through_the_other(tmp_path: Path) -> None:
    async def work(catalog: Catalog) -> None:
        made = await catalog.create_agent({"name": "b", "model": "scripted", "skiff": {"max_tokens": 500}})
        found = await catalog.find_agent("b", open_network=False)
        assert (found["id"], found["max_tokens"]) == (made["id"], 500)
        own = await catalog.find_agent(inline(max_tokens=600), open_network=False)
        assert (await catalog.agent_for_session(own["id"]))["max_tokens"] == 600
        assert (await catalog.agent(own["id"]))["skiff"] == {"max_tokens": 600}

    on_catalog(tmp_path, work)


def test_a_ready_made_environment_is_used_by_its_name_unless_one_is_saved_under_it(tmp_path: Path) -> None:
    async def work(catalog: Catalog) -> None:
        made = await catalog.find_environment("data")
        assert sandbox_spec(made).image == "data"
        assert (await catalog.find_environment("data"))["id"] == made["id"]
        own = await catalog.create_environment({"name": "ci"})
        assert (await catalog.find_environment("ci"))["id"] == own["id"]
        assert {each["name"] for each in await catalog.list_environments(10, None, "desc")} == {"data", "ci"}
        with pytest.raises(NotFound, match="ready-made: standard, data, databases, ci"):
            await catalog.find_environment("nowhere")

    on_catalog(tmp_path, work)


def test_a_session_is_refused_an_agent_in_a_form_that_there_is_not(tmp_path: Path) -> None:
    async def work(catalog: Catalog) -> None:
        agent = await catalog.create_agent({"name": "b", "model": "scripted"})
        for asked, named in (
            (5, "agent must be"),
            ({"type": "other", "id": agent["id"]}, "agent.type"),
            ({"type": "agent"}, "agent.id"),
            ({"type": "agent", "id": agent["id"], "version": 0}, "agent.version"),
            ({"type": "agent", "id": agent["id"], "system": "x"}, "agent.system is unknown"),
            ({"type": "agent_with_overrides", "id": agent["id"], "name": "x"}, "agent.name is unknown"),
            ({"type": "agent_with_overrides", "id": agent["id"], "tools": ["bash"]}, "agent.tools.0"),
        ):
            with pytest.raises(InvalidRequest, match=named):
                await catalog.agent_for_session(asked)

    on_catalog(tmp_path, work)


def test_unstorable_characters_are_replaced_and_the_answer_is_what_is_read_again(tmp_path: Path) -> None:
    async def work(catalog: Catalog) -> None:
        made = await catalog.create_agent({"name": "a\0\ud800", "model": "scripted"})
        assert made["name"] == "a\ufffd\ufffd"
        assert await catalog.agent(made["id"]) == made

    on_catalog(tmp_path, work)


def test_what_the_first_schema_held_is_there_as_a_first_version(tmp_path: Path) -> None:
    at = "2026-01-01T00:00:00.000000Z"
    dates: dict[str, Any] = {"created_at": at, "updated_at": at, "archived_at": None, "metadata": {}}
    model = {"id": "scripted", "effort": {"type": "high"}, "speed": "standard", "inference_geo": None}
    agent: dict[str, Any] = {
        "id": "agent_1",
        "type": "agent",
        "version": 1,
        "name": "old",
        "model": model,
        "tools": [],
        **dates,
    }
    agent |= {"description": None, "system": None, "max_tokens": None}
    environment = {"id": "env_1", "type": "environment", "name": "old", "description": None, **dates}
    environment["config"] = {
        "type": "cloud",
        "networking": {
            "type": "limited",
            "allowed_hosts": [],
            "allow_mcp_servers": False,
            "allow_package_managers": False,
        },
        "packages": {"type": "packages"},
    }
    environment["skiff"] = {"network": "none", "image": "", "cpus": 1, "memory_mb": 64, "disk_mb": 1, "pids": 1}

    def old(cursor: Cursor) -> None:
        for statement in statements(FIRST.read_text("utf-8")):
            cursor.execute(statement)
        cursor.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY, at TEXT NOT NULL)")
        cursor.execute("INSERT INTO migrations (number, at) VALUES (1, :at)", {"at": at})
        cursor.execute(
            "INSERT INTO agents (id, version, name, digest, body, created_at)"
            " VALUES ('agent_1', 1, 'old', 'd', :body, :at)",
            {"body": json.dumps(agent), "at": at},
        )
        cursor.execute(
            "INSERT INTO environments (id, name, digest, body, created_at) VALUES ('env_1', 'old', 'd', :body, :at)",
            {"body": json.dumps(environment), "at": at},
        )

    async def work(catalog: Catalog) -> None:
        assert (await catalog.find_agent("old", open_network=False))["id"] == "agent_1"
        assert (await catalog.update_agent("agent_1", {"version": 1, "system": "x"}))["version"] == 2
        assert [each["version"] for each in await catalog.agent_versions("agent_1", 10, None, "desc")] == [2, 1]
        found = await catalog.environment_for_session("env_1")
        assert sandbox_spec(found).network.mode == "none"
        assert (await catalog.update_environment("env_1", {"name": "new"}))["name"] == "new"
        assert [each["id"] for each in await catalog.list_agents(10, None, "asc")] == ["agent_1"]

    on_catalog(tmp_path, work, old)
