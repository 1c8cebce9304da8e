"""Building and deriving sandbox images on the real engine."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from sandbox.docker.endpoint import Endpoint
from sandbox.docker.engine import Engine
from sandbox.docker.images import Images, derived_tag, runner_files, runner_version
from sandbox.errors import SandboxUnavailable, SpecRefused
from tests.sandbox.docker_engine import require_engine

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True, scope="module")
def engine() -> None:
    require_engine()


def refused(changes: list[str], files: list[str]) -> str:
    """Why an image of these files and settings is refused as a sandbox."""

    async def story() -> str:
        engine = Engine()
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for name in files:
                tar.addfile(tarfile.TarInfo(name))
        content = data.getvalue()
        await engine.call(
            "import",
            lambda client: client.import_image_from_data(content, "skiff-tests-refused", "1", changes=changes),
        )
        try:
            with pytest.raises(SpecRefused) as caught:
                await Images(engine).ensure("skiff-tests-refused:1")
            return str(caught.value)
        finally:
            await engine.call("remove", lambda client: client.remove_image("skiff-tests-refused:1", force=True))
            await engine.close()

    return asyncio.run(story())


def test_an_image_without_python_is_refused_by_name() -> None:
    assert refused([], ["etc-empty"]) == (
        "the image 'skiff-tests-refused:1' cannot be a sandbox: it has no python3 (3.8 or newer is needed)"
    )


def test_an_image_with_its_own_workspace_volume_is_refused() -> None:
    assert "declares /workspace as a volume" in refused(["VOLUME /workspace"], ["etc-empty"])


def test_building_again_is_quick_and_gives_the_same_image() -> None:
    async def story() -> None:
        engine = Engine()
        images, lines = Images(engine), list[str]()
        tag = await images.build(lines.append)
        assert tag == await images.ensure("")
        assert tag.endswith(f"-{images.version}")
        assert not any(line.startswith("building the toolbox") for line in lines)
        await engine.close()

    asyncio.run(story())


def test_an_image_is_keyed_by_its_digest_and_the_runners_version() -> None:
    assert derived_tag("sha256:" + "ab" * 32, "0123456789ab") == "skiff-sandbox:" + "ab" * 8 + "-0123456789ab"
    assert runner_version() == runner_version()
    assert {"sandbox/__init__.py", "sandbox/wire.py", "sandbox/runner/__main__.py"} <= set(runner_files())


def test_an_engine_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    async def story() -> None:
        engine = Engine(Endpoint(socket=str(tmp_path / "none.sock"), source="a test"))
        with pytest.raises(SandboxUnavailable, match=r"no container engine answers.*make engine"):
            await Images(engine).ensure("")

    asyncio.run(story())
