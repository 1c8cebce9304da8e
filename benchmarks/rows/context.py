"""What a long conversation costs: the cache's share of a hundred turns, and a compaction in time and in tokens.

Above: `__main__`. Below: the service, and the double, which accounts for its prompt cache by the API's rules.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from anthropic import AsyncAnthropic

from benchmarks import floor
from benchmarks.bench import MODEL, Bench, say
from benchmarks.fake import Request, script
from benchmarks.row import Hold, Row, figure
from benchmarks.skiff import quiet, session, skiff, turn
from server.app import App
from server.events import COMPACTED
from server.providers.scripted.usage import prompt_tokens
from server.providers.summary import SUMMARIZE

TURNS = 100
TALKER = {"name": "talker", "tools": []}
TEXT = "What is said in a turn has about so many words, on either side of the conversation. " * 12
"""A thousand characters."""
WINDOW = 60_000
"""Tokens: four messages of LONG fill it to four fifths."""
LONG = "word " * 9_000
OTHER_MODEL = "claude-opus-5-5"
"""For the other side: a provider's cache is kept for each model."""


async def measure(bench: Bench) -> list[Row]:
    """It needs no engine: the agents have no tools."""
    async with skiff(bench) as app, floor.client() as sdk:
        await quiet(app)
        ratio = await _cache(bench, app, sdk)
    async with skiff(bench, context_windows={MODEL: WINDOW}) as app, floor.client() as sdk:
        await quiet(app)
        return [ratio, *await _compaction(bench, app, sdk)]


async def _cache(bench: Bench, app: App, sdk: AsyncAnthropic) -> Row:
    say(f"context: a session of {TURNS} turns")
    await bench.fake.clear()
    session_id = await session(app.service, agent=TALKER)
    turns = bench.samples(TURNS, 10)
    for number in range(turns):
        view = await turn(app.service, session_id, f"Turn {number}. {TEXT}\n{script([{'say': TEXT}])}")
    usage = view.state.usage
    written = usage.cache_creation_5m_input_tokens + usage.cache_creation_1h_input_tokens
    ours = _percent(usage.cache_read_input_tokens, usage.input_tokens + written)
    ideal = await _marked_perfectly(sdk, [request.body for request in await bench.fake.log()])
    await bench.fake.clear()
    name = f"share of the prompts that the cache held, over {turns} turns"
    return Row(
        name, "%", figure([ours]), figure([ideal]), "bare SDK, each prompt marked at its end", Hold(0.99, least=True)
    )


async def _marked_perfectly(sdk: AsyncAnthropic, bodies: Sequence[Mapping[str, Any]]) -> float:
    """The same share for a client that sends the same and marks the end of every prompt."""
    read = other = 0
    for body in bodies:
        plain = {
            **body,
            "model": OTHER_MODEL,
            "system": _unmarked(body["system"]),
            "stream": False,
            "max_tokens": 1_024,
        }
        messages = [{**message, "content": _unmarked(message["content"])} for message in body["messages"]]
        messages[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
        answer = await sdk.messages.create(**{**plain, "messages": messages})
        read += answer.usage.cache_read_input_tokens or 0
        other += answer.usage.input_tokens + (answer.usage.cache_creation_input_tokens or 0)
    return _percent(read, other)


def _unmarked(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in block.items() if key != "cache_control"} for block in blocks]


def _percent(part: int, rest: int) -> float:
    return 100 * part / (part + rest)


async def _compaction(bench: Bench, app: App, sdk: AsyncAnthropic) -> list[Row]:
    """From a message that would not fit to the request that answers it: a summary is asked for in between."""
    ours: list[float] = []
    bare: list[float] = []
    paid: list[float] = []
    whole: list[float] = []
    for number in range(bench.samples(10) + 1):
        say(f"context: compaction {number}")
        session_id = await session(app.service, agent=TALKER)
        for part in range(3):
            await turn(app.service, session_id, f"Session {session_id}, part {part}. {LONG}")
        await bench.fake.clear()
        began = time.monotonic()
        await turn(app.service, session_id, f"The last. {LONG}")
        summary, answered = await bench.fake.log()
        _check(summary)
        tokens = await _uncached(app, session_id)
        beside = await _bare(bench, sdk, [summary, answered])
        if number:  # the first warms both sides up
            ours.append((answered.at - began) * 1000)
            bare.append(beside)
            paid.append(tokens)
            whole.append(prompt_tokens(summary.body))
    both = "bare SDK, the same two requests"
    again = "all of the conversation's tokens"
    return [
        Row("a message that does not fit → asked after a summary", "ms", figure(ours), figure(bare), both, Hold(1, 15)),
        Row("a summary: tokens of its prompt that no cache held", "", figure(paid), figure(whole), again, Hold(0.1)),
    ]


def _check(summary: Request) -> None:
    if summary.body["messages"][-1]["content"][-1].get("text") != SUMMARIZE:
        raise RuntimeError("no summary was asked for: the messages do not fill the window")


async def _uncached(app: App, session_id: str) -> float:
    """Tokens of the compaction's prompt that had to be read anew."""
    log = [body for _, body in await app.service.transcript(session_id, limit=1_000_000)]
    at = next(n for n, body in enumerate(log) if body["type"] == COMPACTED)
    usage = next(body["model_usage"] for body in reversed(log[:at]) if body["type"] == "span.model_request_end")
    return float(usage["input_tokens"] + usage["cache_creation_input_tokens"])


async def _bare(bench: Bench, sdk: AsyncAnthropic, requests: Sequence[Request]) -> float:
    """Milliseconds until the second of two requests has arrived, made one after the other."""
    await bench.fake.clear()
    began = time.monotonic()
    for request in requests:
        await floor.ask(sdk, request.body)
    log = await bench.fake.log()
    await bench.fake.clear()
    return (log[1].at - began) * 1000
