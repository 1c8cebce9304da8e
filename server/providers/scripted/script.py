"""The script language: what the scripted model is told to answer.

Above: `model.py`. Below: nothing. Pure: the place in a script follows from the request's messages alone, so that a
crash or a restart of anybody changes nothing.

A text block of a user message may hold a fenced block of JSON, a list of steps; the last such block of the
conversation governs. Each step is one answer; the step that is due is the number of assistant messages since.

    ```script
    [{"think": "Let me look."},
     {"say": "I look.", "call": [{"tool": "bash", "input": {"command": "ls"}}]},
     {"say": "It said: $RESULT"}]
    ```

What an answer holds (in this order of blocks)
    think      text of a thinking block, signed
    say        text; $RESULT is the text of the last tool results, $LAST_USER the last user text without scripts
    blocks     content blocks as they are (server tool uses and their results, citations, ...)
    call       list of {tool, input}; {tool, garbled: raw} writes an input that is no JSON object;
               {.., force: true} calls a tool even if it is not offered. Otherwise the answer says that it is not.
    garbled    short for call [{tool: "bash", garbled: raw}]; another tool by `tool`
    stop       stop_reason, where it is not tool_use (with calls) or end_turn (without)
How it comes
    wait       seconds before the first byte
    stream     seconds over which the text deltas are spread
    hang       true: after message_start nothing more comes, not even a ping, until the client goes away
    fail       {status, type?, message?, retry_after?, times = 1, after?}: an error instead, `times` times; with
               `after`, an error event inside the stream after so many events
    cut        n: the connection drops after n events, once
    summary    a step of its own: how a request for a summary of the conversation at this point is answered. Without
               it, or a `say` in it, the answer names the last message and holds what is left of the script, so that
               a conversation that goes on from there goes on with it
    A step with nothing but these goes with the step after it.
After the last step the answer is "Done."

`times` and `cut` cannot be told from the messages: they are counted in the memory of whoever runs the model, by the
conversation's state (equal conversations share a counter).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.providers.scripted.usage import as_blocks

_FENCE = re.compile(r"^[ \t]*```script[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_ANSWER = frozenset({"think", "say", "blocks", "call", "garbled", "tool", "stop"})
_MANNER = frozenset({"wait", "stream", "hang", "fail", "cut", "summary"})
STOP_REASONS = frozenset(
    ("end_turn", "tool_use", "max_tokens", "stop_sequence", "pause_turn", "refusal", "model_context_window_exceeded")
)
Step = Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]


class ScriptError(ValueError):
    """The script is wrong; the message says where."""


@dataclass(frozen=True)
class Place:
    """Where a conversation stands: its script (None: there is none) and the number of the step that is due."""

    script: tuple[Step, ...] | None
    position: int

    @property
    def step(self) -> Step:
        """The step that is due; after the last, the farewell."""
        steps = self.script or ()
        return steps[self.position] if self.position < len(steps) else {"say": "Done."}


def place(messages: Messages) -> Place:
    """Find the governing script and the due step. Raises ScriptError for a script that cannot be followed."""
    position = 0
    for message in reversed(messages):
        source = _last_script(message["role"], message["content"])
        if source is not None:
            return Place(parse(source), position)
        position += message["role"] == "assistant"
    return Place(None, position)


def _last_script(role: str, content: Any) -> str | None:
    for block in reversed(as_blocks(content)):
        text = _scripted(block, role)
        if "```script" in text:
            found = _FENCE.findall(text)
            if found:
                return str(found[-1])
    return None


def _scripted(block: Mapping[str, Any], role: str) -> str:
    """The text of a block in which a script may stand: what a user says, and a summary."""
    if block["type"] == "compaction":
        return str(block.get("content") or "")
    return str(block["text"]) if role == "user" and block["type"] == "text" else ""


def parse(source: str) -> tuple[Step, ...]:
    """The steps of a script's JSON. Steps that say nothing are merged into the one after them."""
    try:
        steps = json.loads(source)
    except ValueError as error:
        raise ScriptError(f"script: not JSON: {error}") from None
    if not isinstance(steps, list):
        raise ScriptError("script: a list of steps is needed")
    merged: list[Step] = []
    manner: dict[str, Any] = {}
    for n, step in enumerate(steps):
        _check(n, step)
        manner.update(step)
        if _ANSWER & step.keys():
            merged.append(manner)
            manner = {}
    if manner:
        merged.append({**manner, "say": "Done."})
    return tuple(merged)


def _check(n: int, step: Any) -> None:
    if not isinstance(step, dict):
        raise ScriptError(f"script step {n}: an object is needed")
    unknown = sorted(step.keys() - _ANSWER - _MANNER)
    if unknown:
        raise ScriptError(f"script step {n}: unknown field {', '.join(unknown)}")
    if step.get("stop", "end_turn") not in STOP_REASONS:
        raise ScriptError(f"script step {n}: unknown stop reason {step['stop']!r}")
    for call in step.get("call", ()):
        if not isinstance(call, dict) or not isinstance(call.get("tool"), str):
            raise ScriptError(f"script step {n}: each call needs a tool")
    if "summary" in step:
        _check(n, step["summary"])
    fail = step.get("fail", {"status": 500})
    if not isinstance(fail, dict) or not isinstance(fail.get("status"), int):
        raise ScriptError(f"script step {n}: fail needs a status")


def summary(messages: Messages) -> Step:
    """How a request for a summary of this conversation is answered. Raises ScriptError."""
    here = place(messages)
    left = list(here.script or ())[here.position :]
    fence = f"\n```script\n{_safely(left)}\n```" if here.script is not None else ""
    plain = _FENCE.sub("", "\n".join(_texts(messages[0]["content"]))).strip() or "(nothing)"
    return {"say": f"It began with: {plain[:500]}{fence}", **here.step.get("summary", {})}


def _safely(steps: Sequence[Step]) -> str:
    """Steps as JSON without a `$`: their placeholders stand for what is there when they are due."""
    return json.dumps(steps, ensure_ascii=False).replace("$", "\\u0024")


# --- what placeholders stand for -------------------------------------------------------------------------------------


def fill(text: str, messages: Messages) -> str:
    """The text with its placeholders replaced."""
    if "$RESULT" in text:
        text = text.replace("$RESULT", last_result(messages))
    if "$LAST_USER" in text:
        text = text.replace("$LAST_USER", last_user(messages))
    return text


def last_result(messages: Messages) -> str:
    """The text of the newest tool results, joined by newlines; empty when there are none."""
    for message in reversed(messages):
        results = [block for block in as_blocks(message["content"]) if block["type"] == "tool_result"]
        if results:
            return "\n".join(text for block in results for text in _texts(block.get("content") or ()))
    return ""


def last_user(messages: Messages) -> str:
    """The newest user text, without its scripts; empty when there is none."""
    for message in reversed(messages):
        if message["role"] == "user":
            texts = list(_texts(message["content"]))
            if texts:
                return _FENCE.sub("", "\n".join(texts)).strip()
    return ""


def _texts(content: Any) -> Iterable[str]:
    return (block["text"] for block in as_blocks(content) if block["type"] == "text")
