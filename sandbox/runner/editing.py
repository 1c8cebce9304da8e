"""Write a file whole, or replace a string in it; always atomically, through symbolic links, keeping its mode.

Above: `files.perform`. Below: `atomic`. What to replace and what to say is decided on strings, by functions that open
nothing.
"""

from __future__ import annotations

import json
import os
from typing import List

from sandbox.runner import atomic
from sandbox.runner.media import describe_binary
from sandbox.runner.paths import missing, open_regular, require_regular, resolve
from sandbox.runner.replies import Refused, Reply, done, shown
from sandbox.wire import Edit, Write

MAX_EDIT = 16 << 20
"""Bytes of a file that can be edited, and of its result: several copies of it are in memory at once."""
_AROUND = 3
"""Unchanged lines shown on each side of a change, as in a unified diff."""
_SNIPPET = 30
"""Lines of a snippet: enough to see that the change landed where it should."""
_LINE = 200
"""Characters shown of a line in a snippet or hint."""
_LINES_COMPARED = 3000
"""Lines compared to find the closest one, at most _LINE characters of each: some 100 ms of work."""


def write(op: Write, body: bytes, workspace: str) -> Reply:
    """Write `body` to a file. See `wire.Write`. A new file gets mode 0644, its parents 0755."""
    path = resolve(op.file_path, workspace)
    if path.endswith("/"):
        raise Refused(f"{shown(path)} names a folder; add the file's name.")
    existed = os.path.exists(path)
    _save(path, body)
    how = "overwrote it" if existed else "created it"
    return done(f"Wrote {len(body)} bytes to {shown(path)} ({how})", total_bytes=len(body))


