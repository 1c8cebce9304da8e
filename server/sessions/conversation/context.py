"""How full the model's context is: a small part of a session's state, and a fold like the rest of it. Pure.

What the last request's prompt and answer had is known from its usage; what has come since is estimated. Above: `fold`
(which folds it), `decide` (which asks what makes room). Below: `changed`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from server.sessions.changed import changed

FULL = "model_context_window_exceeded"
"""Reason of the model's API for an answer that was cut off because the context was full."""
KEEP = 3
"""Rounds of tools whose results are never cleared while older ones can be: what the agent works with now."""
STEP = 0.2
"""The least share of the window that a clearing has to free: each one costs the provider's cache from there on."""
LARGE = 0.5
"""The share of the window from which on the results of the newest round are cleared too: they would stay beside any
summary, and leave no room for the work."""
SMALL = 100
"""Tokens of a result that is not worth clearing: what stands in its place has about half of that."""
BYTES_PER_TOKEN = 3
"""Of JSON; English text has four or more, code and other languages fewer. Too many tokens are the safe mistake, and the
next request's usage puts it right."""
IMAGE = 2_000
"""Tokens of an image, about the most that the API makes of one."""
DOCUMENT_BYTES_PER_TOKEN = 40
"""Of a PDF's base64: a page of 100 KB has about 2,500 tokens."""


@dataclass(frozen=True)
class Context:
    """The next request's prompt, in tokens, and what of it could be cleared."""

    tokens: int = 0
    old: int = 0
    """Of results older than the newest rounds."""
    recent: tuple[int, ...] = ()
    """Of the results of each of the newest rounds, oldest first."""
    crowded: bool = False
    """The provider said that it is too much, whatever was estimated."""
    compactions: int = 0
    """In a row, without an answer of the model between them."""
    since: int = 0
    """Tokens that came since the model's last answer."""
    prompt: int = 0
    """Tokens of this turn's prompts, all requests together."""
    cached: int = 0
    """Those of them that the provider's cache held."""

    @property
    def cache_hit_ratio(self) -> float | None:
        """The share of the turn's prompts that came from the cache; None before the turn's first answer."""
        return round(self.cached / self.prompt, 4) if self.prompt else None


@dataclass(frozen=True)
class Window:
    """How much a model can take in, and when something is done about it. `tokens` 0: no bound is known."""

    tokens: int = 0
    clear_at: float = 0.5
    """The share of the window at which old results are cleared."""
    compact_at: float = 0.8
    """The share at which the conversation is summarized."""


Way = Literal["clear", "compact", "clear_all", "full"]


def what_makes_room(context: Context, coming: int, window: Window) -> Way | None:
    """What has to be done before a request that has `coming` more tokens; None when there is room enough.

    `full`: nothing helps any more. Each of the others changes the context, so that asking again comes to an end.
    """
    if not window.tokens:
        return "full" if context.crowded else None
    if coming >= window.tokens:
        return "full"
    tokens = context.tokens + coming
    over = context.crowded or tokens >= window.tokens
    if not over and tokens < window.clear_at * window.tokens:
        return None
    if context.old >= STEP * window.tokens or (over and context.old):
        return "clear"
    if not over and tokens < window.compact_at * window.tokens:
        return None
    if sum(context.recent[-1:]) >= LARGE * window.tokens:
        return "clear_all"
    if not context.compactions and _worth_summarizing(context, coming, window):
        return "compact"
    if not over:
        return None  # as small as it gets, and it fits
    return "clear_all" if any(context.recent) else "full"


def _worth_summarizing(context: Context, coming: int, window: Window) -> bool:
    """Whether a summary could stand for enough: what is to be answered next stays as it is."""
    older = context.tokens if coming else context.tokens - context.since
    return older >= STEP * window.tokens or (context.crowded and older > 0)


# --- the fold --------------------------------------------------------------------------------------------------------


def turn_begun(context: Context) -> Context:
    return changed(context, prompt=0, cached=0)


