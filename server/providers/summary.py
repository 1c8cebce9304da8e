"""A conversation in fewer words: how a model is asked for it, and what then stands at the conversation's head. Pure.

Above: `sessions.compacting`. Below: requests and answers as data. Two ways, one shape: a request of its own, whose
answer becomes the first message of every later request.

    own      any model of any provider: the conversation, then an instruction; the text becomes a user's message
    server   the API's own `compaction` parameter: it answers with a signed block, to be sent back first and verbatim,
             with its beta header, in every later request
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from server.providers import ModelRequest, ModelResponse

How = Literal["own", "server"]
BETA = "compact-2026-09-04"
MOST_TOKENS = 16_000
"""Of a summary, and of what the model thinks before it: it is read again with every later request."""

SUMMARIZE = (
    "Your context is nearly full. Everything above is about to be removed from it, and you will go on with nothing but"
    " what you write now. Call no tool. Write a summary for yourself, in plain text, with:\n"
    "- what you were asked to do: each request in its own words where they matter, with every condition and wish;\n"
    "- what has been done and found out: files with their paths, commands that worked, facts, decisions and why;\n"
    "- what failed, so that it is not tried again;\n"
    "- where the work stands now, and what comes next.\n"
    "Leave out what can be looked up again; name where it can be found."
)
_HEAD = "[The conversation until here was removed to make room. You wrote this summary of it.]"
_NO_SUMMARY = (
    "[The conversation until here was removed to make room, and no summary of it could be written. All of it is kept:"
    " recall finds it. It began with this message, shortened:]"
)
BEGINNING = 4_000
"""Characters of a conversation's first message that stand for all of it where there is no summary."""


class NoSummary(Exception):
    """The model answered, and wrote no summary: it refused, or called a tool instead. It would do so again."""


@dataclass(frozen=True)
class Head:
    """What stands in the place of the messages that were summarized."""

    message: Mapping[str, Any]
    text: str
    """The summary, to be read by people."""
    betas: Sequence[str] = ()
    """What every later request has to name so that the message is understood."""


def summary_request(request: ModelRequest, how: How) -> ModelRequest:
    """The request for a summary of this one's messages. The head of it stays as it is, so that the provider's cache
    holds: most of what is summarized has been read before."""
    fewer = min(request.max_tokens, MOST_TOKENS)
    if how == "server":
        betas = sorted({*request.options.get("betas", ()), BETA})
        options = {**request.options, "compaction": {"type": "summarize"}, "betas": betas}
        return replace(request, max_tokens=fewer, options=options)
    asked = {"type": "text", "text": SUMMARIZE}
    *before, last = request.messages
    if last["role"] == "user":
        messages = [*before, {"role": "user", "content": [*last["content"], asked]}]
    else:
        messages = [*request.messages, {"role": "user", "content": [asked]}]
    return replace(request, max_tokens=fewer, messages=messages)


def read_summary(response: ModelResponse, how: How) -> Head:
    """What the answer says. Raises NoSummary."""
    if response.stop_reason == "refusal":
        raise NoSummary
    if how == "server":
        block = next((each for each in response.content if each["type"] == "compaction"), None)
        if block is None or not block.get("content"):
            raise NoSummary
        return Head({"role": "assistant", "content": [dict(block)]}, str(block["content"]), (BETA,))
    text = "\n".join(str(each["text"]) for each in response.content if each["type"] == "text").strip()
    if not text:
        raise NoSummary
    return _said(f"{_HEAD}\n\n{text}", text)


def without_summary(messages: Sequence[Mapping[str, Any]]) -> Head:
    """What stands for a conversation that nobody could summarize: how it began. The agent can look up the rest."""
    texts = [str(block["text"]) for block in messages[0]["content"] if block["type"] == "text"]
    return _said(f"{_NO_SUMMARY}\n\n" + "\n".join(texts)[:BEGINNING], "")


def _said(text: str, summary: str) -> Head:
    return Head({"role": "user", "content": [{"type": "text", "text": text}]}, summary)
