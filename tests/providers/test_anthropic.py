"""The real provider, through the real SDK, against the strict API over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from server.errors import (
    InvalidRequest,
    ModelContextTooLong,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelRefusedRequest,
    ModelUnavailable,
)
from server.providers import BlockStarted, ModelResponse, TextDelta, UsageSoFar, anthropic
from server.providers.accumulate import Accumulator
from server.providers.anthropic import AnthropicProvider, server_tool, translate
from server.providers.failures import redact, retry_after, status_error
from tests.providers.conftest import ask, chunks, request, script, user
from tests.support.messages_api import MessagesAPI, messages_api


def run(api: MessagesAPI, story: Callable[[AnthropicProvider], Awaitable[Any]], **settings: Any) -> Any:
    """Run a story with a provider that talks to the API."""

    async def main() -> Any:
        provider = AnthropicProvider(base_url=api.base_url, **settings)
        try:
            return await story(provider)
        finally:
            await provider.close()

    return asyncio.run(main())


def fails(api: MessagesAPI, *steps: dict[str, Any], **settings: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        run(api, lambda provider: ask(provider, request(user(script(*steps)))), **settings)
    return caught.value


def test_an_answer_streams_and_ends_with_the_whole_response(api: MessagesAPI) -> None:
    steps = {"think": "Hm.", "say": "one two three four five six seven eight nine", "call": [{"tool": "bash"}]}
    got = run(api, lambda provider: chunks(provider, request(user(script(steps)))))
    assert [chunk for chunk in got if isinstance(chunk, BlockStarted)] == [
        BlockStarted(0, "thinking"),
        BlockStarted(1, "text"),
        BlockStarted(2, "tool_use"),
    ]
    assert [chunk.text for chunk in got if isinstance(chunk, TextDelta)] == [
        "one two three four five six seven eight ",
        "nine",
    ]
    response = got[-1]
    assert isinstance(response, ModelResponse)
    assert [block["type"] for block in response.content] == ["thinking", "text", "tool_use"]
    assert response.stop_reason == "tool_use"
    assert response.model == "claude-opus-5-5"


def test_a_thinking_block_goes_back_verbatim_and_an_altered_one_is_refused(api: MessagesAPI) -> None:
    first = user(script({"think": "Deep.", "say": "A"}, {"say": "B"}))

    async def story(provider: AnthropicProvider) -> None:
        answer = await ask(provider, request(first))
        history = [first, {"role": "assistant", "content": answer.content}, user("on")]
        assert (await ask(provider, request(*history))).content[0]["text"] == "B"
        altered = [{**answer.content[0], "thinking": "Shallow."}, *answer.content[1:]]
        with pytest.raises(ModelRefusedRequest, match="Invalid `signature` in `thinking` block"):
            await ask(provider, request(first, {"role": "assistant", "content": altered}, user("on")))

    run(api, story)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, ModelUnavailable),
        (409, ModelUnavailable),
        (500, ModelUnavailable),
        (503, ModelOverloaded),
        (529, ModelOverloaded),
        (429, ModelRateLimited),
        (400, ModelRefusedRequest),
        (401, ModelRefusedRequest),
        (403, ModelRefusedRequest),
        (404, ModelRefusedRequest),
        (413, ModelContextTooLong),
    ],
)
def test_every_error_status_has_its_class(api: MessagesAPI, status: int, kind: type[ModelError]) -> None:
    error = fails(api, {"fail": {"status": status}})
    assert type(error) is kind
    assert str(status) in str(error)
    assert len(api.requests) == 1, "the provider itself must not retry"


def test_a_rate_limit_says_how_long_to_wait(api: MessagesAPI) -> None:
    assert fails(api, {"fail": {"status": 429, "retry_after": 7}}).retry_after == 7


def test_milliseconds_and_dates_are_understood_as_retry_after() -> None:
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    later = {"date": "Sat, 29 Nov 2025 08:00:00 GMT", "retry-after": "Sat, 29 Nov 2025 08:00:42 GMT"}
    assert retry_after(later) == 42, "by the provider's clock, whatever ours says"
    assert retry_after({}) is None


def test_a_lack_of_credit_is_a_billing_error(api: MessagesAPI) -> None:
    assert fails(api, {"fail": {"status": 402}}).error_type == "billing_error"
    poor = {"status": 400, "message": "Your credit balance is too low to access the Anthropic API."}
    assert fails(api, {"fail": poor}).error_type == "billing_error"
    spent = {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}}
    error = status_error(429, spent, {"retry-after": "1"}, "")
    assert (error.error_type, error.retryable) == ("billing_error", False)


@pytest.mark.parametrize(
    "words",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000, decrease input length",
        "Input is too long for requested model.",
    ],
)
def test_a_conversation_that_does_not_fit_is_told_from_other_bad_requests(api: MessagesAPI, words: str) -> None:
    error = fails(api, {"fail": {"status": 400, "message": words}})
    assert isinstance(error, ModelContextTooLong) and not error.retryable and words in str(error)


def test_a_provider_that_says_not_to_try_again_is_believed() -> None:
    error = status_error(529, None, {"x-should-retry": "false"}, "busy")
    assert isinstance(error, ModelOverloaded) and not error.retryable
    assert type(error).retryable, "a later message may still be answered"
    assert status_error(529, None, {"x-should-retry": "true"}, "busy").retryable


@pytest.mark.parametrize(
    ("status", "kind"),
    [(529, ModelOverloaded), (500, ModelUnavailable), (429, ModelRateLimited), (400, ModelRefusedRequest)],
)
def test_an_error_inside_a_stream_is_told_by_its_type(api: MessagesAPI, status: int, kind: type[ModelError]) -> None:
    error = fails(api, {"say": "Hello", "fail": {"status": status, "after": 3}})
    assert type(error) is kind


@pytest.mark.parametrize("events", [1, 3, 6])
def test_a_cut_stream_passes_and_the_next_try_succeeds(api: MessagesAPI, events: int) -> None:
    asked = request(user(script({"say": "Hello", "cut": events})))

    async def story(provider: AnthropicProvider) -> ModelResponse:
        with pytest.raises(ModelUnavailable):
            await ask(provider, asked)
        return await ask(provider, asked)

    assert run(api, story).content[0]["text"] == "Hello"


def test_an_answer_whose_connection_breaks_after_its_last_word_is_whole(api: MessagesAPI) -> None:
    asked = request(user(script({"say": "Hello"})))

    async def story(provider: AnthropicProvider) -> ModelResponse:
        await ask(provider, asked)
        api.deaths.append((len(api.requests[0].frames), 0))
        return await ask(provider, asked)

    assert run(api, story).content[0]["text"] == "Hello"
    assert len(api.requests) == 2


_CALL = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {}}
_START = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}}
_STOP = {"type": "message_stop"}


@pytest.mark.parametrize(
    "events",
    [
        [_START, _STOP],
        [_START, {"type": "content_block_start", "index": 0, "content_block": {**_CALL, "id": None}}, _STOP],
        [_START, {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "?"}}, _STOP],
        [{"type": "message_start"}],
        ["no event"],
    ],
)
def test_a_stream_that_breaks_the_protocol_passes_as_a_breakdown(events: list[Any]) -> None:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def story() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            provider = AnthropicProvider(base_url=f"http://127.0.0.1:{port}")
            with pytest.raises(ModelUnavailable):
                await ask(provider, request(user("hi")))
            await provider.close()

    asyncio.run(story())


def test_an_api_error_inside_a_stream_passes(api: MessagesAPI) -> None:
    error = fails(api, {"say": "Hello", "fail": {"status": 200, "type": "api_error", "after": 1}})
    assert isinstance(error, ModelUnavailable)


def test_an_answer_without_its_end_is_no_answer() -> None:
    accumulator = Accumulator()
    accumulator.feed({"type": "message_start", "message": {"model": "m", "usage": {}}})
    with pytest.raises(ValueError, match="before the answer was whole"):
        accumulator.response()


def test_nobody_listening_passes() -> None:
    with messages_api() as api:
        url = api.base_url

    async def story() -> None:
        provider = AnthropicProvider(base_url=url)
        with pytest.raises(ModelUnavailable, match="connection"):
            await ask(provider, request(user("hi")))
        await provider.close()

    asyncio.run(story())


def test_silence_is_bounded(api: MessagesAPI) -> None:
    error = fails(api, {"say": "Hello", "hang": True}, silence_seconds=0.2)
    assert isinstance(error, ModelUnavailable)
    assert "said nothing for 0.2 s" in str(error)


def test_a_request_that_nobody_takes_in_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic, "SLOWEST_UPLOAD", 100 << 20)
    with socket.socket() as deaf:  # the kernel takes the connection and what fits its buffers; nobody reads
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()

        async def story() -> None:
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            provider = AnthropicProvider(base_url=url, silence_seconds=0.3)
            async with asyncio.timeout(20):
                with pytest.raises(ModelUnavailable, match=r"said nothing for 0\.3 s"):
                    await ask(provider, request(user("x" * (30 << 20))))
            await provider.close()
            deaf.close()  # without TLS the rest of the request is in the kernel's hands until then
            await asyncio.sleep(0.1)

        asyncio.run(story())


def test_mistakes_of_this_machine_are_no_trouble_of_the_connection() -> None:
    assert isinstance(translate(PermissionError(13, "Permission denied", "key")), ModelRefusedRequest)
    assert isinstance(translate(ConnectionResetError("reset")), ModelUnavailable)


def test_a_socks_proxy_is_left_to_the_sdks_own_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    provider = AnthropicProvider(base_url="http://127.0.0.1:1")
    carrier = provider._transport()
    assert carrier is not None
    asyncio.run(carrier.aclose())
    monkeypatch.setenv("ALL_PROXY", "SOCKS5://127.0.0.1:9")
    assert provider._transport() is None


def test_pings_count_as_signs_of_life() -> None:
    with messages_api(MessagesAPI(ping_seconds=0.1)) as api:
        asked = request(user(script({"say": "slow", "stream": 1.2})))
        answer = run(api, lambda provider: ask(provider, asked), silence_seconds=0.6)
    assert answer.content[0]["text"] == "slow"


def test_pings_alone_are_not_an_answer_for_ever() -> None:
    with messages_api(MessagesAPI(ping_seconds=0.01)) as api:
        error = fails(api, {"say": "never", "stream": 60}, silence_seconds=0.05)
    assert isinstance(error, ModelUnavailable)
    assert "nothing of the answer for 0.75 s" in str(error)


def test_closing_the_iterator_aborts_the_request_at_once(api: MessagesAPI) -> None:
    async def story(provider: AnthropicProvider) -> None:
        stream: Any = provider.stream(request(user(script({"say": "a b c", "stream": 60}))))
        assert isinstance(await anext(stream), UsageSoFar)
        assert isinstance(await anext(stream), BlockStarted)
        await stream.aclose()
        await asyncio.to_thread(api.wait_for, lambda api: api.requests[0].aborted)

    run(api, story)


def test_cancelling_the_task_aborts_the_request_before_any_answer(api: MessagesAPI) -> None:
    async def story(provider: AnthropicProvider) -> None:
        task = asyncio.ensure_future(ask(provider, request(user(script({"say": "a", "wait": 60})))))
        await asyncio.to_thread(api.wait_for, lambda api: api.requests)
        task.cancel()
        await asyncio.to_thread(api.wait_for, lambda api: api.requests[0].aborted)

    run(api, story)


@pytest.mark.parametrize("garbled", ['{"command": "ls', '{"n": NaN}', '{"n": -Infinity}', '{"n": 1e999}', "[1]"])
def test_malformed_tool_input_is_kept_beside_a_block_that_can_be_sent_back(api: MessagesAPI, garbled: str) -> None:
    first = user(script({"say": "Try", "garbled": garbled}, {"say": "Sorry"}))

    async def story(provider: AnthropicProvider) -> None:
        answer = await ask(provider, request(first))
        assert answer.invalid_tool_inputs == {1: garbled}
        call = answer.content[1]
        assert call["input"] == {}
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": "not JSON", "is_error": True}
        history = [first, {"role": "assistant", "content": answer.content}, user([result])]
        assert (await ask(provider, request(*history))).content[0]["text"] == "Sorry"

    run(api, story)


def test_server_tool_blocks_citations_and_unknown_blocks_come_whole(api: MessagesAPI) -> None:
    citation = {
        "type": "web_search_result_location",
        "url": "u",
        "title": "t",
        "encrypted_index": "e",
        "cited_text": "c",
    }
    blocks = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "skiff"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]},
        {"type": "text", "text": "A small boat.", "citations": [citation, citation]},
        {"type": "redacted_thinking", "data": "opaque"},
        {"type": "compaction", "content": "summary", "encrypted_content": "x"},
        {"type": "of_the_future", "anything": [1, {"deep": None}]},
    ]
    answer = run(api, lambda provider: ask(provider, request(user(script({"blocks": blocks, "stop": "pause_turn"})))))
    assert list(answer.content) == blocks
    assert answer.stop_reason == "pause_turn"


def test_a_refusal_carries_its_details(api: MessagesAPI) -> None:
    answer = run(api, lambda provider: ask(provider, request(user(script({"say": "No.", "stop": "refusal"})))))
    assert answer.stop_reason == "refusal"
    assert answer.stop_details["type"] == "refusal"


def test_usage_tells_cache_reads_and_writes_by_lifetime(api: MessagesAPI) -> None:
    def marked(ttl: str) -> tuple[dict[str, Any], ...]:
        return ({"type": "text", "text": "rule " * 2000, "cache_control": {"type": "ephemeral", "ttl": ttl}},)

    async def story(provider: AnthropicProvider) -> None:
        asked = request(user("hi"), system=marked("1h"), model="scripted")
        first, second = (await ask(provider, asked)).usage, (await ask(provider, asked)).usage
        assert first.cache_creation_1h_input_tokens > 2000
        assert (first.cache_creation_5m_input_tokens, first.cache_read_input_tokens) == (0, 0)
        assert second.cache_read_input_tokens == first.cache_creation_1h_input_tokens
        assert second.cache_creation_1h_input_tokens == 0
        third = (await ask(provider, request(user("hi"), system=marked("5m"), model="other"))).usage
        assert third.cache_creation_5m_input_tokens > 2000

    run(api, story)


def test_options_are_passed_on_and_betas_become_a_header(api: MessagesAPI) -> None:
    options = {"thinking": {"type": "adaptive"}, "context_management": {"edits": []}, "betas": ["a-1", "b-2"]}
    run(api, lambda provider: ask(provider, request(user(script({"say": "A"})), options=options)))
    assert api.bodies[0]["thinking"] == {"type": "adaptive"}
    assert "betas" not in api.bodies[0]
    assert api.requests[0].headers["anthropic-beta"] == "a-1,b-2"


def test_a_lone_surrogate_in_a_message_does_not_spoil_the_request(api: MessagesAPI) -> None:
    answer = run(api, lambda provider: ask(provider, request(user("\udcff ä 🛶 " + script({"say": "$LAST_USER"})))))
    assert "? ä 🛶" in answer.content[0]["text"]


def test_an_invalid_key_is_refused_and_never_shown(api: MessagesAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "invalid")
    assert "authentication_error" in str(fails(api, {"say": "A"}))
    assert "sk-ant" not in redact("key sk-ant-api03-abc_DEF and Bearer abc.def, x-api-key: foo")
    leak = {"error": {"type": "api_error", "message": "header Authorization: Bearer sk-ant-secret"}}
    assert "secret" not in str(status_error(500, leak, {}, ""))


def test_a_key_of_any_look_is_hidden_in_errors(api: MessagesAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "gateway-word")
    error = fails(api, {"fail": {"status": 500, "message": "bad header gateway-word"}})
    assert "gateway-word" not in str(error) and "[redacted]" in str(error)


def test_no_key_at_all_says_which_variable_to_set(
    api: MessagesAPI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    error = fails(api, {"say": "A"})
    assert isinstance(error, ModelRefusedRequest)
    assert "ANTHROPIC_API_KEY" in str(error)


def test_an_auth_token_and_a_base_url_of_the_environment_are_honoured(
    api: MessagesAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.base_url)

    async def story() -> None:
        provider = AnthropicProvider()
        await ask(provider, request(user(script({"say": "A"}))))
        await provider.close()

    asyncio.run(story())
    assert api.requests[0].headers["authorization"] == "Bearer token"


def test_a_platform_without_its_packages_says_what_to_install() -> None:
    provider = AnthropicProvider(platform="vertex")
    with pytest.raises(InvalidRequest, match=r"pip install 'anthropic\[vertex\]'"):
        asyncio.run(provider.warm_up())


def test_importing_the_provider_does_not_import_the_sdk() -> None:
    code = "import sys, server.providers.anthropic, server.providers.scripted; print('anthropic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_server_tools_are_the_newest_of_the_sdk_for_direct_use() -> None:
    import anthropic.types as types

    tool = server_tool("web_search", {"blocked_domains": ["a.test"], "user_location": None})
    assert tool == {
        "type": "web_search_20260318",
        "name": "web_search",
        "allowed_callers": ["direct"],
        "blocked_domains": ["a.test"],
    }
    fetch = server_tool("web_fetch", {"max_content_tokens": 9})
    for definition, prefix in ((tool, "WebSearchTool2"), (fetch, "WebFetchTool2")):
        newest = max(name for name in dir(types) if name.startswith(prefix) and name.endswith("Param"))
        assert newest == f"{prefix[:-1]}{definition['type'][-8:]}Param"
        assert set(definition) <= set(getattr(types, newest).__annotations__)


def test_server_tools_refuse_what_they_do_not_have() -> None:
    with pytest.raises(InvalidRequest, match="web_fetch has no setting user_location"):
        server_tool("web_fetch", {"user_location": {}})
    with pytest.raises(InvalidRequest, match="not both"):
        server_tool("web_search", {"allowed_domains": ["a"], "blocked_domains": ["b"]})


def test_a_cloud_platform_gets_the_same_request(api: MessagesAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_FOUNDRY_API_KEY", "foundry-key")
    asked = request(user(script({"say": "A"})), options={"betas": ["a-1"]})
    answer = run(api, lambda provider: ask(provider, asked), platform="foundry")
    assert answer.content[0]["text"] == "A"
    assert api.requests[0].headers["x-api-key"] == "foundry-key"
    assert api.bodies[0]["stream"] is True
