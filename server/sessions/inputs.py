"""What a client may send into a session: user events checked against the wire's rules and the session's state. Pure.

A request is taken whole or not at all. Its events are read in order, so that answers and the message that follows
them may come together. Contents that name uploaded files are completed by whoever calls: `file_ids` says which are
needed, and `read` puts what it is given in their place for the model, while clients see the ids as they sent them.

    ids = file_ids(asked)  ->  {id: Uploaded}  ->  read(asked, state, thread, uploads)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server import events
from server.errors import AtBudget, InvalidRequest, NotSupported, Refused
from server.events import NewEvent
from server.sessions.state import SessionState, size

MAX_EVENTS = 100
"""In one request: every list of the wire is bounded, this one's bound is not documented; twice its initial events."""
MAX_QUEUED = 1_000
"""Messages that wait for an agent: each is held by every reader of the session's stream until it is delivered."""
MAX_QUEUED_MIB = 64
"""Of all these messages together, in characters: they are delivered in one request to the model, which takes half of
it, and one message with the largest document must be taken."""
MAX_NAMED = 10
"""Calls named in an error: more than a model makes in one answer."""
MAX_INITIAL = 50
MAX_IMAGE = 5 << 20
"""Bytes, decoded: the Messages API takes no larger ones."""
MAX_DOCUMENT = 32 << 20
"""Bytes, decoded: the Messages API's bound on a whole request."""
IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
PDF = "application/pdf"

AT_THE_CAP = ("user.tool_confirmation", "user.tool_result", "user.custom_tool_result", "user.interrupt")
"""What a session takes that has reached its budget: events that start no work (reference: sessions, budget)."""

_LATER = {
    "user.define_outcome": "outcomes",
    "system.message": "system messages",
    "user.tool_result": "self-hosted environments, whose workers send tool results,",
}


@dataclass(frozen=True)
class Uploaded:
    """A file that a content block names."""

    media_type: str
    content: bytes


Block = Mapping[str, Any]
Uploads = Mapping[str, Uploaded]


def file_ids(asked: Sequence[Any]) -> list[str]:
    """The files that these events name, each once. Malformed parts are passed over: `read` says what is wrong."""
    blocks = [
        block
        for event in asked
        if isinstance(event, Mapping) and isinstance(event.get("content"), list)
        for block in event["content"]
    ]
    sources = [block.get("source") for block in blocks if isinstance(block, Mapping)]
    ids = [source.get("file_id") for source in sources if isinstance(source, Mapping) and source.get("type") == "file"]
    return list(dict.fromkeys(known for known in ids if isinstance(known, str)))


def read(asked: Any, state: SessionState, thread: str, uploads: Uploads = {}) -> list[NewEvent]:  # noqa: B006
    """The events to append. `thread` is the session's primary one.

    Raises InvalidRequest for a malformed event, Refused for one that the session's state forbids, NotSupported for
    one that this version cannot act on; each names the event by its place in the list.
    """
    if not isinstance(asked, Sequence) or isinstance(asked, str) or not asked:
        raise InvalidRequest("events: must be a list of at least one event.")
    if len(asked) > MAX_EVENTS:
        raise InvalidRequest(f"events: at most {MAX_EVENTS} in one request, not {len(asked)}.")
    reading = _Reading(state, thread, uploads)
    return [_event(reading, f"events.{index}", event) for index, event in enumerate(asked)]


def read_initial(asked: Any, thread: str, uploads: Uploads = {}) -> list[NewEvent]:  # noqa: B006
    """The events that a new session begins with: messages only. An empty list is none."""
    if not isinstance(asked, Sequence) or isinstance(asked, str):
        raise InvalidRequest("initial_events: must be a list of events.")
    if len(asked) > MAX_INITIAL:
        raise InvalidRequest(f"initial_events: at most {MAX_INITIAL}, not {len(asked)}.")
    reading, new = _Reading(SessionState(), thread, uploads), []
    for index, event in enumerate(asked):
        where = f"initial_events.{index}"
        kind = event.get("type") if isinstance(event, Mapping) else None
        if kind not in ("user.message", "user.define_outcome"):
            raise InvalidRequest(f"{where}.type: must be user.message or user.define_outcome, not {kind!r:.60}.")
        new.append(_event(reading, where, event))
    return new


