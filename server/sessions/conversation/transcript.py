"""The conversation as the model sees it: a fold of the log into Messages API messages, pure and byte-stable.

It is built from what the provider said (the raw content kept beside span.model_request_end) and from what was
delivered, never from the public agent events: those have lost signatures and ids. Everything already said is emitted
the same, byte for byte, on every request, so that the provider's prompt cache holds across turns and restarts. It
changes at three events only, each of which says so in the log: results are cleared, the conversation is compacted, the
session is given another agent. What was thought before such a change is not sent after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server.events import COMPACTED, PRIVATE_CLEARED, PRIVATE_DELIVERED, StoredEvent
from server.providers import Said
from server.sessions.conversation import compaction

Message = dict[str, Any]
CACHE_MARK = {"type": "ephemeral"}
_FAILED = {"type": "text", "text": "The tool failed."}
"""Said in words where the API does not take `is_error`: it refuses an error without text, or with anything else."""


class Transcript:
    """Grows by `apply`; `messages()` gives the request's messages with cache marks on the moving end."""

    def __init__(self, events: Iterable[StoredEvent] = ()) -> None:
        self._messages: list[Message] = []
        self._waiting: dict[str, Mapping[str, Any]] = {}  # user.message events not yet delivered
        self._calls: dict[str, str] = {}  # event id -> the model's own id, in the order of the calls
        self._results: dict[str, dict[str, Any]] = {}
        self.server_calls: dict[str, str] = {}
        """The provider's own calls that a paused answer left open: the model's id to the event's."""
        self.tools: list[Mapping[str, Any]] = []
        """What the model is offered beside the session's tools, since the first time that something was taken away."""
        self.betas: Sequence[str] = ()
        """What requests have to name so that the provider understands the conversation's head."""
        self._numbers: dict[str, int] = {}
        """The numbers of the events that hold the results, by the model's ids of the calls."""
        for event in events:
            self.apply(event)

    def apply(self, event: StoredEvent) -> None:
        """Take the next event of the log into account."""
        if event.type == "user.message":
            self._waiting[event.id] = event.private or event.public or {}
        elif event.type == PRIVATE_DELIVERED:
            self._deliver((event.private or {}).get("ids", ()))
        elif event.type == "span.model_request_end" and event.private:
            self._answer(event.private)
        elif event.type in ("agent.tool_result", "user.custom_tool_result"):
            self._result(event)
        elif event.type == PRIVATE_CLEARED and event.private:
            self._clear(event.private)
        elif event.type == COMPACTED and event.private:
            self._compact(event.private)
        elif event.type == "session.updated" and "spec" in (event.private or {}):
            self._messages = compaction.without_thoughts(self._messages)

    @property
    def said(self) -> Sequence[Message]:
        """Every message so far, without cache marks."""
        return self._messages

    def messages(self, upto: int | None = None) -> list[Message]:
        """Every message so far, or the first `upto`; the last block and the last block before the previous answer carry
        a cache mark.

        Two marks, because a long round of tool calls can be further back than the 20 blocks in which the provider
        looks for an earlier prefix.
        """
        marked = list(self._messages[:upto])
        users = [index for index, message in enumerate(marked) if message["role"] == "user"]
        for index in users[-2:]:
            content = marked[index]["content"]
            last = {**content[-1], "cache_control": CACHE_MARK}
            marked[index] = {"role": "user", "content": [*content[:-1], last]}
        return marked

    @property
    def size(self) -> int:
        """Characters of all messages, as they are sent."""
        return sum(len(message.json) for message in self._messages if isinstance(message, Said))

    def _deliver(self, ids: Iterable[str]) -> None:
        for event_id in ids:
            body = self._waiting.pop(event_id, None)
            if body is not None:
                self._say_as_user(list(body["content"]))

    def _answer(self, raw: Mapping[str, Any]) -> None:
        if "content" not in raw:
            return  # a summary, which its own event brings, or a failure
        if raw["content"]:
            self._messages.append(Said(role="assistant", content=raw["content"]))
        self._calls = dict(raw.get("calls", {}))
        self._results = {}
        self.server_calls = dict(raw.get("server_calls", {}))

    def _result(self, event: StoredEvent) -> None:
        body = event.public or {}
        call_id = body.get("tool_use_id") or body.get("custom_tool_use_id") or ""
        content, is_error = (event.private or body).get("content", ()), body.get("is_error")
        if call_id not in self._calls or call_id in self._results:
            return  # the provider's own tool: its result is part of the raw content; or answered twice
        blocks = list(content)
        if is_error and not blocks:
            blocks = [_FAILED]
        plain = all(block["type"] == "text" for block in blocks)
        if is_error and not plain:
            blocks = [_FAILED, *blocks]
        self._numbers[self._calls[call_id]] = event.seq
        result = {"type": "tool_result", "tool_use_id": self._calls[call_id], "content": blocks}
        self._results[call_id] = {**result, "is_error": True} if is_error and plain else result
        if len(self._results) == len(self._calls):
            self._say_as_user([self._results[known] for known in self._calls])
            self._calls, self._results = {}, {}

    def _say_as_user(self, content: list[Any]) -> None:
        self._drop_unfinished()
        compaction.join(self._messages, Said(role="user", content=content))

    def _clear(self, body: Mapping[str, Any]) -> None:
        """Results gave way to words on where they are."""
        self._offer(body)
        thoughtless = compaction.without_thoughts(self._messages)
        self._messages = compaction.with_results_cleared(thoughtless, body["keep"], body["says"], self._numbers)

    def _compact(self, body: Mapping[str, Any]) -> None:
        """All but the newest messages gave way to a summary."""
        self._offer(body)
        kept = compaction.without_thoughts(self._messages[len(self._messages) - body["kept"] :])
        self._messages = [Said(body["head"])]
        for message in kept:
            compaction.join(self._messages, message)
        self.betas, self.server_calls = body["betas"], {}
        self._drop_unfinished()
        if body["then"] and self._messages[-1]["role"] == "assistant":
            self._say_as_user([{"type": "text", "text": body["then"]}])

    def _offer(self, body: Mapping[str, Any]) -> None:
        if not self.tools and body.get("tool"):
            self.tools = [body["tool"]]

    def _drop_unfinished(self) -> None:
        """A paused answer may end in a call of the provider's own tool; given up, that call must not be sent back."""
        if not self._messages or self._messages[-1]["role"] != "assistant":
            return
        said = self._messages[-1]["content"]
        answered = {block.get("tool_use_id") for block in said}
        kept = [b for b in said if b["type"] != "server_tool_use" or b["id"] in answered]
        if len(kept) == len(said):
            return
        self._messages[-1] = Said(role="assistant", content=kept)
        if not kept:
            self._messages.pop()
