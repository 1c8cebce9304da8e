"""Uploads, and requests under a key."""

from __future__ import annotations

from tests.crash.act import Act
from tests.crash.stories.sandboxes import a_task_with_a_mount
from tests.crash.stories.story import Story, no_upload_is_left, over_the_wire

BIG = bytes(range(256)) * 10_000
"""More than two portions of what is written at once."""


async def an_upload(act: Act) -> None:
    await act.post("/v1/files", {"file": ("big.bin", BIG)}, "upload")


async def it_is_there_once(act: Act) -> None:
    """Sent again, it is one file with all its bytes."""
    made = await act.ask_again()
    assert made is not None
    files = act.door.uses.files
    assert [(file["id"], file["size_bytes"]) for file in await files.files(10, None, "asc")] == [(made["id"], len(BIG))]
    act.given["upload"] = made["id"]
    (blob,) = (act.machine.folder / "files").iterdir()
    assert blob.read_bytes() == BIG, "one file on the disk, and it is whole"


UPLOADED = Story(an_upload, go_on=it_is_there_once, check=no_upload_is_left)


async def an_agent_changed(act: Act) -> None:
    await over_the_wire(act)
    await act.post(f"/v1/agents/{act.given['agent']}", {"version": 1, "name": "other"}, "change")


async def it_was_done_once(act: Act) -> None:
    """Sent again, it gives the same; the rest of the story is then what it would have been."""
    again = await act.ask_again()
    assert again is not None
    catalog = act.door.uses.catalog
    assert len(await catalog.list_agents(10, None, "asc")) == 1
    assert len(await catalog.list_environments(10, None, "asc")) <= 1
    assert (
        len(await catalog.agent_versions((await catalog.list_agents(10, None, "asc"))[0]["id"], 10, None, "asc")) <= 2
    )


KEYED = Story(an_agent_changed, go_on=it_was_done_once)


async def a_mount_added(act: Act) -> None:
    await a_task_with_a_mount(act)
    await act.rests()
    more = {"type": "file", "file_id": act.given["upload"], "mount_path": "more.csv"}
    await act.post(f"/v1/sessions/{act.session}/resources", more, "more")


async def it_was_added_once(act: Act) -> None:
    again = await act.ask_again()
    assert again is not None
    given = await act.door.uses.files.resources(act.session, 10, None)
    assert [resource["mount_path"].rpartition("/")[2] for resource in given] == ["data.csv", "more.csv"]


ADDED = Story(a_mount_added, go_on=it_was_added_once, check=no_upload_is_left, lines=("one",), reply="a,b\n")