class _Reading:
    """The state as the events before this one leave it, as far as later ones depend on it."""

    def __init__(self, state: SessionState, thread: str, uploads: Uploads) -> None:
        self.thread = thread
        self.uploads = uploads
        self.parked = state.parked
        self.held = state.held
        open_calls = () if state.interrupted else state.calls  # an interrupt that is still to be taken closes them
        self.waiting: dict[str, str] = {call.id: call.awaits for call in open_calls if call.awaits}
        self.room = MAX_QUEUED - len(state.queue)
        self.space = (MAX_QUEUED_MIB << 20) - sum(item.size for item in state.queue)
        self.known = {call.id for call in state.calls}

    def answer(self, where: str, call_id: Any, kind: str) -> str:
        """Take the call as answered. Raises Refused when it does not wait for this."""
        if not isinstance(call_id, str):
            raise InvalidRequest(f"{where}: must be the id of an event.")
        if self.waiting.get(call_id) != kind:
            reason = "is not waiting for this" if call_id in self.known else "is not an open call of this session"
            raise Refused(f"{where}: {call_id!r:.60} {reason}. {self.who_waits()}")
        del self.waiting[call_id]
        return call_id

    def who_waits(self) -> str:
        """The calls that are still to be answered, for either door's client."""
        if not self.waiting:
            return "No call waits for an answer."
        needs = {"confirmation": "allow or deny", "result": "give its result"}
        listed = ", ".join(f"{call_id} ({needs[kind]})" for call_id, kind in list(self.waiting.items())[:MAX_NAMED])
        return f"These calls wait: {listed}."


def _event(reading: _Reading, where: str, event: Any) -> NewEvent:
    kind = event.get("type") if isinstance(event, Mapping) else None
    name = kind if isinstance(kind, str) else ""
    if name in _LATER:
        raise NotSupported(f"{where}: {_LATER[name]} are not supported by this version of Skiff.")
    reader = _READERS.get(name)
    if reader is None:
        raise InvalidRequest(f"{where}.type: must be one of {', '.join(_READERS)}, not {kind!r:.60}.")
    read_one, fields = reader
    for field in event:
        # Older clients echo the thread that the server named; the server knows it.
        if field not in fields and field not in ("type", "session_thread_id"):
            raise InvalidRequest(f"{where}.{field}: {kind} has no such field.")
    return read_one(reading, where, event)


def _message(reading: _Reading, where: str, event: Mapping[str, Any]) -> NewEvent:
    if reading.parked and reading.waiting:
        raise Refused(
            f"{where}: the session waits for answers to its tool calls. {reading.who_waits()} Answer them, or interrupt"
            " the session, before you send a message."
        )
    if reading.held:
        raise AtBudget(
            f"{where}: the session has reached its budget. Until that is raised or removed it takes only"
            f" {', '.join(AT_THE_CAP)}."
        )
    reading.room -= 1
    if reading.room < 0:
        raise Refused(f"{where}: {MAX_QUEUED} messages wait for this agent already. Wait until it has taken them.")
    content = event.get("content")
    shown, given = _content(reading, f"{where}.content", content, ("text", "image", "document"))
    if not shown:
        raise InvalidRequest(f"{where}.content: must hold at least one block.")
    reading.space -= size(shown if given is None else given)
    if reading.space < 0:
        raise Refused(
            f"{where}: with this one, the messages that wait for this agent would hold more than {MAX_QUEUED_MIB} MiB."
            " Wait until it has taken them."
        )
    return events.user_message(reading.thread, shown, given)


def _interrupt(reading: _Reading, where: str, event: Mapping[str, Any]) -> NewEvent:
    thread = event.get("session_thread_id")
    if thread not in (None, reading.thread):
        raise InvalidRequest(f"{where}.session_thread_id: {thread!r:.60} is no thread of this session.")
    reading.waiting.clear()
    return events.user_interrupt(reading.thread)


