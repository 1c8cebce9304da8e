"""A conversation made smaller: results cleared, old messages cut off, a whole made to fit. Pure.

Above: `transcript`, which applies what the log says was done, and `compacting`, which does it. Below: `context`, for
estimates. Whatever is changed here, a call and its result stay together, and nothing that was thought before a change
stays after it: models check that what comes before a thought is what was there when they had it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server.providers import Said
from server.sessions.conversation.context import SMALL, estimate, estimate_all

Message = dict[str, Any]

THOUGHTS = ("thinking", "redacted_thinking")
SHORTEST = 200
"""Characters that are left of a text at least, when a whole conversation must be made to fit."""
LONGEST = 50_000
"""Characters that are left of a text at first."""
_LEFT_OUT = "\n[… {:,} characters are left out here …]\n"


def without_thoughts(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """The conversation without thinking blocks. A message that was nothing else goes, and its neighbours are one."""
    kept: list[Message] = []
    for message in messages:
        content = [block for block in message["content"] if block["type"] not in THOUGHTS]
        if content:
            changed = len(content) < len(message["content"])
            join(kept, Said(role=message["role"], content=content) if changed else message)
    return kept


def join(messages: list[Message], message: Mapping[str, Any]) -> None:
    """Append a message; what one side says twice in a row is one message."""
    if messages and messages[-1]["role"] == message["role"] == "user":
        last = messages.pop()
        message = Said(role="user", content=[*last["content"], *message["content"]])
    messages.append(message if isinstance(message, Said) else Said(message))


def with_results_cleared(
    messages: Sequence[Message], keep: int, says: str, numbers: Mapping[str, int]
) -> list[Message]:
    """The conversation with `says` in the place of every result that is worth it, but for the newest `keep` rounds.

    `says` has a `{size}` and a `{number}`; `numbers` are the events' numbers by the model's ids of the calls.
    """
    rounds = [index for index, message in enumerate(messages) if _holds_results(message)]
    old = set(rounds[: len(rounds) - keep])
    return [_cleared(message, says, numbers) if n in old else message for n, message in enumerate(messages)]


def _holds_results(message: Message) -> bool:
    return any(block["type"] == "tool_result" for block in message["content"])


def _cleared(message: Message, says: str, numbers: Mapping[str, int]) -> Message:
    content = [_placeholder(block, says, numbers) if _clearable(block) else block for block in message["content"]]
    return Said(role=message["role"], content=content)


def _clearable(block: Mapping[str, Any]) -> bool:
    return block["type"] == "tool_result" and estimate(block["content"]) >= SMALL


def _placeholder(block: Mapping[str, Any], says: str, numbers: Mapping[str, int]) -> Mapping[str, Any]:
    parts = block["content"]
    texts = sum(len(part["text"]) for part in parts if part["type"] == "text")
    others = ["an image" if part["type"] == "image" else "a document" for part in parts if part["type"] != "text"]
    size = ", ".join([*([f"{texts:,} characters"] if texts else ()), *others])
    text = says.format(size=size, number=numbers[block["tool_use_id"]])
    return {**block, "content": [{"type": "text", "text": text}]}


def recent_rounds(messages: Iterable[Message]) -> list[int]:
    """Tokens of what could be cleared in each round of tools, oldest first."""
    rounds = [message["content"] for message in messages if _holds_results(message)]
    return [estimate_all(block["content"] for block in content if _clearable(block)) for content in rounds]


# --- where it is cut -------------------------------------------------------------------------------------------------


def cut(messages: Sequence[Message], most: int, longest: int, *, follows: bool) -> int:
    """How many of the oldest messages can give way to a summary: those after them have at most `most` tokens.

    The newest exchange stays even if it has more, but where something `follows` that is not among the messages yet it
    goes if it has more than `longest`. 0: there is nothing that a summary could stand for.
    """
    tail, at = 0, 0
    for n in range(len(messages) - 1, 0, -1):
        tail += estimate(messages[n])
        if _holds_results(messages[n]):
            continue  # what it answers stands before it
        if not at and tail > longest and follows:
            return len(messages)
        if at and tail > most:
            return at
        at = n
    return len(messages) if follows and not at else at


# --- how it is made to fit -------------------------------------------------------------------------------------------


def fitted(messages: Sequence[Mapping[str, Any]], most: int) -> Sequence[Mapping[str, Any]]:
    """The conversation in at most `most` tokens or so: as it is where it fits, else with its long texts shortened.

    For one request only: who reads it writes a summary, and needs the gist of everything more than all of anything.
    """
    longest = LONGEST
    found = messages
    while estimate_all(found) > most and longest >= SHORTEST:
        found = [
            Said(role=message["role"], content=[_shortened(block, longest) for block in message["content"]])
            for message in without_thoughts(messages)
        ]
        longest //= 2
    return found


def _shortened(block: Mapping[str, Any], longest: int) -> Mapping[str, Any]:
    """The block with at most so many characters in each of its texts, and without pictures. A block that the provider
    signed or numbered (its own tools' results) stays as it is."""
    match block["type"]:
        case "text":
            return {**block, "text": shortened(block["text"], longest)}
        case "tool_result":
            return {**block, "content": [_shortened(part, longest) for part in block["content"]]}
        case "tool_use":
            return {**block, "input": _shortened_value(block["input"], longest)}
        case "image" | "document":
            return {"type": "text", "text": f"[{block['type']} left out]"}
    return block


def _shortened_value(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return shortened(value, longest)
    if isinstance(value, Mapping):
        return {key: _shortened_value(item, longest) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened_value(item, longest) for item in value]
    return value


def shortened(text: str, longest: int) -> str:
    """The text's beginning and end, with words in between that say how much is missing."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return text[:half] + _LEFT_OUT.format(len(text) - 2 * half) + text[len(text) - half :]
