"""A turn with every kind of tool, and what a client sends into it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sandbox.docker.backend import DockerBackend
from server.errors import Conflict
from tests.crash.act import Act
from tests.crash.stories.story import DONE, FIRST, GATE, Story, ask_again, counted, edited, file, over_the_wire
from tests.support.scenario import call, eventually, script

# --- a turn with every kind of tool ----------------------------------------------------------------------------------


async def a_round(act: Act) -> None:
    side_by_side = call(counted("two"), edited("end", "more"), counted("three"))
    await act.make(FIRST, call(edited("end", "line")), side_by_side, DONE)


ROUND = Story(a_round, lines=("one", "two", "three"), edits=("line", "more", "end"))


async def the_runner_keeps_nothing(act: Act) -> None:
    """Whoever attaches next is told of no operation."""
    view = await act.view()
    async with DockerBackend(act.machine.installation() or "") as backend:
        (ref,) = await backend.list()
        sandbox = await backend.attach(ref, view.spec.sandbox)
        assert sandbox.left == {}
        await sandbox.close()


UNSETTLED = replace(ROUND, look=the_runner_keeps_nothing)


async def a_talk(act: Act) -> None:
    first = {"think": "Let me see.", "say": "word " * 40, **call(counted("one"))}
    await act.make(first, DONE)


TALK = Story(a_talk, lines=("one",))


async def a_steered_turn(act: Act) -> None:
    """A message comes while a command runs, which then ends."""
    await act.make(call(counted("gate", GATE)), DONE)
    await eventually(lambda: file(act, "counter", "gate"), "the command")
    await act.door.service.send_message(act.session, "And this as well.")
    with suppress(Conflict):  # the server may die before it answers
        await act.door.service.write_workspace(act.session, "on", b"")


STEERED = Story(a_steered_turn, lines=("gate",))


async def a_failing_turn(act: Act) -> None:
    await act.make({**DONE, "fail": {"status": 529, "retry_after": 0, "times": 1}})


FAILING = Story(a_failing_turn, fails=True)


# --- what a client sends ---------------------------------------------------------------------------------------------


async def a_first_task(act: Act) -> None:
    await over_the_wire(act)
    first = {
        "type": "user.message",
        "content": [{"type": "text", "text": script(FIRST, DONE, say=f"This is {act.name}.")}],
    }
    await act.post("/v1/sessions", {**act.given, "initial_events": [first]}, "session")


async def the_first_task_again(act: Act) -> None:
    made = await act.ask_again()
    assert made is not None
    act.session = made["id"]
    assert [view.id for view in await act.door.service.list_sessions()] == [act.session], "made once"


TASK = Story(a_first_task, go_on=the_first_task_again, lines=("one",))


async def a_message(act: Act) -> None:
    await act.make()
    text = script(FIRST, DONE, say=f"This is {act.name}.")
    await act.send({"type": "user.message", "content": [{"type": "text", "text": text}]}, "message")


MESSAGE = Story(a_message, go_on=ask_again, lines=("one",))


async def an_interrupted_command(act: Act) -> None:
    await act.make(call(counted("one", "; echo up > up; sleep 1000")), {"say": "Never said."})
    await eventually(lambda: file(act, "up"), "the command")
    await act.send({"type": "user.interrupt"}, "interrupt")


INTERRUPTED = Story(an_interrupted_command, go_on=ask_again, lines=("one",), reply=None)


ASKS: Mapping[str, Any] = {
    "tools": [
        {
            "type": "agent_toolset_20260401",
            "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}],
        },
        {"type": "custom", "name": "lookup", "description": "Looks it up.", "input_schema": {"type": "object"}},
    ]
}


async def a_turn_that_asks(act: Act) -> None:
    await act.make(call(counted("one"), {"tool": "lookup", "input": {}}), DONE, agent=ASKS)
    await answers(act)


async def answers(act: Act) -> None:
    """Answer what is asked, one call after the other, until nothing is."""
    await act.ask_again()
    while awaited := (await act.rests()).state.awaited:
        calls = {known.id: known.awaits for known in (await act.view()).state.calls}
        if calls[awaited[0]] == "confirmation":
            answer: dict[str, Any] = {"type": "user.tool_confirmation", "tool_use_id": awaited[0], "result": "allow"}
        else:
            said = [{"type": "text", "text": "42"}]
            answer = {"type": "user.custom_tool_result", "custom_tool_use_id": awaited[0], "content": said}
        await act.send(answer, awaited[0])


ASKING = Story(a_turn_that_asks, go_on=answers, lines=("one",))
