"""Packages and ready-made images on the real engine: installed once, really usable, and a failure that says why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from sandbox import readymade
from sandbox.docker import images, install, reaper, shelf
from sandbox.docker.engine import Engine
from sandbox.docker.images import Images, toolbox_tag
from sandbox.docker.labels import object_name
from sandbox.errors import ImageMissing, SandboxError, SandboxUnavailable, SpecRefused
from tests.sandbox.docker_engine import SPEC, backend, bash, require_engine

pytestmark = pytest.mark.docker

WANTED = replace(SPEC, packages=(("apt", ("tree",)), ("pip", ("iniconfig==2.0.0",))))
USE = "tree --version | cut -d' ' -f1; python3 -c 'import iniconfig; print(iniconfig.__name__)'"
STORY_SECONDS = 240
"""An installation fetches from the network; ten times what it takes when quiet."""


@pytest.fixture(autouse=True, scope="module")
def engine() -> None:
    require_engine()


def run(story: Callable[[Engine], Awaitable[None]]) -> None:
    """Run a story with an engine of its own, bounded."""

    async def bounded() -> None:
        engine = Engine()
        try:
            async with asyncio.timeout(STORY_SECONDS):
                await story(engine)
        finally:
            await engine.close()

    asyncio.run(bounded())


def installations(caplog: pytest.LogCaptureFixture) -> int:
    return sum("installing" in record.getMessage() for record in caplog.records)


async def forget_image(engine: Engine, packages: str) -> None:
    """As if nobody had ever wanted these packages; another run's container may keep the image."""
    everything, _ = await shelf.survey(engine)
    going = {one.tag for one in shelf.built(everything) if one.packages == packages}
    derived = [image for image in everything if (image.get("Labels") or {}).get(shelf.FROM) in going]
    for tag in [*(tag for image in derived for tag in image["RepoTags"] or ()), *going]:
        with contextlib.suppress(SandboxError):
            await shelf.remove(engine, tag)


def test_packages_are_installed_once_and_used_by_every_sandbox_of_the_environment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "skiff.sandbox.docker")

    async def story(engine: Engine) -> None:
        await forget_image(engine, "apt: tree; pip: iniconfig==2.0.0")
        async with backend(pool_size=1) as docker:
            one, two = await asyncio.gather(docker.create(WANTED, "one"), docker.create(WANTED, "two"))
            assert (one.ref.slot, two.ref.slot) == ("one", "two"), "a pooled one has no packages"
            for sandbox in (one, two):
                assert (await bash(sandbox, USE)).body == b"tree\niniconfig\n"
            assert installations(caplog) == 1
            await bash(one, "echo kept > file")
            await one.close()
            await reaper.remove_container(engine, object_name(docker.installation, "one"))
            async with type(docker)(docker.installation, default=SPEC) as restarted:
                again = await restarted.attach(one.ref, WANTED)
                assert (await bash(again, f"cat file; {USE}")).body == b"kept\ntree\niniconfig\n"
            assert installations(caplog) == 1

    run(story)


def test_a_package_that_does_not_exist_is_an_error_with_the_managers_words_and_is_not_tried_in_a_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "skiff.sandbox.docker")
    spec = replace(SPEC, packages=(("apt", ("skiff-has-no-such.package",)),))

    async def story(engine: Engine) -> None:
        async with backend() as docker:
            for again in ("", "not tried again"):
                with pytest.raises(SandboxUnavailable, match="Unable to locate package") as caught:
                    await docker.create(spec, "one")
                assert again in str(caught.value)
            assert installations(caplog) == 1
            assert await docker.list() == []
            assert (await bash(await docker.create(SPEC, "one"), "echo alive")).body == b"alive\n"

    run(story)


def test_a_name_that_is_more_than_a_name_reaches_no_engine() -> None:
    async def story(engine: Engine) -> None:
        async with backend() as docker:
            for name in ("x; id", "--pre", "git+https://host.example/x"):
                with pytest.raises(SpecRefused, match="is not a name and version"):
                    await docker.create(replace(SPEC, packages=(("pip", (name,)),)), "one")
            assert await docker.list() == []

    run(story)


def test_an_installation_is_bounded_in_time_and_leaves_nothing_behind() -> None:
    async def story(engine: Engine) -> None:
        base = f"skiff-tests-endless:{id(engine)}"
        repository, _, tag = base.partition(":")
        await engine.call("name it", lambda client: client.tag(toolbox_tag(), repository, tag))
        try:
            with pytest.raises(SandboxUnavailable, match=r"within 2 s \(setting package_build_seconds\)"):
                await install.install(engine, base, "sleep 600", "skiff-tests:no", {}, 2, print)
            everything = await engine.call("list", lambda client: client.containers(all=True))
            assert not [one for one in everything if one["Image"] == base]
        finally:
            await shelf.remove(engine, base)

    run(story)


def test_the_configuration_of_the_indexes_is_there_during_the_installation_and_not_in_the_image() -> None:
    few_capabilities = "grep -q '^CapEff:.00000000000000fb$' /proc/self/status"

    async def story(engine: Engine) -> None:
        tag = f"skiff-tests-clean:{id(engine)}"
        try:
            await install.install(
                engine,
                toolbox_tag(),
                f"set -e; test -s /run/skiff-build/pip.conf; {few_capabilities}",
                tag,
                {},
                60,
                print,
            )
            command = ["sh", "-c", "ls -A /run/skiff-build; grep -rl skiff-build /etc /root 2>/dev/null; echo looked"]
            made = await engine.call("look", lambda client: client.create_container(tag, command, entrypoint=[]))
            try:
                await engine.call("look", lambda client: client.start(made["Id"]))
                await engine.call("look", lambda client: client.wait(made["Id"]))
                assert await engine.call("look", lambda client: client.logs(made["Id"])) == b"looked\n"
            finally:
                await install.remove(engine, made["Id"])
        finally:
            await shelf.remove(engine, tag)

    run(story)


def test_a_ready_made_image_that_is_not_built_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = readymade.ReadyMade("Nothing.", (("apt", ("skiff-never-built",)),))
    monkeypatch.setattr(images, "RECIPES", {"never": recipe})

    async def story(engine: Engine) -> None:
        with pytest.raises(ImageMissing, match="run `skiff sandbox build never`"):
            await Images(engine).ensure("never")
        with pytest.raises(SpecRefused, match="there is no ready-made image 'other'"):
            await Images(engine).build_ready("other", print)

    run(story)


def test_a_ready_made_image_is_built_by_name_and_says_its_size_and_time() -> None:
    async def story(engine: Engine) -> None:
        built = await Images(engine).build_ready("databases", print)
        assert (built.name, built.size > 100 << 20) == ("databases", True)
        async with backend() as docker:
            assert built in await docker.built()
            sandbox = await docker.create(replace(SPEC, image="databases"), "one")
            clients = "for each in psql mysql redis-cli sqlite3; do command -v $each; done | wc -l"
            assert (await bash(sandbox, clients)).body.strip() == b"4"

    run(story)
