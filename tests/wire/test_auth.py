"""Who is let in, through the official clients and over plain HTTP, on a real port; and `skiff keys` as it is typed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import anthropic
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.support.program import ROOT
from tests.support.scenario import eventually
from tests.support.served import TOKEN, Site, served

AGENTS = "/v1/agents"


def skiff(site: Site, *arguments: str) -> str:
    """What the command says, on the server's data folder."""
    command = [sys.executable, "-m", "server", *arguments, "--data-dir", str(site.machine.folder)]
    environment = {**site.machine.environment, "PATH": os.environ.get("PATH", ""), "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_official_clients_are_let_in_with_the_owners_token(site: Site) -> None:
    made = site.client().beta.agents.create(name="let in", model="claude-sonnet-5-5")

    async def run() -> None:
        async with site.async_client() as client:
            assert made.id in [agent.id async for agent in client.beta.agents.list()]

    asyncio.run(run())


def test_older_clients_send_their_key_as_x_api_key(site: Site) -> None:
    with site.http(authorization="", x_api_key=TOKEN, anthropic_version="2023-06-01") as http:
        assert http.get(f"{AGENTS}?beta=true").status_code == 200


@pytest.mark.parametrize("key", ["wrong", "skiff_key_0123456789_wrong", TOKEN + "x"])
def test_a_wrong_key_is_refused_and_not_tried_again(site: Site, key: str) -> None:
    with pytest.raises(anthropic.AuthenticationError) as refused:
        site.client(key, max_retries=2).beta.agents.list()
    assert refused.value.type == "authentication_error"
    assert refused.value.request_id == refused.value.body["request_id"]  # type: ignore[index]


def test_missing_and_wrong_keys_get_the_same_words(site: Site) -> None:
    said = []
    for headers in ({"authorization": ""}, {"authorization": "Bearer wrong"}, {"authorization": "", "x_api_key": "no"}):
        with site.http(**headers) as http:
            answer = http.get(AGENTS)
            assert answer.status_code == 401
            said.append(answer.json()["error"])
    assert said == [{"type": "authentication_error", "message": "Authentication failed"}] * 3


def test_a_made_key_is_good_on_both_doors_until_it_is_revoked() -> None:
    async def over_mcp(url: str, key: str) -> bool:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            return bool((await client.list_tools()).tools)

    async def refused(site: Site, key: str) -> bool:
        try:
            await asyncio.to_thread(lambda: site.client(key).beta.agents.list())
        except anthropic.AuthenticationError:
            return True
        return False

    async def run(site: Site) -> None:
        said = await asyncio.to_thread(skiff, site, "keys", "create", "--name", "laptop")
        key = said.split()[-1]
        assert list(site.client(key).beta.agents.list()) == []
        assert await over_mcp(site.url, key)
        key_id = key[:20]
        listed = skiff(site, "keys", "list")
        assert key_id in listed and "laptop" in listed and key not in listed
        skiff(site, "keys", "revoke", key_id)
        await eventually(lambda: refused(site, key), "the end of the key")

    with served() as site:
        asyncio.run(run(site))


def test_pages_and_names_that_are_not_ours_are_refused_on_every_guarded_path(site: Site) -> None:
    with site.http() as http:
        for path in (AGENTS, "/metrics", "/v1/nowhere"):
            strange = http.get(path, headers={"host": "evil.example"})
            assert (strange.status_code, strange.json()["error"]["type"]) == (421, "invalid_request_error")
            page = http.get(path, headers={"origin": "http://evil.example"})
            assert (page.status_code, page.json()["error"]["type"]) == (403, "permission_error")
            assert http.get(path, headers={"origin": site.url}).status_code in (200, 404)


def test_without_the_beta_nothing_is_there(site: Site) -> None:
    with site.http(anthropic_beta="") as http:
        answer = http.get(AGENTS)
        assert (answer.status_code, answer.json()["error"]["message"]) == (404, "not found")


def test_a_workspace_that_is_named_is_accepted(site: Site) -> None:
    with site.http(anthropic_workspace_id="wrkspc_1") as http:
        answer = http.get(AGENTS)
        assert answer.status_code == 200, json.dumps(answer.json())
