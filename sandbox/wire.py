"""The frames between the server and the runner inside a sandbox.

Above: `sandbox.channel` (server side) and `sandbox.runner` (inside). Below: any ordered byte stream (an engine's
attach stream, a pair of pipes). This module knows neither; it turns bytes into frames and named tuples into headers.

Standard library only and Python 3.8 syntax: the runner ships a copy of it into every image. Named tuples rather than
dataclasses, because importing those costs 1.5 MB in every sandbox.

A frame is

    magic  epoch  header length  body length  crc32(header + body)   header (JSON, UTF-8)   body (bytes)
    4s     u64    u32            u32          u32

big-endian. `epoch` fences owners: a runner that has answered epoch N refuses frames of a lower one, and stamps N on
what it sends. A reader that meets garbage skips to the next magic whose checksum holds; one that waits in vain for the
rest of a frame (its sender died) looks for the next owner's `attach` behind it (`Decoder.rescue`).

Host to runner
    attach    {}                                      first frame of an owner; answered by `hello`
    start     {op, kind, thread, args} + body         idempotent: a known op is attached to, not run again
    cancel    {op}                                    stop it; its result still comes, with meta.cancelled
    settle    {ops: [...]}                            these results are committed; the journal may forget them
    ping      {n}                                     answered by `pong`
    net.data  {stream} + body   net.end {stream}   net.reset {stream, why?}   net.window {stream, bytes}

Runner to host
    hello     {version, incarnation, python, ops: {op: "running"|"done"}}
    beat      {}                                      every BEAT_SECONDS while a host is attached
    output    {op} + body                             live output of a running bash, best effort, may be shed
    result    {op, ok, meta} + body                   when the op ends, and again whenever its `start` is resent
    pong      {n}
    net.open  {stream}   net.data {stream} + body   net.end {stream}   net.reset {stream}   net.window {stream, bytes}
    refused   {why}                                   the last frame was not acceptable

A network stream may carry data at once after `net.open`, without waiting for an answer. It is over when both sides have
sent `net.end`, or one `net.reset`; frames of a stream that is over are ignored, for they may have crossed its end.
`net.window` gives back bytes that were consumed. A reset after an end means "I take no more": what was sent counts.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Type, Union

VERSION = 1
"""Bumped when a frame changes meaning; part of the key of a derived image."""

MAGIC = b"SKF1"
HEAD = struct.Struct("!4sQIII")
MAX_HEADER = 1 << 18
"""256 KiB: the longest command or path list that a header may carry."""
MAX_BODY = 24 << 20
"""24 MiB: a 20 MiB PDF (the wire toolset's limit for `read`) with room to spare."""
BEAT_SECONDS = 5.0
"""The runner says something at least this often; the host gives up on it after SILENCE_SECONDS."""
SILENCE_SECONDS = 30.0
SESSION = "/mnt/session"
"""Belongs to root inside, so that the agent can put nothing else in the place of what lies in it."""
UPLOADS = SESSION + "/uploads"
"""What the session was given; the agent can read it and nothing more."""
OUTPUTS = SESSION + "/outputs"
"""What the agent hands out: its own folder, which it can fill but not replace."""
NET_WINDOW = 256 << 10
"""Bytes a network stream may have in flight in one direction before the receiver acknowledges them."""
NET_PORTION = 32 << 10
"""Most bytes in one `net.data`: small enough that a tool's result never waits long behind one."""
NET_ACK = NET_PORTION // 2
"""A receiver gives credit back once this much was consumed: half the smallest share, so that no sender starves."""
NET_STREAMS = 256
"""Network streams of one sandbox at a time: several times what a package manager opens, a quarter of usual nofile."""
NET_TOTAL = 2 << 20
"""Bytes that all streams of one direction share out; what a tool's result may have to wait behind, about 20 ms."""


PORTION = struct.Struct("!I")
"""Before each portion of an archive on its way in: its length. 0 is the end, which not every stream can say."""


def net_share(streams: int) -> int:
    """Bytes that one of `streams` open streams may have in flight: the window, less when many share the way.

    Never less than a portion: a stream whose reader stalls must not be able to stall the others.
    """
    return max(NET_PORTION, min(NET_WINDOW, NET_TOTAL // max(1, streams)))


class Frame(NamedTuple):
    """One message: a small JSON header whose `t` names it, and an opaque body."""

    header: Dict[str, Any]
    body: bytes = b""
    epoch: int = 0

    @property
    def type(self) -> str:
        kind = self.header.get("t")
        return kind if isinstance(kind, str) else ""


_header_json = json.JSONEncoder(separators=(",", ":")).encode


def encode(frame: Frame) -> bytes:
    """The bytes of a frame. Raises ValueError when header or body are over their limits."""
    header = _header_json(frame.header).encode("utf-8", "surrogatepass")
    if len(header) > MAX_HEADER or len(frame.body) > MAX_BODY:
        raise ValueError(f"frame too large: header {len(header)}, body {len(frame.body)} bytes")
    crc = zlib.crc32(frame.body, zlib.crc32(header))
    return HEAD.pack(MAGIC, frame.epoch, len(header), len(frame.body), crc) + header + frame.body


class Decoder:
    """Feeds on bytes in any portions and yields whole frames; skips what is no frame.

    `skipped` counts the bytes of garbage seen so far, and those of checksums computed in vain (a hostile sender can
    make many of few). Over `limit`, where one is given, `feed` raises ValueError.
    """

    def __init__(self, limit: Optional[int] = None) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self.skipped = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        while True:
            frame = self._next()
            if frame is None:
                return
            yield frame

    @property
    def waiting(self) -> bool:
        """Part of a frame is here, the rest is not."""
        return bool(self._buffer)

    def rescue(self) -> Iterator[Frame]:
        """For a stream that fell silent inside a frame: go on at an `attach` that came behind the frame's start.

        Only a whole `attach` of a higher epoch counts, and only the caller's patience starts the search: the body of
        a live frame may hold anything.
        """
        buffer = self._buffer
        epoch = HEAD.unpack_from(buffer)[1] if len(buffer) >= HEAD.size else 0
        start = buffer.find(MAGIC, 1)
        while start >= 0:
            probe = Decoder()
            probe._buffer = buffer[start : start + HEAD.size + 4096]
            frame = probe._next() if len(probe._buffer) >= HEAD.size else None
            if frame is not None and not probe.skipped and frame.type == "attach" and frame.epoch > epoch:
                self.skipped += start
                del buffer[:start]
                yield from self.feed(b"")
                return
            start = buffer.find(MAGIC, start + 1)

    def _next(self) -> Optional[Frame]:
        buffer = self._buffer
        while True:
            if not buffer.startswith(MAGIC[: len(buffer)]):
                self._skip()
                continue
            if len(buffer) < HEAD.size:
                return None
            _, epoch, header_size, body_size, crc = HEAD.unpack_from(buffer)
            if header_size > MAX_HEADER or body_size > MAX_BODY:
                self._skip()
                continue
            end = HEAD.size + header_size + body_size
            if len(buffer) < end:
                return None
            header_bytes = bytes(buffer[HEAD.size : HEAD.size + header_size])
            body = bytes(buffer[HEAD.size + header_size : end])
            if zlib.crc32(body, zlib.crc32(header_bytes)) != crc:
                self.skipped += end
                self._skip()
                continue
            del buffer[:end]
            try:
                header = json.loads(header_bytes)
            except ValueError:
                self.skipped += end
                continue
            if isinstance(header, dict):
                return Frame(header, body, epoch)
            self.skipped += end

    def _skip(self) -> None:
        """Drop bytes up to the next possible magic, at least one."""
        buffer = self._buffer
        drop = buffer.find(MAGIC, 1)
        if drop < 0:  # the last bytes may be the first of a magic
            cut = next((n for n in (3, 2, 1) if n < len(buffer) and buffer.endswith(MAGIC[:n])), 0)
            drop = len(buffer) - cut
        self.skipped += drop
        del buffer[:drop]
        if self._limit is not None and self.skipped > self._limit:
            raise ValueError(f"{self.skipped} bytes that are no frames")


# --- operations ------------------------------------------------------------------------------------------------------


class Bash(NamedTuple):
    """Run a command in the thread's live shell, or restart that shell. `timeout_ms` 0 means the runner's default."""

    command: Optional[str] = None
    restart: bool = False
    timeout_ms: int = 0


class Read(NamedTuple):
    """Read a file for the model: text (optionally lines `view_range`, 1-based, inclusive, end <= 0 = to the end),
    or an image or PDF as bytes with meta.media_type."""

    file_path: str = ""
    view_range: Optional[List[int]] = None


class Write(NamedTuple):
    """Write a text file whole and atomically, making its parents. The content is the frame's body."""

    file_path: str = ""


class Edit(NamedTuple):
    """Replace `old_string` by `new_string`; exactly one match unless `replace_all`. Atomic."""

    file_path: str = ""
    old_string: str = ""
    new_string: str = ""
    replace_all: bool = False


class Glob(NamedTuple):
    """Paths that match a doublestar pattern, newest first."""

    pattern: str = ""
    path: Optional[str] = None


class Grep(NamedTuple):
    """Lines that match a regular expression, as `path:line:text`."""

    pattern: str = ""
    path: Optional[str] = None
    glob: Optional[str] = None
    context: int = 0
    head_limit: int = 0


class List_(NamedTuple):
    """A folder of the workspace, or below OUTPUTS, for `read_workspace`: body is JSON [{name, type, size, mtime}],
    sorted by name, starting after the name `after`; meta {total, next: name|null}. Never follows a symlink out of
    the folder."""

    path: str = "."
    after: str = ""
    limit: int = 200


class Fetch(NamedTuple):
    """Raw bytes of a file of the workspace, or below OUTPUTS, for `read_workspace`: meta {size, mtime, media_type,
    offset}. At most `limit` bytes."""

    path: str = ""
    offset: int = 0
    limit: int = 1 << 20


class Put(NamedTuple):
    """Place a file from the frame's body, for `write_workspace` and `files`; parents are made, atomic."""

    path: str = ""
    mode: int = 0o644


class Outputs(NamedTuple):
    """Every regular file below OUTPUTS: body is JSON [{path, size, changed}], paths relative to it and sorted, at most
    `limit`; `changed` in nanoseconds. Links are not followed; files that are just being replaced are left out."""

    limit: int = 10_000


class Remove(NamedTuple):
    """Delete a regular file or a link below OUTPUTS, by its path relative to it. What is not there is as good as
    deleted."""

    path: str = ""


class Usage(NamedTuple):
    """How much the workspace and OUTPUTS take up on their disk, for the backend's disk bound: meta {bytes, files}.
    Allocated bytes (as `du` counts), each inode once, other file systems and symlinks not followed. Body empty."""


Operation = Union[Bash, Read, Write, Edit, Glob, Grep, List_, Fetch, Put, Outputs, Remove, Usage]
KINDS: Dict[str, Type[Any]] = {
    "bash": Bash,
    "read": Read,
    "write": Write,
    "edit": Edit,
    "glob": Glob,
    "grep": Grep,
    "list": List_,
    "fetch": Fetch,
    "put": Put,
    "outputs": Outputs,
    "remove": Remove,
    "usage": Usage,
}
"""What each operation is called in a `start` frame."""
_NAMES = {operation: kind for kind, operation in KINDS.items()}


class Call(NamedTuple):
    """An operation on its way: `op_id` names it for ever, `thread` owns the shell it runs in, `body` is its payload."""

    op_id: str
    operation: Operation
    thread: str = "main"
    body: bytes = b""

    @property
    def kind(self) -> str:
        """The operation's name in KINDS."""
        return _NAMES[type(self.operation)]

    def frame(self) -> Frame:
        header = {
            "t": "start",
            "op": self.op_id,
            "kind": self.kind,
            "thread": self.thread,
            "args": self.operation._asdict(),
        }
        return Frame(header, self.body)


def parse_call(frame: Frame) -> Call:
    """The call in a `start` frame. Raises ValueError that says what is wrong with it."""
    header = frame.header
    op_id, kind, args = header.get("op"), header.get("kind"), header.get("args")
    operation = KINDS.get(kind) if isinstance(kind, str) else None
    if not isinstance(op_id, str) or operation is None or not isinstance(args, dict):
        raise ValueError(f"start frame without a valid op, kind or args (kind {kind!r})")
    try:
        return Call(op_id, operation(**args), str(header.get("thread", "main")), frame.body)
    except TypeError as error:
        raise ValueError(str(error)) from None


class Result(NamedTuple):
    """What became of an operation.

    ok    False: the model should read `body` as an error (no such file, timed out, bad regex, ...)
    body  UTF-8 text unless meta.media_type says otherwise
    meta  by kind; common: exit_code, timed_out, cancelled, truncated, total_bytes, spilled (path), notes [str],
          media_type, seconds. Unknown keys are ignored by readers. A bash result that timed out or was cancelled is
          not ok and has exit_code 124 or 130; `notes` are sentences for the model, to be shown with the body.
    """

    op_id: str
    ok: bool
    body: bytes = b""
    meta: Mapping[str, Any] = {}

    def frame(self) -> Frame:
        return Frame({"t": "result", "op": self.op_id, "ok": self.ok, "meta": self.meta}, self.body)


def parse_result(frame: Frame) -> Result:
    """The result in a `result` frame. Raises ValueError for a malformed one (the runner is hostile input)."""
    op_id, ok, meta = frame.header.get("op"), frame.header.get("ok"), frame.header.get("meta")
    if not isinstance(op_id, str) or not isinstance(ok, bool) or not isinstance(meta, dict):
        raise ValueError("malformed result frame")
    return Result(op_id, ok, frame.body, meta)
