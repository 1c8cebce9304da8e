"""A tool that takes its time."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from typing import Any

from tests.crash.act import Act
from tests.crash.stories.story import FIRST, GATE, Story, counted, edited, file
from tests.support.scenario import SECONDS, call, eventually


async def a_gated_command(act: Act) -> None:
    await act.make(FIRST, call(counted("gate", GATE)), {"say": "$RESULT"})


async def beside_an_edit(act: Act) -> None:
    await act.make(FIRST, call(counted("gate", GATE), edited("end", "line")), {"say": "$RESULT"})


async def let_go(act: Act) -> None:
    """Open the gate while nobody listens, and wait until the command has ended."""
    await act.inside("touch /workspace/on")

    async def over() -> bool:
        return bool(await act.inside("ls /workspace/over 2>/dev/null || true"))

    await eventually(over, "the end of the command")


async def watch(act: Act) -> None:
    """Ask the engine to tell when somebody attaches."""
    (container,) = await act.containers()
    chosen = ("--filter", f"container={container}", "--filter", "event=attach", "--format", "attached")
    act.given["attached"] = await asyncio.create_subprocess_exec("docker", "events", *chosen, stdout=PIPE)


async def let_go_once_attached(act: Act) -> None:
    """Open the gate when the next life is there."""
    watching: Process = act.given.pop("attached")
    assert watching.stdout is not None
    async with asyncio.timeout(SECONDS):
        await watching.stdout.readline()
    watching.terminate()
    await watching.communicate()
    await act.inside("touch /workspace/on")


_GATED: Mapping[str, Any] = {"lines": ("one", "gate"), "reply": "begun\nover\n"}
GATED = Story(a_gated_command, watch, let_go_once_attached, **_GATED)
"""The command still runs when the next life comes."""
FINISHED = Story(a_gated_command, let_go, **_GATED)
"""The command ends while nobody is there."""
STUCK = Story(a_gated_command, **_GATED)
"""The command ends with its sandbox: nobody opens the gate."""
BESIDE = Story(beside_an_edit, watch, let_go_once_attached, lines=("one", "gate"), edits=("line", "end"), reply=None)


async def terminated(act: Act) -> None:
    """The server is asked to leave in the middle of a command."""
    await a_gated_command(act)
    await eventually(lambda: file(act, "counter", "gate"), "the command")
    act.lives[-1].terminate()


LEAVING = Story(terminated, watch, let_go_once_attached, **_GATED)