def turn_over(context: Context) -> Context:
    """What could not be made to fit this time may the next time, when something else came last."""
    return changed(context, compactions=0)


def came(context: Context, tokens: int) -> Context:
    """Something was said to the model."""
    return changed(context, tokens=context.tokens + tokens, since=context.since + tokens)


def answered(context: Context, usage: Mapping[str, Any], *, stop: str | None, calls: bool) -> Context:
    """The model answered; `calls`: results will come of it."""
    counted = counted_usage(context, usage)
    prompt = counted.prompt - context.prompt
    full = stop == FULL
    recent, old = context.recent, context.old
    if calls:
        old += sum(recent[: len(recent) + 1 - KEEP] if len(recent) >= KEEP else ())
        recent = (*recent, 0)[-KEEP:]
    return changed(
        counted,
        tokens=prompt + int(usage.get("output_tokens", 0)),
        old=old,
        recent=recent,
        crowded=full,
        compactions=context.compactions if full else 0,
        since=0,
    )


def counted_usage(context: Context, usage: Mapping[str, Any]) -> Context:
    """A request's prompt, as part of the turn's."""
    cached = int(usage.get("cache_read_input_tokens", 0))
    names = ("input_tokens", "cache_creation_5m_input_tokens", "cache_creation_1h_input_tokens")
    prompt = cached + sum(int(usage.get(name, 0)) for name in names)
    return changed(context, prompt=context.prompt + prompt, cached=context.cached + cached)


def result_came(context: Context, content: Any) -> Context:
    """A result of a call of the newest round."""
    tokens = estimate(content)
    grown = came(context, tokens)
    if tokens < SMALL or not context.recent:
        return grown
    return changed(grown, recent=(*context.recent[:-1], context.recent[-1] + tokens))


def refused(context: Context) -> Context:
    """The provider found the request too long."""
    return changed(context, crowded=True)


def cleared(context: Context, body: Mapping[str, Any]) -> Context:
    """Results were cleared, all but those of the newest `keep` rounds."""
    kept = context.recent[len(context.recent) - body["keep"] :] if body["keep"] else ()
    recent = (*(0 for _ in context.recent[: len(context.recent) - len(kept)]), *kept)
    tokens = max(0, context.tokens - body["freed"])
    return changed(context, tokens=tokens, old=0, recent=recent, crowded=False)


def compacted(context: Context, body: Mapping[str, Any]) -> Context:
    """All but the newest messages gave way to a summary."""
    rounds = tuple(body["rounds"])
    return changed(
        context,
        tokens=body["after"],
        old=sum(rounds[:-KEEP]),
        recent=rounds[-KEEP:],
        crowded=False,
        compactions=context.compactions + 1,
        since=0,
    )


# --- estimates -------------------------------------------------------------------------------------------------------


def estimate(value: Any) -> int:
    """Tokens of content blocks, messages or anything else that JSON can spell; rather too many than too few."""
    if isinstance(value, list | tuple):
        return sum(estimate(item) for item in value)
    if isinstance(value, Mapping):
        kind = value.get("type")
        if kind == "text":
            return len(str(value.get("text", "")).encode("utf-8", "replace")) // BYTES_PER_TOKEN + 1
        if kind == "image":
            return IMAGE
        if kind == "document":
            return _document(value.get("source", {}))
        if isinstance(value.get("content"), list | tuple):
            rest = {key: item for key, item in value.items() if key != "content"}
            return estimate(value["content"]) + _spelled(rest)
    return _spelled(value)


def _document(source: Mapping[str, Any]) -> int:
    data = str(source.get("data", ""))
    if source.get("type") == "text":
        return len(data.encode("utf-8", "replace")) // BYTES_PER_TOKEN + 1
    return max(IMAGE, len(data) // DOCUMENT_BYTES_PER_TOKEN)


def _spelled(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")) // BYTES_PER_TOKEN


def estimate_all(values: Iterable[Any]) -> int:
    """Tokens of several things together."""
    return sum(estimate(value) for value in values)