def _save(path: str, data: bytes) -> None:
    """Replace what `path` leads to. Raises Refused for what is no file or read-only, OSError otherwise."""
    real = os.path.realpath(path)
    mode = 0o644
    try:
        status = os.lstat(real)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(real), 0o755, exist_ok=True)
    else:
        if os.path.islink(real):
            raise Refused(f"{shown(path)}: its symbolic links go in a circle; give the path of the real file.")
        require_regular(status.st_mode, path)
        if not os.access(real, os.W_OK):
            raise Refused(f"{shown(path)} is read-only; if it should change, make it writable with bash (chmod u+w).")
        mode = status.st_mode & 0o777
    folder = os.open(os.path.dirname(real), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        atomic.replace(folder, os.path.basename(real), data, mode)
    finally:
        os.close(folder)


def edit(op: Edit, workspace: str) -> Reply:
    """Replace a string in a UTF-8 file of at most MAX_EDIT bytes. See `wire.Edit`. The reply shows the first change."""
    path = resolve(op.file_path, workspace)
    if not op.old_string:
        raise Refused("old_string is empty; give the text to replace, or use write to make or replace a whole file.")
    if op.old_string == op.new_string:
        raise Refused("old_string and new_string are the same; there is nothing to change.")
    text = _load(path)
    old, new = _line_endings(text, op.old_string, op.new_string)
    count = _occurrences(text, old)
    if not count:
        raise Refused(f"old_string was not found in {shown(path)}. {hint(text, old)}")
    if count > 1 and not op.replace_all:
        raise Refused(_ambiguous(text, old, count, path))
    at = text.find(old)
    changed = text.replace(old, new)
    try:
        data = changed.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused(
            "new_string holds half a surrogate pair, which UTF-8 cannot store; write the whole character."
        ) from None
    if len(data) > MAX_EDIT:
        raise Refused(
            f"The result would have {len(data)} bytes; edit makes at most {MAX_EDIT}. Use bash (sed, python)."
        )
    _save(path, data)
    times = text.count(old)
    head = f"Edited {shown(path)}: {times} replacement{'s' if times > 1 else ''}."
    return done(f"{head}\n{_snippet(changed, at, len(new))}", replacements=times)


def _load(path: str) -> str:
    try:
        with open_regular(path) as file:
            data = file.read(MAX_EDIT + 1)
    except FileNotFoundError:
        raise missing(path) from None
    if len(data) > MAX_EDIT:
        raise Refused(f"{shown(path)} has more than {MAX_EDIT} bytes; change it with bash (sed, python) instead.")
    try:
        if b"\0" not in data:
            return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise Refused(f"{shown(path)} is {describe_binary(data)}, not UTF-8 text; change it with bash instead.")


def _line_endings(text: str, old: str, new: str) -> tuple[str, str]:
    """The strings with the file's CRLF where all its lines end so and neither string says anything of CR itself."""
    crlf = text.count("\r\n")
    if not crlf or crlf != text.count("\n") or "\r" in old or "\r" in new:
        return old, new
    return old.replace("\n", "\r\n"), new.replace("\n", "\r\n")


def _occurrences(text: str, old: str) -> int:
    """How often `old` occurs; a single one that overlaps another counts as two, for which is meant is unclear."""
    count = text.count(old)
    if count == 1 and text.find(old, text.find(old) + 1) >= 0:
        return 2
    return count


def _ambiguous(text: str, old: str, count: int, path: str) -> str:
    lines: List[str] = []
    at = text.find(old)
    while at >= 0 and len(lines) < 10:
        lines.append(str(text.count("\n", 0, at) + 1))
        at = text.find(old, at + 1)
    where = ", ".join(lines) + (", ..." if count > len(lines) else "")
    return (
        f"old_string occurs {count} times in {shown(path)} (lines {where}). Add surrounding lines to old_string until "
        "it occurs once, or set replace_all to change every one."
    )


def hint(text: str, old: str) -> str:
    """What to do about an `old` that is not in `text`: the place that it probably meant, spelled exactly."""
    lines, wanted = text.split("\n"), old.split("\n")
    squeezed = ["".join(line.split()) for line in wanted]
    while squeezed and not squeezed[0]:
        del squeezed[0]
    while squeezed and not squeezed[-1]:
        del squeezed[-1]
    if not squeezed:
        return "It is only white space; add the words around it."
    have = ["".join(line.split()) for line in lines]
    starts = [i for i, line in enumerate(have) if line == squeezed[0]]
    for i in starts:
        if have[i : i + len(squeezed)] == squeezed:
            return f"Only white space differs here; the exact text is:\n{_quoted(lines, i, len(squeezed))}"
    if starts:
        return f"Its first line is there, but what follows differs:\n{_quoted(lines, starts[0], len(squeezed))}"
    nearest = _closest(squeezed[0], have)
    if nearest < 0:
        return "Nothing like its first line is there; read the file again and copy the text exactly."
    return f"The closest line is:\n{_quoted(lines, nearest, 1)}"


def _closest(wanted: str, have: List[str]) -> int:
    import difflib  # here, in a child that is about to end: the runner's own start does not pay for it

    inside = next((i for i, line in enumerate(have) if wanted in line), -1)
    if inside >= 0:
        return inside
    candidates = [line[:_LINE] for line in have[:_LINES_COMPARED]]
    close = difflib.get_close_matches(wanted[:_LINE], candidates, n=1, cutoff=0.6)
    return candidates.index(close[0]) if close else -1


def _quoted(lines: List[str], first: int, count: int) -> str:
    """Lines as JSON strings, so that tabs and trailing spaces can be seen."""
    part = lines[first : first + min(count, _SNIPPET)]
    return "\n".join(f"{first + i + 1}: {json.dumps(line[:_LINE], ensure_ascii=False)}" for i, line in enumerate(part))


def _snippet(text: str, at: int, length: int) -> str:
    """The numbered lines around a change, without making a list of the whole text's."""
    changed_from = text.count("\n", 0, at)
    changed_to = changed_from + text.count("\n", at, at + length)
    first = max(0, changed_from - _AROUND)
    last = min(changed_to + _AROUND, first + _SNIPPET - 1)
    start = at
    for _ in range(changed_from - first + 1):
        start = text.rfind("\n", 0, start) if start > 0 else -1
    lines = text[start + 1 :].split("\n", last - first + 1)[: last - first + 1]
    if lines and not lines[-1]:
        lines.pop()
    return "\n".join(f"{first + i + 1:6}\t{line.rstrip(chr(13))[:_LINE]}" for i, line in enumerate(lines))
