"""The other side of the model figures: the same requests made by the bare SDK.

Above: `rows/`. Below: `anthropic`, used as its documentation shows, streaming.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anthropic import AsyncAnthropic

from benchmarks.fake import Fake


def client() -> AsyncAnthropic:
    """The SDK's client for the double."""
    return AsyncAnthropic(max_retries=0)


async def ask(sdk: AsyncAnthropic, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make one streamed request and read it to its end; the content of the answer, as far as a tool loop needs it."""
    content: list[dict[str, Any]] = []
    async for event in await sdk.messages.create(**{**body, "stream": True}):
        if event.type == "content_block_start":
            block = event.content_block
            content.append({key: getattr(block, key) for key in ("type", "text", "id", "name") if hasattr(block, key)})
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            content[event.index]["text"] += event.delta.text
        elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            content[event.index]["json"] = content[event.index].get("json", "") + event.delta.partial_json
    return content


async def arrivals(sdk: AsyncAnthropic, fake: Fake, bodies: Sequence[Mapping[str, Any]]) -> list[float]:
    """Milliseconds from the call of `create` to the arrival of the request, for each of these bodies in turn.

    Clears the double's log.
    """
    await fake.clear()
    began = []
    for body in bodies:
        began.append(time.monotonic())
        await ask(sdk, body)
    log = await fake.log()
    await fake.clear()
    return [(request.at - start) * 1000 for request, start in zip(log, began, strict=True)]


async def turnarounds(
    sdk: AsyncAnthropic, fake: Fake, bodies: Sequence[Mapping[str, Any]], between: Callable[[], None] | None = None
) -> list[float]:
    """Milliseconds from the end of one answer to the arrival of the next request, in a bare loop that makes these
    requests in turn, and does what comes `between` them: one less than there are bodies. Clears the double's log."""
    await fake.clear()
    for body in bodies:
        await ask(sdk, body)
        if between is not None:
            between()
    log = await fake.log()
    await fake.clear()
    return [(after.at - before.answered) * 1000 for before, after in itertools.pairwise(log)]