def _confirmation(reading: _Reading, where: str, event: Mapping[str, Any]) -> NewEvent:
    result, reason = event.get("result"), event.get("deny_message")
    if result not in ("allow", "deny"):
        raise InvalidRequest(f"{where}.result: must be allow or deny, not {result!r:.60}.")
    if reason is not None and (not isinstance(reason, str) or len(reason) > 10_000):
        raise InvalidRequest(f"{where}.deny_message: must be text of at most 10,000 characters.")
    if reason is not None and result == "allow":
        raise InvalidRequest(f"{where}.deny_message: goes with result deny only.")
    call = reading.answer(f"{where}.tool_use_id", event.get("tool_use_id"), "confirmation")
    return events.tool_confirmation(reading.thread, call, allow=result == "allow", deny_message=reason)


def _custom_result(reading: _Reading, where: str, event: Mapping[str, Any]) -> NewEvent:
    is_error = event.get("is_error")
    if not isinstance(is_error, bool | None):
        raise InvalidRequest(f"{where}.is_error: must be true or false.")
    call = reading.answer(f"{where}.custom_tool_use_id", event.get("custom_tool_use_id"), "result")
    content = event.get("content")
    kinds = ("text", "image", "document", "search_result")
    shown, given = _content(reading, f"{where}.content", [] if content is None else content, kinds)
    return events.custom_tool_result(reading.thread, call, shown, is_error=bool(is_error), given=given)


_READERS: Mapping[str, tuple[Callable[[_Reading, str, Mapping[str, Any]], NewEvent], frozenset[str]]] = {
    "user.message": (_message, frozenset({"content"})),
    "user.interrupt": (_interrupt, frozenset()),
    "user.tool_confirmation": (_confirmation, frozenset({"tool_use_id", "result", "deny_message"})),
    "user.custom_tool_result": (_custom_result, frozenset({"custom_tool_use_id", "content", "is_error"})),
}


# --- content blocks --------------------------------------------------------------------------------------------------


