"""The scripted model: its language, its demonstration, its strictness, its accounting."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from server.errors import ModelRateLimited, ModelRefusedRequest, ModelUnavailable
from server.providers import ModelResponse, TextDelta
from server.providers.anthropic import AnthropicProvider
from server.providers.scripted import ScriptedProvider
from server.providers.scripted.model import Answer, Failure, ScriptedModel, portions
from server.providers.scripted.script import ScriptError, parse
from server.providers.scripted.thoughts import sign
from server.providers.scripted.usage import PromptCache
from server.providers.scripted.validation import refusal
from tests.providers.conftest import BASH, ask, chunks, request, script, user
from tests.support.messages_api import MessagesAPI

CALL = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
EPHEMERAL = {"type": "ephemeral"}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def result_of(response: ModelResponse, text: str) -> dict[str, Any]:
    calls = [block["id"] for block in response.content if block["type"] == "tool_use"]
    return user([{"type": "tool_result", "tool_use_id": name, "content": text} for name in calls])


def said(response: ModelResponse) -> str:
    return "".join(block["text"] for block in response.content if block["type"] == "text")


# --- the language ----------------------------------------------------------------------------------------------------


def test_a_script_is_followed_step_by_step_and_ends_with_done() -> None:
    async def story() -> None:
        steps = ({"say": "I look.", "call": [{"tool": "bash", "input": {"command": "ls"}}]}, {"say": "Saw: $RESULT"})
        history = [user(script(*steps))]
        texts = []
        for result in ("a.txt", "", ""):
            answer = await ask(ScriptedProvider(), request(*history))  # a new provider each time: nothing is kept
            texts.append(said(answer))
            history += [assistant(answer.content), result_of(answer, result) if result else user("and?")]
        assert texts == ["I look.", "Saw: a.txt", "Done."]

    asyncio.run(story())


def test_the_same_conversation_gives_the_same_answer_on_both_ways(api: MessagesAPI) -> None:
    asked = request(user(script({"think": "x", "say": "A b", "call": [{"tool": "bash"}, {"tool": "bash"}]})))

    async def story() -> None:
        real = AnthropicProvider(base_url=api.base_url)
        over_http, in_process = await chunks(real, asked), await chunks(ScriptedProvider(), asked)
        await real.close()
        assert over_http == in_process
        last = over_http[-1]
        assert isinstance(last, ModelResponse)
        assert len({block["id"] for block in last.content if block["type"] == "tool_use"}) == 2

    asyncio.run(story())


def test_a_newer_script_takes_over_and_a_plain_message_does_not() -> None:
    async def story() -> None:
        provider = ScriptedProvider()
        history = [user(script({"say": "1"}, {"say": "2: $LAST_USER"})), assistant("1"), user("steer left")]
        assert said(await ask(provider, request(*history))) == "2: steer left"
        history += [assistant("2"), user(script({"say": "new"}))]
        assert said(await ask(provider, request(*history))) == "new"

    asyncio.run(story())


def test_a_tool_that_is_not_offered_is_not_called_unless_forced() -> None:
    async def story() -> None:
        provider = ScriptedProvider()
        answer = await ask(provider, request(user(script({"call": [{"tool": "fly"}]}))))
        assert said(answer) == "The tool `fly` is not offered; offered: bash."
        assert answer.stop_reason == "end_turn"
        forced = await ask(provider, request(user(script({"call": [{"tool": "fly", "force": True}]}))))
        assert forced.content[0]["name"] == "fly"

    asyncio.run(story())


def test_failures_are_counted_and_then_the_step_goes_through() -> None:
    async def story() -> None:
        provider = ScriptedProvider()
        asked = request(
            user(script({"fail": {"status": 429, "times": 2, "retry_after": 3}}, {"cut": 2}, {"say": "At last."}))
        )
        for _ in range(2):
            with pytest.raises(ModelRateLimited) as caught:
                await ask(provider, asked)
            assert caught.value.retry_after == 3
        with pytest.raises(ModelUnavailable):
            await ask(provider, asked)
        assert said(await ask(provider, asked)) == "At last."

    asyncio.run(story())


def test_text_comes_in_portions_of_eight_words() -> None:
    text = "  one two\nthree four five six seven eight  nine ten "
    assert portions(text) == ["  one two\nthree four five six seven eight  ", "nine ten "]

    async def story() -> None:
        got = await chunks(ScriptedProvider(), request(user(script({"say": text, "stream": 0.01}))))
        assert "".join(chunk.text for chunk in got if isinstance(chunk, TextDelta)) == text

    asyncio.run(story())


@pytest.mark.parametrize(
    "source", ["nonsense", "{}", "[1]", '[{"sey": "x"}]', '[{"stop": "x"}]', '[{"call": [{}]}]', '[{"fail": {}}]']
)
def test_a_script_that_cannot_be_followed_is_refused(source: str) -> None:
    with pytest.raises(ScriptError):
        parse(source)

    async def story() -> None:
        with pytest.raises(ModelRefusedRequest, match="script"):
            await ask(ScriptedProvider(), request(user(f"```script\n{source}\n```")))

    asyncio.run(story())


def bash(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)


# --- the demonstration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task", ["Print the primes!", "Fibonacci 'quoted' \"$HOME\" `id`", "END_OF_PROGRAM\nlist files", "x"]
)
def test_the_demonstration_writes_a_program_that_really_runs(task: str, tmp_path: Path) -> None:
    async def story() -> None:
        provider = ScriptedProvider()
        first = await ask(provider, request(user(task)))
        command = first.content[1]["input"]["command"]
        done = await asyncio.to_thread(bash, command, tmp_path)
        assert done.stdout.strip()
        history = [user(task), assistant(first.content), result_of(first, done.stdout)]
        report = await ask(provider, request(*history))
        assert done.stdout.strip() in said(report)
        assert report.stop_reason == "end_turn"
        again = await ask(provider, request(*history, assistant(report.content), user("More?")))
        assert again.content[1]["input"]["command"].startswith("ls")

    asyncio.run(story())


def test_the_demonstration_without_bash_says_so() -> None:
    answer = asyncio.run(ask(ScriptedProvider(), request(user("Print primes"), tools=())))
    assert "no `bash` tool is offered" in said(answer)


# --- the wire --------------------------------------------------------------------------------------------------------


def test_every_event_is_strictly_one_of_the_sdk() -> None:
    steps = {"think": "t", "say": "a b", "call": [{"tool": "bash", "input": {"a": 1}}], "stop": "refusal"}
    body = {"model": "claude-opus-5-5", "max_tokens": 9, "messages": [user(script(steps))], "tools": [BASH]}
    answer = ScriptedModel().answer(body)
    assert isinstance(answer, Answer)
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for event in answer.events():
        if event["type"] != "ping":
            adapter.validate_python(event, strict=True)
            known = adapter.validate_python(event).model_dump(exclude_unset=True)
            assert known == event
    Message.model_validate(answer.message(), strict=True)


def test_the_server_in_a_process_of_its_own_keeps_a_log() -> None:
    import sys
    import urllib.request

    process = subprocess.Popen([sys.executable, "-m", "tests.support.messages_api"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        asked = request(user(script({"say": "A"})))

        async def story() -> None:
            provider = AnthropicProvider(base_url=url)
            await ask(provider, asked)
            await provider.close()

        asyncio.run(story())
        with urllib.request.urlopen(f"{url}/requests") as reply:
            (entry,) = json.load(reply)
        assert entry["status"] == 200 and entry["started"] <= entry["at"] <= entry["answered"]
        urllib.request.urlopen(urllib.request.Request(f"{url}/requests", method="DELETE")).close()
        with urllib.request.urlopen(f"{url}/requests") as reply:
            assert json.load(reply) == []
    finally:
        process.terminate()
        process.communicate()


# --- what is refused -------------------------------------------------------------------------------------------------


def body(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 1, "messages": list(messages), **fields}


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


def image(media_type: str, data: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def marked(text: str, **mark: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": {**EPHEMERAL, **mark}}


@pytest.mark.parametrize(
    "good",
    [
        body(user("a"), user("b"), assistant("c"), assistant("d"), user("e")),
        body(user("a"), assistant([CALL]), user([RESULT, {"type": "text", "text": "and"}])),
        body(user("a"), assistant([CALL]), user([RESULT]), user("more")),
        body(user("a"), assistant([])),
        body(user([image("image/png", PNG)])),
        body(
            user("a"),
            assistant([{"type": "thinking", "thinking": "t", "signature": sign("t", body(user("a")))}]),
            user("b"),
        ),
        body(user([marked("a")]), tools=[{**BASH, "cache_control": {**EPHEMERAL, "ttl": "1h"}}]),
        body(user("a"), tools=[{"type": "web_search_20260318", "name": "web_search"}]),
    ],
)
def test_what_the_api_takes_is_taken(good: dict[str, Any]) -> None:
    assert refusal(good) is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "not valid JSON"),
        ({"model": "m", "messages": [user("a")]}, "max_tokens: Field required"),
        (body(user("a"), foo=1), "foo: Extra inputs are not permitted"),
        (body(), "messages: at least one message is required"),
        (body(assistant("a")), 'first message must use the "user" role'),
        (body(user("")), "messages.0: all messages must have non-empty content"),
        (body(user([{"type": "text", "text": ""}])), "text content blocks must be non-empty"),
        (body(user([{"type": "text", "text": " \n"}])), "must contain non-whitespace text"),
        (body(user("a"), assistant("b ")), "final assistant content cannot end with trailing whitespace"),
        (body(user("a"), assistant([CALL])), "messages.1: `tool_use` ids were found without `tool_result` blocks"),
        (body(user("a"), assistant([CALL]), user("b")), "immediately after: toolu_1"),
        (
            body(user("a"), assistant([CALL]), user([{"type": "text", "text": "b"}, RESULT])),
            "immediately after: toolu_1",
        ),
        (body(user("a"), assistant([CALL]), user([RESULT, RESULT])), "each tool_use must have a single result"),
        (body(user([RESULT])), "messages.0.content.0: unexpected `tool_use_id`"),
        (body(user("a"), assistant("b"), user([RESULT])), "messages.2.content.0: unexpected `tool_use_id`"),
        (body(user("a"), assistant([CALL, CALL]), user([RESULT])), "`tool_use` ids must be unique"),
        (body(user("a"), assistant([{**CALL, "input": "x"}])), "input: Input should be a valid dictionary"),
        (body(user([{**RESULT, "content": "", "is_error": True}])), "content cannot be empty if `is_error` is true"),
        (body(user([CALL])), "Input tag 'tool_use' found using 'type' does not match"),
        (body(user([{"type": "text", "text": "a", "id": 1}])), "messages.0.content.0.text.id: Extra inputs"),
        (body(user([image("image/png", "***")])), "invalid base64 data"),
        (body(user([image("image/gif", PNG)])), "does not appear to be of the provided media type image/gif"),
        (body(user([image("image/tiff", PNG)])), "media_type: Input should be 'image/jpeg'"),
        (body(user("a"), tools=[{**BASH, "name": "a b"}]), "tools.0.custom.name: String should match pattern"),
        (body(user("a"), tools=[BASH, BASH]), "Tool names must be unique"),
        (body(user("a"), tools=[{**BASH, "input_schema": {}}]), "input_schema.type: Input should be 'object'"),
        (
            body(user([marked(str(n)) for n in range(5)])),
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        (body(user([marked("a"), marked("b", ttl="1h")])), "must not come after a ttl='5m'"),
        (
            body(
                user("a"),
                assistant([{"type": "thinking", "thinking": "t", "signature": "s", "cache_control": EPHEMERAL}]),
            ),
            "thinking.cache_control: Extra inputs are not permitted",
        ),
    ],
)
def test_what_the_api_refuses_is_refused_in_its_words(bad: Any, message: str) -> None:
    fault = refusal(bad)
    assert fault is not None and message in fault
    failure = ScriptedModel().answer(bad)
    assert isinstance(failure, Failure) and failure.status == 400 and failure.type == "invalid_request_error"


# --- the cache -------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def long(name: str, mark: bool = False) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": f"{name} " * 3000}
    return {**block, "cache_control": EPHEMERAL} if mark else block


def test_a_growing_conversation_reads_what_it_wrote_and_writes_only_what_is_new() -> None:
    cache = PromptCache(Clock())
    first = cache.account(body(user([long("a", True)])), 1)
    second = cache.account(body(user([long("a")]), assistant("x"), user([long("b", True)])), 1)
    assert first.cache_read_input_tokens == 0
    assert second.cache_read_input_tokens == first.cache_creation_5m_input_tokens > 1024
    assert second.cache_creation_5m_input_tokens > 1024
    assert second.input_tokens == 0


def test_entries_expire_after_five_minutes_without_a_read_and_reading_renews_them() -> None:
    clock = Clock()
    cache = PromptCache(clock)
    asked = body(user([long("a", True)]))
    reads = []
    for clock.now in (0.0, 299.0, 598.0, 899.0):
        reads.append(cache.account(asked, 1).cache_read_input_tokens > 0)
    assert reads == [False, True, True, False]


def test_one_changed_byte_in_the_tools_spoils_everything_after_it() -> None:
    cache = PromptCache(Clock())
    cache.account(body(user([long("a", True)]), tools=[BASH]), 1)
    changed = cache.account(body(user([long("a", True)]), tools=[{**BASH, "description": "Run a command!"}]), 1)
    assert changed.cache_read_input_tokens == 0


def test_a_short_prefix_is_not_cached_and_an_unmarked_one_neither() -> None:
    cache = PromptCache(Clock())
    for asked in (body(user([marked("short")])), body(user([long("a")]))):
        for _ in range(2):
            usage = cache.account(asked, 1)
            assert usage.cache_creation_5m_input_tokens == usage.cache_read_input_tokens == 0
            assert usage.input_tokens > 0


@pytest.mark.parametrize(("added", "hit"), [(20, True), (21, False)])
def test_an_older_entry_is_found_twenty_blocks_back_and_no_further(added: int, hit: bool) -> None:
    cache = PromptCache(Clock())
    cache.account(body(user([long("a", True)])), 1)
    more = [{"type": "text", "text": str(n)} for n in range(added - 1)]
    usage = cache.account(body(user([long("a"), *more, marked("end")])), 1)
    assert (usage.cache_read_input_tokens > 0) is hit
