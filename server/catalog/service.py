"""The use-cases of agents and environments.

Above: the doors, and `sessions.service`, which asks for what a new session is made of. Below: `agents` and
`environments`, which decide, and the store. It does not know sessions: one holds what it was made of within itself, and
outlives its agent's next version as well as its environment's end.

What is created, changed and listed is given as the wire reads it (`agents.wire`, `environments.wire`); what a session
is made of, as it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.readymade import READY_MADE
from server.catalog import agents, environments, fields, later
from server.errors import InvalidRequest, NotFound, Refused, coded
from server.store.answers import Keep
from server.store.catalog import Also, Body, CatalogStore, Position, Table


@dataclass(frozen=True)
class Offer:
    """What the operator's settings say about new agents and environments."""

    model: str
    """The model of agents that name none."""
    bounds: environments.Bounds
    web: agents.Web


class Catalog:
    """Agents and environments."""

    def __init__(self, store: CatalogStore, offer: Offer) -> None:
        self._store = store
        self._offer = offer

    # --- agents ------------------------------------------------------------------------------------------------------

    async def create_agent(self, asked: Mapping[str, Any], keep: Keep | None = None) -> Body:
        """Keep a new agent, and the answer with it. Raises InvalidRequest, NotSupported."""
        new = agents.create(asked, self._offer.web)
        return agents.wire(await self._store.add("agents", new, _kept(keep, agents.wire)))

    async def agent(self, agent_id: str, version: int | None = None) -> Body:
        """An agent, in its newest version or this one. Raises NotFound."""
        return agents.wire(await self._agent(agent_id, version))

    async def update_agent(self, agent_id: str, patch: Mapping[str, Any], keep: Keep | None = None) -> Body:
        """Make an agent's next version, and keep the answer with it; a patch that changes nothing makes none.

        Raises NotFound, InvalidRequest, Refused when it is archived, Conflict when `version` is not the newest.
        """
        found = await self._store.change(
            "agents", agent_id, lambda old: agents.update(old, patch, self._offer.web), _kept(keep, agents.wire)
        )
        return agents.wire(_there(found, agent_id))

    async def archive_agent(self, agent_id: str) -> Body:
        """Close an agent to new versions and new sessions, for ever. Again it changes nothing. Raises NotFound."""
        return agents.wire(_there(await self._store.archive("agents", agent_id), agent_id))

    async def list_agents(
        self,
        limit: int,
        after: Position | None,
        order: str,
        *,
        created: Mapping[str, str] | None = None,
        include_archived: bool = False,
    ) -> list[Body]:
        """Agents by age, at most `limit` behind `after`; `created` bounds it, as in `{"gte": time}`."""
        found = await self._store.page(
            "agents", limit, after, order, created=created or {}, include_archived=include_archived
        )
        return [agents.wire(agent) for agent in found]

    async def agent_versions(self, agent_id: str, limit: int, after: Position | None, order: str) -> list[Body]:
        """An agent's versions by number; `after` is (number, id). Raises NotFound."""
        _there(await self._store.find("agents", agent_id), agent_id)
        number = _number(after[0]) if after else None
        return [agents.wire(agent) for agent in await self._store.versions(agent_id, limit, number, order)]

    # --- environments ------------------------------------------------------------------------------------------------

    async def create_environment(self, asked: Mapping[str, Any], keep: Keep | None = None) -> Body:
        """Keep a new environment, and the answer with it. Raises InvalidRequest, NotSupported."""
        new = environments.create(asked, self._offer.bounds)
        return environments.wire(await self._store.add("environments", new, _kept(keep, environments.wire)))

    async def environment(self, environment_id: str) -> Body:
        """An environment. Raises NotFound."""
        return environments.wire(_place(await self._store.find("environments", environment_id), environment_id))

    async def update_environment(self, environment_id: str, patch: Mapping[str, Any]) -> Body:
        """Change an environment for the sessions made from now on. Raises NotFound, InvalidRequest, Refused."""
        bounds = self._offer.bounds
        found = await self._store.change(
            "environments", environment_id, lambda old: environments.update(old, patch, bounds)
        )
        return environments.wire(_place(found, environment_id))

    async def archive_environment(self, environment_id: str) -> Body:
        """Close an environment to new sessions, for ever. Again it changes nothing. Raises NotFound."""
        return environments.wire(_place(await self._store.archive("environments", environment_id), environment_id))

    async def delete_environment(self, environment_id: str) -> Body:
        """Remove an environment; its sessions go on. Raises NotFound."""
        if not await self._store.delete_environment(environment_id):
            _place(None, environment_id)
        return {"id": environment_id, "type": "environment_deleted"}

    async def list_environments(
        self, limit: int, after: Position | None, order: str, *, include_archived: bool = False
    ) -> list[Body]:
        """Environments by age, at most `limit` behind `after`."""
        found = await self._store.page(
            "environments", limit, after, order, created={}, include_archived=include_archived
        )
        return [environments.wire(environment) for environment in found]

    # --- what a session is made of -----------------------------------------------------------------------------------

    async def agent_for_session(self, asked: Any) -> Body:
        """The agent of a new session: an id, `{"type": "agent", id, version?}`, or `{"type": "agent_with_overrides",
        id, version?, model?, system?, tools?, mcp_servers?, skills?}`; id and version stay the agent's own.

        Raises InvalidRequest, NotFound, Refused when it is archived.
        """
        reference = {"type": "agent", "id": asked} if isinstance(asked, str) else fields.mapping(asked, "agent")
        with fields.within("agent"):
            kind = fields.choice(reference.get("type"), "type", ("agent", "agent_with_overrides"))
            own = agents.OVERRIDES if kind == "agent_with_overrides" else ()
            fields.known(reference, ("type", "id", "version", *own))
            agent_id = fields.text(reference.get("id"), "id", 255, 1)
            version = later.version(reference.get("version"), "version")
        newest = _there(await self._store.find("agents", agent_id), agent_id)
        if newest["archived_at"]:
            raise Refused(f"Agent {agent_id} is archived.")
        agent = newest if version is None else await self._store.version(agent_id, version)
        if agent is None:
            raise NotFound(f"agent.version: {version} not found")
        return self.overridden(agent, {key: reference[key] for key in own if key in reference})

    def overridden(self, agent: Mapping[str, Any], changes: Mapping[str, Any]) -> Body:
        """A session's agent with the session's own values for some of `agents.OVERRIDES`. Raises InvalidRequest."""
        with fields.within("agent"):
            return agents.override(agent, changes, self._offer.web)

    async def environment_for_session(self, environment_id: str) -> Body:
        """The environment of a new session. Raises NotFound, Refused when it is archived."""
        found = _place(await self._store.find("environments", environment_id), environment_id)
        if found["archived_at"]:
            raise Refused(f"Environment {environment_id} is archived.")
        return found

    async def find_agent(self, asked: str | Mapping[str, Any] | None, *, open_network: bool) -> Body:
        """The agent that the MCP door's caller means: the newest with this name or id, or one described inline, which
        is saved. `open_network` says whether web tools are on where tools are not named."""
        if isinstance(asked, str):
            return await self._saved("agents", "agent", asked)
        model = (asked or {}).get("model") or self._offer.model
        model_id = str(model.get("id", "") if isinstance(model, Mapping) else model)
        web = open_network and self._offer.web(model_id)
        agent = agents.resolve(asked or {}, default_model=self._offer.model, web=web)
        return await self._store.save("agents", agent, agents.digest(agent))

    async def find_environment(self, asked: str | Mapping[str, Any] | None) -> Body:
        """Likewise the environment; the names of the ready-made ones stand for them unless one is saved under it."""
        bounds = self._offer.bounds
        if isinstance(asked, str):
            made = environments.ready_made(asked, bounds)
            if made is None or await self._store.named("environments", asked) is not None:
                return await self._saved("environments", "environment", asked)
            return await self._store.save("environments", made, environments.digest(made))
        environment = environments.resolve(asked or {}, bounds)
        return await self._store.save("environments", environment, environments.digest(environment))

    # --- parts -------------------------------------------------------------------------------------------------------

    async def _agent(self, agent_id: str, version: int | None) -> Body:
        newest = _there(await self._store.find("agents", agent_id), agent_id)
        if version is None:
            return newest
        found = await self._store.version(agent_id, version)
        if found is None:
            raise NotFound("Agent version not found.")
        return found

    async def _saved(self, table: Table, noun: str, name: str) -> Body:
        found = await self._store.named(table, name)
        if found is None:
            ready = f"; ready-made: {', '.join(READY_MADE)}" if table == "environments" else ""
            known = ", ".join(await self._store.names(table)) or "none yet"
            raise NotFound(
                f"No {noun} is saved as {name!r} (saved: {known}{ready}). Describe it inline, with a `name` to save it."
            )
        if found["archived_at"]:
            raise Refused(f"{noun.capitalize()} {name} is archived.")
        return found


def _kept(keep: Keep | None, wire: Callable[[Body], Mapping[str, Any]]) -> Also | None:
    """Keep what was made as the wire reads it, for whoever asks again under the same key."""
    return None if keep is None else lambda cursor, made: keep(cursor, wire(made))


def _there(agent: Body | None, agent_id: str) -> Body:
    if agent is None:
        raise NotFound(f"Agent {agent_id} not found.")
    return agent


def _place(environment: Body | None, environment_id: str) -> Body:
    if environment is None:
        raise coded(NotFound(f"Environment {environment_id} not found."), "environment_not_found")
    return environment


def _number(text: str) -> int:
    if not text.isdecimal():
        raise InvalidRequest("invalid page cursor")
    return int(text)