def _content(
    reading: _Reading, where: str, content: Any, kinds: Sequence[str]
) -> tuple[list[Block], list[Block] | None]:
    """The blocks as clients see them, and as the model gets them where that differs."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise InvalidRequest(f"{where}: must be a list of content blocks.")
    shown = [_block(f"{where}.{index}", block, kinds) for index, block in enumerate(content)]
    if not any(block.get("source", {}).get("type") == "file" for block in shown if block["type"] != "search_result"):
        return shown, None
    return shown, [_filled(reading.uploads, f"{where}.{index}", block) for index, block in enumerate(shown)]


def _block(where: str, block: Any, kinds: Sequence[str]) -> Block:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidRequest(f"{where}.type: must be one of {', '.join(kinds)}, not {kind!r:.60}.")
    known = _FIELDS[kind]
    for name in block:
        if name not in known and name != "type":
            raise InvalidRequest(f"{where}.{name}: {kind} blocks have no such field.")
    return _BLOCKS[kind](where, block)


def _text(where: str, block: Block) -> Block:
    text = block.get("text")
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest(f"{where}.text: must be text that is not blank.")
    return {"type": "text", "text": text}


def _image(where: str, block: Block) -> Block:
    return {"type": "image", "source": _source(f"{where}.source", block.get("source"), IMAGES, MAX_IMAGE)}


def _document(where: str, block: Block) -> Block:
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") == "text":
        _only(f"{where}.source", source, {"type", "media_type", "data"})
        if source.get("media_type") != "text/plain" or not _filled_text(source.get("data")):
            raise InvalidRequest(f"{where}.source: text has media_type text/plain, and data that is not blank.")
        checked: Block = dict(source)
    else:
        checked = _source(f"{where}.source", source, (PDF,), MAX_DOCUMENT)
    extra = {}
    for name in ("title", "context"):
        if (value := block.get(name)) is not None:
            if not isinstance(value, str):
                raise InvalidRequest(f"{where}.{name}: must be text.")
            extra[name] = value
    return {"type": "document", "source": checked, **extra}


def _search_result(where: str, block: Block) -> Block:
    content, citations = block.get("content"), block.get("citations")
    if not isinstance(content, list) or not content:
        raise InvalidRequest(f"{where}.content: must be a list of text blocks.")
    for name in ("source", "title"):
        if not _filled_text(block.get(name)):
            raise InvalidRequest(f"{where}.{name}: must be text that is not blank.")
    if not isinstance(citations, Mapping) or not isinstance(citations.get("enabled"), bool):
        raise InvalidRequest(f"{where}.citations: must be an object with `enabled`, true or false.")
    _only(f"{where}.citations", citations, {"enabled"})
    texts = [_block(f"{where}.content.{index}", item, ("text",)) for index, item in enumerate(content)]
    return {
        "type": "search_result",
        "source": block["source"],
        "title": block["title"],
        "content": texts,
        "citations": {"enabled": citations["enabled"]},
    }


_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text"}),
    "image": frozenset({"source"}),
    "document": frozenset({"source", "title", "context"}),
    "search_result": frozenset({"source", "title", "content", "citations"}),
}
_BLOCKS: Mapping[str, Callable[[str, Block], Block]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}


def _source(where: str, source: Any, media_types: Sequence[str], most: int) -> Block:
    kind = source.get("type") if isinstance(source, Mapping) else None
    if kind == "base64":
        _only(where, source, {"type", "media_type", "data"})
        if source.get("media_type") not in media_types:
            raise InvalidRequest(f"{where}.media_type: must be one of {', '.join(media_types)}.")
        _check_base64(f"{where}.data", source.get("data"), most)
    elif kind == "url":
        _only(where, source, {"type", "url"})
        url = source.get("url")
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise InvalidRequest(f"{where}.url: must be an http or https URL.")
    elif kind == "file":
        _only(where, source, {"type", "file_id"})
        if not isinstance(source.get("file_id"), str):
            raise InvalidRequest(f"{where}.file_id: must be the id of an uploaded file.")
    else:
        raise InvalidRequest(f"{where}.type: must be base64, url or file, not {kind!r:.60}.")
    return dict(source)


def _check_base64(where: str, data: Any, most: int) -> None:
    if not isinstance(data, str) or not data:
        raise InvalidRequest(f"{where}: must be base64 text.")
    if len(data) > most * 4 // 3 + 4:
        raise InvalidRequest(f"{where}: must hold at most {most >> 20} MiB.")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where}: is not valid base64.") from None


def _only(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise InvalidRequest(f"{where}.{name}: there is no such field. Known: {', '.join(sorted(known))}.")


def _filled_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _filled(uploads: Uploads, where: str, block: Block) -> Block:
    """The block with the file that it names in the place of its id; other blocks as they are."""
    source = block.get("source")
    if not isinstance(source, Mapping) or source.get("type") != "file":
        return block
    uploaded = uploads.get(source["file_id"])
    if uploaded is None:
        raise InvalidRequest(f"{where}.source.file_id: there is no file {source['file_id']!r:.60}.")
    return {**block, "source": _of_file(f"{where}.source", block["type"], uploaded)}


def _of_file(where: str, kind: str, uploaded: Uploaded) -> Block:
    media = uploaded.media_type.partition(";")[0].strip().lower()
    if kind == "document" and media.startswith("text/"):
        text = uploaded.content.decode("utf-8", "replace")
        if not text.strip():
            raise InvalidRequest(f"{where}.file_id: the file is empty.")
        return {"type": "text", "media_type": "text/plain", "data": text}
    fits, most = (IMAGES, MAX_IMAGE) if kind == "image" else ((PDF,), MAX_DOCUMENT)
    if media not in fits:
        raise InvalidRequest(f"{where}.file_id: the file is {media}; {kind} blocks take {', '.join(fits)}.")
    if len(uploaded.content) > most:
        raise InvalidRequest(f"{where}.file_id: the file is over {most >> 20} MiB.")
    return {"type": "base64", "media_type": media, "data": base64.b64encode(uploaded.content).decode()}
