"""A sandbox that is made, rests, or is removed."""

from __future__ import annotations

import pytest

from server.errors import NotFound
from tests.crash.act import Act
from tests.crash.judge import sandbox_state
from tests.crash.stories.story import DONE, FIRST, Story, counted, no_upload_is_left, over_the_wire
from tests.support.git_host import GitHost
from tests.support.scenario import call, eventually

# --- a sandbox being made --------------------------------------------------------------------------------------------


async def a_task_with_files(act: Act) -> None:
    read = call(counted("one", "; cat given/a given/b"))
    await act.make(read, {"say": "$RESULT"}, files={"given/a": b"first ", "given/b": b"second"})


STAGED = Story(a_task_with_files, lines=("one",), reply="first second")
POOLED = Story(a_task_with_files, lines=("one",), reply="first second", settings={"SKIFF_POOL": "1"})


async def a_task_with_a_mount(act: Act) -> None:
    await over_the_wire(act)
    uploaded = await act.post("/v1/files", {"file": ("data.csv", b"a,b\n")})
    given = [{"type": "file", "file_id": uploaded["id"], "mount_path": "data.csv"}]
    act.session = (await act.post("/v1/sessions", {**act.given, "resources": given}))["id"]
    await act.tell(call(counted("one", "; cat /mnt/session/uploads/data.csv")), {"say": "$RESULT"})
    act.given["upload"] = uploaded["id"]


async def a_task_with_a_repository(act: Act) -> None:
    GitHost(act.machine.folder / "git").repository("some/code", {"README": "read me"})
    await over_the_wire(act)
    given = [{"type": "github_repository", "url": "https://git.test/some/code", "mount_path": "/workspace/code"}]
    act.session = (await act.post("/v1/sessions", {**act.given, "resources": given}))["id"]
    await act.tell(call(counted("one", "; cat code/README")), {"say": "$RESULT"})


CHECKED_OUT = Story(
    a_task_with_a_repository,
    lines=("one",),
    reply="read me",
    settings={"SKIFF_GIT_HOSTS": '{"git.test": "file://{folder}/git"}'},
)
MOUNTED = Story(a_task_with_a_mount, check=no_upload_is_left, lines=("one",), reply="a,b\n")


# --- a sandbox that rests --------------------------------------------------------------------------------------------


async def an_idle_session(act: Act) -> None:
    await act.make(call(counted("one", "; X=kept")), DONE)


async def a_message_to_it(act: Act) -> None:
    await act.rests()
    await act.tell(call(counted("two", '; echo "${X:-new}"')), {"say": "$RESULT"})


FROZEN = Story(
    an_idle_session, go_on=a_message_to_it, lines=("one", "two"), reply="kept\n", settings={"SKIFF_PAUSE_AFTER": "0.2"}
)
STOPPING = Story(
    an_idle_session, go_on=a_message_to_it, lines=("one", "two"), reply="kept\n", settings={"SKIFF_STOP_AFTER": "1"}
)
"""The next life comes before it is stopped."""
STOPPED = Story(
    an_idle_session, go_on=a_message_to_it, lines=("one", "two"), reply="new\n", settings={"SKIFF_STOP_AFTER": "1"}
)


_AWAY = {"SKIFF_STOP_AFTER": "1", "SKIFF_CHECKPOINT_AFTER": "1"}
STORED = Story(an_idle_session, go_on=a_message_to_it, lines=("one", "two"), reply="new\n", settings=_AWAY)


async def a_session_put_away(act: Act) -> None:
    await an_idle_session(act)
    await act.rests()

    async def stored() -> bool:
        return sandbox_state(act.machine.folder, act.session) == "stored"

    await eventually(stored, "the putting away")
    await a_message_to_it(act)


RESTORED = Story(a_session_put_away, lines=("one", "two"), reply="new\n", settings=_AWAY)


async def a_lost_sandbox(act: Act) -> None:
    """Everything of a sandbox is gone, and it is needed again."""
    await a_task_with_a_mount(act)
    await act.rests()
    await act.lose()
    await act.tell(call(counted("two", "; cat /mnt/session/uploads/data.csv")), {"say": "$RESULT"})


REMADE = Story(a_lost_sandbox, check=no_upload_is_left, lines=("two",), maybe=("one",), reply="a,b\n")


async def a_deletion(act: Act) -> None:
    await act.make(FIRST, DONE)
    await act.rests()
    await act.delete()


async def nothing_is_left(act: Act) -> None:
    with pytest.raises(NotFound):
        await act.view()
    act.session = ""


DELETED = Story(a_deletion, go_on=nothing_is_left)
