"""The soak of `make soak`, cut short: a real server under mixed load, and what it has afterwards. Counts, no times."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.soak.load import Plan, Seen, serving, soak
from benchmarks.soak.verdict import left_behind
from tests.support.messages_api import MessagesAPI, messages_api
from tests.support.sandboxes import data_folder, require
from tests.support.scenario import clear

PLAN = Plan(seconds=12.0, talkers=4, workers=2, pause=0.3, sandbox="docker", readings=3)


@pytest.mark.docker
def test_a_load_of_talks_commands_and_interrupts_loses_nothing_and_leaves_nothing_behind() -> None:
    require("docker")

    async def play() -> Seen:
        async with asyncio.timeout(240), serving(folder, PLAN, api.base_url) as site:
            return await soak(site, folder, PLAN, api.base_url)

    with data_folder() as folder, messages_api(MessagesAPI(keep=200)) as api:
        try:
            seen = asyncio.run(play())
        finally:
            left = clear("docker", folder)
    assert not seen.lost
    assert seen.turns > PLAN.talkers + PLAN.workers and seen.sessions >= PLAN.talkers + PLAN.workers
    assert max(reading.containers for reading in seen.readings) > 0, "some ran in containers"
    assert seen.after is not None and not left_behind(seen.before, seen.after)
    assert (seen.left, seen.after.containers, left) == (0, 0, [])
