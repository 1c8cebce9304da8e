"""`Idempotency-Key` on a real port: through the official client, at the same time, and across a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anthropic
import pytest

from tests.support.served import Site, served

MODEL = "claude-sonnet-5-5"


def make(site: Site, key: str, name: str = "once") -> Any:
    return site.client().beta.agents.create(name=name, model=MODEL, extra_headers={"Idempotency-Key": key})


def test_a_create_that_is_sent_twice_makes_one_agent_even_across_a_restart() -> None:
    with served() as site:
        first = make(site, "key-1")
        assert make(site, "key-1").id == first.id
        site.stop()
        site.restart()
        assert make(site, "key-1").id == first.id
        assert make(site, "key-2").id != first.id
        assert len(list(site.client().beta.agents.list())) == 2


def test_the_key_of_another_request_is_a_conflict_that_the_client_does_not_repeat(site: Site) -> None:
    agent = make(site, "conflict-1")
    with pytest.raises(anthropic.ConflictError, match="used before") as refused:
        make(site, "conflict-1", name="another")
    assert refused.value.response.headers["x-should-retry"] == "false"
    site.client().beta.agents.archive(agent.id)


def test_many_at_the_same_time_make_one(site: Site) -> None:
    async def run() -> None:
        async with site.async_client(max_retries=8) as client:
            headers: Mapping[str, str] = {"Idempotency-Key": "crowd-1"}
            made = await asyncio.gather(
                *(client.beta.agents.create(name="crowd", model=MODEL, extra_headers=headers) for _ in range(8))
            )
            assert len({agent.id for agent in made}) == 1
            assert len([agent async for agent in client.beta.agents.list() if agent.name == "crowd"]) == 1
            await client.beta.agents.archive(made[0].id)

    asyncio.run(run())


def test_a_request_that_was_refused_may_be_sent_again_under_its_key(site: Site) -> None:
    headers = {"Idempotency-Key": "refused-1"}
    with pytest.raises(anthropic.BadRequestError):
        site.client().beta.agents.create(name="", model=MODEL, extra_headers=headers)
    agent = site.client().beta.agents.create(name="good", model=MODEL, extra_headers=headers)
    site.client().beta.agents.archive(agent.id)


def test_uploads_under_one_key_are_the_same_when_their_bytes_are(site: Site) -> None:
    files, headers = site.client().beta.files, {"Idempotency-Key": "upload-1"}
    first = files.upload(file=("a.txt", b"same"), extra_headers=headers)
    assert files.upload(file=("a.txt", b"same"), extra_headers=headers) == first
    for other in (("a.txt", b"else"), ("b.txt", b"same")):
        with pytest.raises(anthropic.ConflictError, match="used before"):
            files.upload(file=other, extra_headers=headers)
    assert [file.id for file in files.list() if file.filename == "a.txt" and file.size_bytes == 4].count(first.id) == 1
    files.delete(first.id)
