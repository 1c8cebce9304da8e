"""The bytes of uploads: whole or not at all, and none that are nobody's."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from server.errors import StoreError, TooLarge
from server.files.blobs import Blobs


async def kept(blobs: Blobs, content: bytes) -> str:
    async with blobs.receiving(1 << 30) as incoming:
        await incoming.write(content)
        return await incoming.keep()


async def read(blobs: Blobs, name: str) -> bytes:
    return b"".join([portion async for portion in blobs.portions(name)])


def test_what_was_kept_is_read_again_and_only_its_owner_can(tmp_path: Path) -> None:
    async def story() -> None:
        blobs, content = Blobs(tmp_path / "files"), bytes(3_000_000)
        name = await kept(blobs, content)
        assert await read(blobs, name) == content
        assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "files" / name).stat().st_mode & 0o777 == 0o600
        await blobs.remove([name, name])
        with pytest.raises(StoreError):
            await read(blobs, name)

    asyncio.run(story())


def test_what_was_not_kept_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        blobs = Blobs(tmp_path)
        with pytest.raises(TooLarge):
            async with blobs.receiving(5_000_000) as incoming:
                for _ in range(10):
                    await incoming.write(bytes(1_000_000))
        with pytest.raises(KeyError):
            async with blobs.receiving(10) as incoming:
                await incoming.write(b"x")
                raise KeyError
        assert os.listdir(tmp_path) == []

    asyncio.run(story())


def test_only_bytes_that_nobody_names_and_nobody_brings_in_are_swept(tmp_path: Path) -> None:
    async def story() -> None:
        blobs = Blobs(tmp_path)
        known, orphan = [await kept(blobs, b"x") for _ in range(2)]
        (tmp_path / "torn.part").write_bytes(b"y")
        async with blobs.receiving(100) as half, blobs.receiving(100) as whole:
            named = {known}
            coming = await whole.keep()

            async def names() -> set[str]:
                assert orphan not in named
                return named

            assert await blobs.sweep(names) == 2
            assert set(os.listdir(tmp_path)) > {known, coming}
            await half.write(b"z")
            named.add(await half.keep())
            named.add(coming)
        assert await blobs.sweep(names) == 0
        assert set(os.listdir(tmp_path)) == named

    asyncio.run(story())


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(StoreError, match="folder of files"):
            await kept(Blobs(tmp_path / "file"), b"x")

    asyncio.run(story())
