"""A workspace before there is a sandbox, and paths that try to leave it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.errors import InvalidRequest, NotFound
from server.sessions.sandboxing.workspace import MAX_FILE, MAX_STAGED, File, Folder, check_staged, clean
from server.sessions.service import NewSession
from tests.support.factories import running_app


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("a", "a"), ("./a//b/", "a/b"), ("a/../b", "b"), (".", "."), ("", "."), ("/workspace", "."),
        ("/workspace/", "."), ("/workspace/a", "a"), ("..a", "..a"), ("ä\n", "ä\n"),
    ],
)  # fmt: skip
def test_a_path_is_relative_to_the_workspace(given: str, path: str) -> None:
    assert clean(given) == path


@pytest.mark.parametrize(
    "given", ["..", "../a", "a/../..", "/", "/etc/passwd", "//etc", "/workspace/../etc", "/workspaces/a", "a\0b"]
)
def test_a_path_that_leaves_the_workspace_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequest):
        clean(given)


def test_files_that_wait_for_a_sandbox_are_bounded_together() -> None:
    check_staged({"a": b"x" * MAX_STAGED})
    with pytest.raises(InvalidRequest, match="20,971,520"):
        check_staged({"a": b"x" * MAX_STAGED, "b": b"x"})


def test_staged_files_are_listed_read_in_portions_and_written_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_app(tmp_path) as app:
            service = app.service
            made = await service.create_session(NewSession(files={"b.txt": b"hello", "/workspace/d/x.png": b"\x89"}))
            folder = await service.read_workspace(made.id)
            assert isinstance(folder, Folder)
            assert [(entry.name, entry.type, entry.size) for entry in folder.entries] == [
                ("b.txt", "file", 5),
                ("d", "dir", None),
            ]
            image = await service.read_workspace(made.id, "d/x.png")
            assert isinstance(image, File)
            assert image.media_type == "image/png"
            await service.write_workspace(made.id, "b.txt", b"\0again")
            part = await service.read_workspace(made.id, "b.txt", offset=2, limit=3)
            assert isinstance(part, File)
            assert (part.content, part.offset, part.size) == (b"gai", 2, 6)
            with pytest.raises(NotFound):
                await service.read_workspace(made.id, "nothing")
            for path, content in ((".", b""), ("../a", b""), ("big", b"x" * (MAX_FILE + 1))):
                with pytest.raises(InvalidRequest):
                    await service.write_workspace(made.id, path, content)

    asyncio.run(scenario())
