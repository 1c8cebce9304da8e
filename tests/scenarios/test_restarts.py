"""One session through several lives of the application: it goes on where the log ends."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.scenario import OpenAgain, Stage, bash, call, reply

COUNT = call(bash("echo line >> counter; wc -l < counter"))


@pytest.mark.parametrize("points", [range(1, 20, 4), range(3, 20, 4)], ids=["odd", "between"])
def test_closed_at_any_event_it_loses_nothing_and_runs_nothing_twice(engine: Stage, points: range) -> None:
    async def story(open_again: OpenAgain) -> None:
        for number in points:
            async with open_again(False) as scene:
                session = await scene.start(COUNT, COUNT, {"say": "$RESULT"})
                await scene.reaches(session, number)
            async with open_again(True) as scene:
                view = await scene.finish(session)
                assert (reply(view), view.state.turns, view.state.tool_calls) == ("2", 1, 2), number
                assert await scene.results(session) == ["1\n", "2\n"]

    engine.play_lives(story)


def test_closed_with_an_interrupt_and_messages_waiting_it_does_them_first(engine: Stage) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            session = await scene.start(call(bash("echo up > up; sleep 1000")), {"say": "Never said."})
            await scene.appears(session, "up")
            await scene.tell(session, {"say": "I do this instead."})
            interrupting = asyncio.create_task(scene.service.interrupt(session))
            await scene.until(session, lambda event: event.type == "user.interrupt")
            interrupting.cancel()
        async with open_again(True) as scene:
            view = await scene.finish(session)
            assert (view.state.reply, view.state.turns) == ("I do this instead.", 2)
            processes = call(bash("grep -lasE '^sleep.1000' /proc/[0-9]*/cmdline | wc -l"))
            assert reply(await scene.again(session, processes, {"say": "$RESULT"})) == "0"

    engine.play_lives(story)


def test_files_shell_and_prompt_cache_are_kept_from_life_to_life(engine: Stage) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            first = await scene.turn(
                call(bash("X=kept; echo kept too > file; seq 3000")),
                {"say": "So far."},
                agent={"system": "Calm. " * 900},
            )
        async with open_again(True) as scene:
            view = await scene.again(first.id, call(bash("echo $X; cat file")), {"say": "$RESULT"})
            assert reply(view) == "kept\nkept too"
            spans = await scene.events(first.id, "span.model_request_end")
            read = [span["model_usage"]["cache_read_input_tokens"] for span in spans]
            assert read == sorted(read) and read[2] > read[1]

    engine.play_lives(story)


def test_a_task_and_a_message_left_waiting_are_done_by_the_next_life(engine: Stage) -> None:
    async def story(open_again: OpenAgain) -> None:
        async with open_again(False) as scene:
            session = await scene.start({"say": "Slowly.", "wait": 0.5})
            await scene.tell(session, say="And this as well.")
        async with open_again(True) as scene:
            view = await scene.finish(session)
            assert view.state.turns == 1
            (message,) = scene.api.bodies[-1]["messages"]
            assert [block["text"] for block in message["content"]][1:] == ["And this as well."]

    engine.play_lives(story)
