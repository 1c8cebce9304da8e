"""Read a file for the model: text, whole or in part, or an image or PDF as it is.

Above: `files.perform`. It never loads more of a file than it returns.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Dict, List, Optional, Tuple

from sandbox.runner import media
from sandbox.runner.paths import missing, open_regular, resolve
from sandbox.runner.replies import Refused, Reply, done, shown
from sandbox.wire import Read

MAX_TEXT = 256 << 10
"""Bytes of text returned at once: 256 KiB, some 65,000 tokens, is all that a context window can sensibly give it."""
MAX_IMAGE = 3932160
"""Bytes of an image: 3.75 MiB become the 5 MiB of base64 that the model's API accepts."""
MAX_PDF = 20 << 20
"""Bytes of a PDF: the wire toolset's limit."""
MAX_SCAN = 1 << 30
"""Bytes looked through to find or count lines: 1 GiB takes about a second; a sparse file could be endless."""
_CHUNK = 1 << 20


def read(op: Read, workspace: str) -> Reply:
    """The file's text (see `wire.Read`), meta {total_bytes, truncated?}; or its bytes, meta.media_type."""
    path = resolve(op.file_path, workspace)
    first, last = _range(op.view_range)
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise missing(path) from None
    with file:
        head = file.read(media.HEAD_BYTES)
        file.seek(0)
        kind = media.rich_type(head)
        if kind:
            return _rich(file, path, kind, op.view_range)
        if b"\0" in head:
            raise _binary(head, path, "")
        if not head:
            return done(f"({shown(path)} is empty: 0 bytes)", total_bytes=0)
        return _text(file, path, first, last)


def _range(view_range: Optional[List[int]]) -> Tuple[int, int]:
    """First and last line wanted; last 0 means to the end."""
    if view_range is None:
        return 1, 0
    if len(view_range) != 2 or not all(type(n) is int for n in view_range):
        raise Refused("view_range must be two whole numbers [first line, last line], such as [1, 200] or [201, 0].")
    first, last = view_range
    if first < 1:
        raise Refused(f"view_range starts at line {first}, but lines are counted from 1.")
    if 0 < last < first:
        raise Refused(f"view_range ends (line {last}) before it starts (line {first}); an end of 0 means to the end.")
    return first, max(last, 0)


def _rich(file: BinaryIO, path: str, kind: str, view_range: Optional[List[int]]) -> Reply:
    limit, what = (MAX_PDF, "PDF") if kind == media.PDF else (MAX_IMAGE, "image")
    if view_range is not None:
        raise Refused(f"{shown(path)} is {kind}: view_range counts lines of text; leave it out to see the {what}.")
    data = file.read(limit + 1)
    if len(data) > limit:
        size = os.fstat(file.fileno()).st_size
        remedy = "take the pages or text you need" if kind == media.PDF else "make a smaller copy"
        raise Refused(
            f"{shown(path)} has {size} bytes; an {kind} may have {limit}. With bash, {remedy}, then read that."
        )
    return True, data, {"media_type": kind, "total_bytes": len(data)}


def _binary(head: bytes, path: str, where: str) -> Refused:
    what = media.describe_binary(head)
    return Refused(f"{shown(path)} is {what}{where}, not UTF-8 text. Use bash on it: file, xxd, strings, iconv.")


def _text(file: BinaryIO, path: str, first: int, last: int) -> Reply:
    before = _skip(file, first - 1)
    start = file.tell()
    raw = file.read(MAX_TEXT + 4)  # 4: the longest character, so that one that ends past the limit is seen whole
    if not raw and first > 1:
        if start >= MAX_SCAN:
            raise Refused(f"Line {first} of {shown(path)} is more than 1 GiB in; use bash: sed -n {first},+99p")
        raise Refused(f"{shown(path)} has {before} lines; view_range starts at line {first}. Choose an earlier line.")
    wanted = _lines(raw, last - first + 1) if last else raw
    shown_part = wanted if len(wanted) <= MAX_TEXT else _cut(wanted)
    meta: Dict[str, Any] = {"total_bytes": os.fstat(file.fileno()).st_size}
    text = _decode(shown_part, path)
    if len(shown_part) == len(wanted):
        return done(text, **meta)
    file.seek(start)
    note = _read_on(path, shown_part, first, start, _total(file, first - 1))
    return done(f"{text}{'' if text.endswith(chr(10)) else chr(10)}{note}", truncated=True, **meta)


def _skip(file: BinaryIO, lines: int) -> int:
    """Go past so many lines; returns how many there were. A last line without line feed counts."""
    passed, ended = 0, True
    while passed < lines and file.tell() < MAX_SCAN:
        position = file.tell()
        chunk = file.read(_CHUNK)
        if not chunk:
            return passed if ended else passed + 1
        found = chunk.count(b"\n")
        if passed + found >= lines:
            file.seek(position + len(_lines(chunk, lines - passed)))
            return lines
        passed, ended = passed + found, chunk.endswith(b"\n")
    return passed


def _lines(data: bytes, count: int) -> bytes:
    """The first `count` lines of `data`, or all of it."""
    end = 0
    for _ in range(count):
        end = data.find(b"\n", end) + 1
        if not end:
            return data
    return data[:end]


def _cut(data: bytes) -> bytes:
    """The whole lines that fit in MAX_TEXT; of a line that is longer, the whole characters."""
    end = data.rfind(b"\n", 0, MAX_TEXT) + 1
    if not end:
        end = MAX_TEXT
        while end > MAX_TEXT - 4 and data[end] & 0xC0 == 0x80:
            end -= 1
    return data[:end]


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _binary(data, path, f" (byte 0x{data[error.start]:02x} in line {line} of what was asked for)") from None


def _total(file: BinaryIO, before: int) -> str:
    """How many lines the file has, given those before the position; bounded, and says so."""
    count, scanned, last = before, 0, b"\n"
    while scanned < MAX_SCAN:
        chunk = file.read(_CHUNK)
        if not chunk:
            return str(count + (last != b"\n"))
        count, scanned, last = count + chunk.count(b"\n"), scanned + len(chunk), chunk[-1:]
    return f"more than {count}"


def _read_on(path: str, part: bytes, first: int, start: int, total: str) -> str:
    """The last line of a truncated text: what was shown and how to see the rest."""
    if part.endswith(b"\n"):
        last = first + part.count(b"\n") - 1
        return f"[truncated: lines {first}-{last} of {total} shown; read on with view_range [{last + 1}, 0]]"
    following = f"tail -c +{start + len(part) + 1} '{shown(path)}' | head -c 20000"
    return (
        f"[truncated: {len(part)} bytes of line {first} of {total} shown, for it is very long; see more of it with "
        f"bash: {following}; the next line with view_range [{first + 1}, 0]]"
    )
