"""The scripted model as a ModelProvider, in this process.

Above: `server.sessions.loop`, through `ModelProvider`. Below: `model.py`. It passes the same events through the same
`Accumulator` as the real provider, and reports errors through the same translation table of statuses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from server.errors import ModelUnavailable
from server.providers import Chunk, ModelRequest
from server.providers.accumulate import Accumulator
from server.providers.anthropic import SILENCE_SECONDS, request_body
from server.providers.failures import status_error
from server.providers.scripted.model import Answer, Failure, ScriptedModel


class ScriptedProvider:
    """A deterministic model for demonstrations and tests; it needs no key and no network.

    The script language is described in `script.py`. `clock` gives the seconds by which its prompt cache expires,
    `silence_seconds` how long an answer that hangs is waited for, `window` the tokens that a prompt may have.
    """

    name = "scripted"

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        silence_seconds: float = SILENCE_SECONDS,
        window: int | None = None,
    ) -> None:
        self._model = ScriptedModel(clock, window)
        self._silence_seconds = silence_seconds

    async def warm_up(self) -> None:
        """Nothing to import, nothing to connect."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Chunk]:
        """See `ModelProvider.stream`."""
        body = request_body(request)
        betas = body.pop("betas", ())
        found = self._model.answer(body, betas=betas)
        if isinstance(found, Failure):
            raise _error(found, found.status)
        accumulator = Accumulator()
        await asyncio.sleep(found.wait)
        pause = text_pause(found)
        for n, event in enumerate(found.events()):
            await self._obstacles(found, n)
            if pause and is_text(event):
                await asyncio.sleep(pause)
            chunk = accumulator.feed(event)
            if chunk is not None:
                yield chunk
        yield accumulator.response()

    async def close(self) -> None:
        """Nothing is held."""

    async def _obstacles(self, answer: Answer, n: int) -> None:
        """What the script puts in the way before event `n`."""
        if answer.cut is not None and n >= answer.cut:
            raise ModelUnavailable("The connection to the provider failed: the script cut it.")
        if answer.error is not None and n >= answer.error_after:
            raise _error(answer.error, 200)
        if answer.hang and n == 1:
            await asyncio.sleep(self._silence_seconds)
            raise ModelUnavailable(f"The provider said nothing for {self._silence_seconds:g} s.")


def _error(failure: Failure, status: int) -> Exception:
    headers = {} if failure.retry_after is None else {"retry-after": str(failure.retry_after)}
    return status_error(status, failure.body, headers, failure.message)


def is_text(event: dict[str, object]) -> bool:
    """Whether the event is a text delta: those are what `stream` spreads over time."""
    delta = event.get("delta")
    return isinstance(delta, dict) and delta.get("type") == "text_delta"


def text_pause(answer: Answer) -> float:
    """Seconds before each text delta, so that all of them take the answer's `stream` seconds."""
    return answer.stream / max(1, sum(map(is_text, answer.events()))) if answer.stream else 0.0
