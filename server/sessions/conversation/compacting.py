"""Make room in the context of a session's model: clear old results, or let a summary stand for what was said.

Above: `loop`. Below: the provider, and `compaction`, which knows how a conversation is made smaller. What was done is
an event, so that every fold of the log shows the model the same; the log keeps everything, and `recall` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from server import events
from server.errors import ModelContextTooLong, ModelError
from server.events import COMPACTION, NewEvent
from server.providers import Chunk, ModelResponse
from server.providers.summary import Head, NoSummary, read_summary, summary_request, without_summary
from server.sessions import tracing
from server.sessions.answer import wire_usage
from server.sessions.asking import Asking
from server.sessions.conversation.compaction import cut, fitted, recent_rounds, without_thoughts
from server.sessions.conversation.context import KEEP, estimate_all
from server.sessions.decide import MakeRoom
from server.sessions.means import Means
from server.sessions.record import Record
from server.sessions.spec import Spec
from server.tools.recall import RECALL

TAIL = 0.1
"""The share of the window that the newest messages may have beside the summary of the others."""
LONGEST_TAIL = 0.3
"""The share that the newest exchange may have where a new message follows it."""
FITS = 0.9
"""The share of the window up to which a conversation is given to be summarized as it is."""
SQUEEZED = 0.5
"""The share that it gets when it must be made to fit: estimates may be wrong by as much."""
SURELY = 0.75
"""The part of an estimate that is surely freed: the estimate is rather too high."""

CLEARED = "[Cleared to make room: {size}. recall(first={number}, last={number}) shows it again.]"
GO_ON = "[Your answer was cut off because your context was full. There is room again now: go on.]"
TOO_LONG = (
    "The conversation does not fit into the model's context of {:,} tokens, and no summary can make it fit: what came"
    " last is too long by itself. Send a shorter message; what is long can be put into a file."
)


class Compacting:
    """What makes room in one session."""

    def __init__(self, means: Means, record: Record, spec: Spec, asking: Asking) -> None:
        self._means = means
        self._record = record
        self._spec = spec
        self._asking = asking

    def limit_reached(self) -> NewEvent:
        """What is said when no room can be made. The next message may well be answered: it is another conversation."""
        words = TOO_LONG.format(self._record.limits.window.tokens)
        kind = "compaction_limit_reached_error"
        return events.session_error(self._record.thread, kind, words, "exhausted", private={"passing": True})

    async def clear(self, work: MakeRoom) -> None:
        """Let words stand for the results of old rounds, or of all."""
        record, context = self._record, self._record.state.context
        keep = KEEP if work.way == "clear" else 0
        freed = context.old + (0 if keep else sum(context.recent))
        cleared = events.results_cleared(
            record.thread, keep=keep, says=CLEARED, freed=int(freed * SURELY), tool=self._tool()
        )
        await record.append([cleared])

    def cut(self, work: MakeRoom) -> int:
        """How many of the oldest messages a summary would stand for; 0 when there is nothing to summarize."""
        said, fits = self._record.transcript.said, self._fits
        return cut(said, int(TAIL * fits), int(LONGEST_TAIL * fits), follows=bool(work.deliver))

    @property
    def _fits(self) -> int:
        """Tokens that surely fit. What the provider refused is too much, whatever the table of windows says."""
        context, window = self._record.state.context, self._record.limits.window.tokens
        return min(window, context.tokens) if context.crowded else window

    async def summarize(self, work: MakeRoom) -> None:
        """Ask for a summary of all but the newest messages, and go on from there."""
        async with self._asking.due(work) as due:
            if due == work:
                start_id = await self._asking.begin((), COMPACTION)
                await self._asking.within_bounds(start_id, partial(self._summary, self.cut(work)))

    async def _summary(self, at: int, start_id: str, max_tokens: int) -> list[NewEvent]:
        record, spec = self._record, self._spec
        how = self._means.summaries(spec.model)
        request = self._asking.request(max_tokens, at)
        if self._must_be_squeezed(at):
            request = replace(request, messages=fitted(request.messages, int(SQUEEZED * self._fits)))
        with tracing.chat(record.session_id, spec) as span:
            try:
                response = await self._asking.receive(summary_request(request, how), _unseen)
            except ModelError as error:
                tracing.failed(span, spec, error.error_type)
                if isinstance(error, ModelContextTooLong):
                    return [self._asking.broken_off(start_id), self._compacted(None, at)]
                raise
            cost = self._means.prices.cost_usd(response.model, response.usage)
            tracing.answered(span, response, cost)
        raw = {**_counted(response), "cost_usd": None if cost is None else str(cost)}
        end = events.model_request_end(record.thread, start_id, wire_usage(response.usage), is_error=False, raw=raw)
        try:
            return [end, self._compacted(read_summary(response, how), at)]
        except NoSummary:
            return [end, self._compacted(None, at)]

    def _must_be_squeezed(self, at: int) -> bool:
        context, window = self._record.state.context, self._record.limits.window.tokens
        rest = estimate_all(self._record.transcript.said[at:])
        return context.crowded or context.tokens - rest >= FITS * window

    def _compacted(self, head: Head | None, at: int) -> NewEvent:
        """The event of a compaction. It keeps from where on the conversation stays, and what stands before it: its
        beginning where nobody could summarize it, so that a session never stands still for want of a summary."""
        record, spec = self._record, self._spec
        head = head or without_summary(record.transcript.said)
        kept = without_thoughts(record.transcript.said[at:])
        after = estimate_all([head.message, *kept, *spec.system, *spec.tools])
        private = {
            "head": dict(head.message),
            "summary": head.text,
            "from": at,
            "kept": len(record.transcript.said) - at,
            "then": GO_ON if record.state.owed else None,
            "before": record.state.context.tokens,
            "after": after,
            "rounds": recent_rounds(kept),
            "betas": list(head.betas),
            "tool": self._tool(),
        }
        return events.context_compacted(record.thread, private)

    def _tool(self) -> Mapping[str, Any] | None:
        """The tool that finds again what was taken away. It is offered from the first time on, at which the prefix of
        every request changes anyway, and is in the log as it was then: an upgrade must not change the prefix."""
        known = self._record.transcript.tools or RECALL.name in self._spec.custom
        return None if known else RECALL.definition()


def _unseen(chunk: Chunk) -> None:
    """A summary is shown to nobody while it is written."""


def _counted(response: ModelResponse) -> dict[str, Any]:
    return {"purpose": COMPACTION, "usage": dict(vars(response.usage)), "model": response.model}
