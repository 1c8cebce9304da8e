"""Find files by name and lines by content.

Above: `files.perform`. Below: `patterns`. Links to folders are never followed, so no walk goes in circles; every walk,
file and answer has a bound, and reaching it is said in the answer's last line.
"""

from __future__ import annotations

import heapq
import itertools
import os
import re
from typing import Iterator, List, Optional, Pattern, Tuple

from sandbox.runner.paths import missing, open_regular, resolve
from sandbox.runner.patterns import compile_pattern, split
from sandbox.runner.replies import Refused, Reply, done, shown
from sandbox.wire import Glob, Grep

MAX_PATHS = 200
"""Paths that a glob returns: as the SDK's own runner does; about 4,000 tokens."""
MAX_ENTRIES = 200_000
"""Names looked at in one walk: a large node_modules and its like, in a second or two."""
MAX_LINES = 1000
"""Lines that a grep returns unless head_limit says otherwise."""
MAX_CHARS = 100_000
"""Characters that a grep returns whatever head_limit says: about 25,000 tokens."""
MAX_LINE = 500
"""Characters shown of one line: a minified file must not fill the answer."""
MAX_FILE = 8 << 20
"""Bytes of a file that is searched; larger ones are data, are skipped, and are named in the answer."""
_NAMED = 5
"""Skipped files that are named; the rest are counted."""


class Walk:
    """The files below a folder as (path relative to it, entry), in the order of their paths.

    `stopped` tells afterwards that MAX_ENTRIES was reached.
    """

    def __init__(self, top: str, git: bool) -> None:
        self.top = top
        self._git = git
        self._left = MAX_ENTRIES
        self.stopped = False

    def __iter__(self) -> Iterator[Tuple[str, os.DirEntry[str]]]:
        stack = self._children("")
        while stack:
            relative, entry = stack.pop()
            if entry.is_dir(follow_symlinks=False):
                stack += self._children(relative + "/")
            else:
                yield relative, entry

    def _children(self, prefix: str) -> List[Tuple[str, os.DirEntry[str]]]:
        """The entries of a folder, last path first. One that cannot be read, or went away, has none."""
        try:
            with os.scandir(os.path.join(self.top, prefix)) as entries:
                found = [e for e in itertools.islice(entries, self._left + 1) if self._git or e.name != ".git"]
        except OSError:
            return []
        if len(found) > self._left:
            self.stopped = True
            found.pop()
        self._left -= len(found)
        found.sort(key=lambda e: e.name + "/" if e.is_dir(follow_symlinks=False) else e.name, reverse=True)
        return [(prefix + entry.name, entry) for entry in found]


def glob(op: Glob, workspace: str) -> Reply:
    """Absolute paths of files that match, newest first, one a line. See `wire.Glob`. meta {total, truncated?}."""
    if not op.pattern:
        raise Refused("The pattern is empty; give one such as *.py or src/**/*.ts.")
    folder, rest = split(op.pattern)
    root = resolve(op.path, workspace) if op.path else workspace
    if not os.path.isdir(root):
        raise _not_a_folder(root)
    top = os.path.normpath(os.path.join(root, folder))
    matcher = compile_pattern(rest)
    walk = Walk(top, git=".git" in op.pattern.split("/"))
    total = 0

    def matches() -> Iterator[Tuple[int, str]]:
        nonlocal total
        for relative, entry in walk:
            if matcher.match(relative) and _is_file(entry):
                total += 1
                yield -_mtime(entry), entry.path

    newest = heapq.nsmallest(MAX_PATHS, matches())
    lines = [shown(os.path.normpath(path)) for _, path in newest]
    if total > len(newest):
        lines.append(f"[{total - len(newest)} more; narrow the pattern or give a path]")
    if walk.stopped:
        lines.append(f"[the search stopped after {MAX_ENTRIES} entries; give a narrower path]")
    return done("\n".join(lines) or "No files found", total=total, truncated=total > len(newest) or walk.stopped)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is no folder, nor a link to one."""
    try:
        return not entry.is_dir()
    except OSError:
        return True


def _mtime(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def _not_a_folder(path: str) -> Refused:
    if os.path.lexists(path):
        return Refused(f"{shown(path)} is not a folder; give the folder to search in, or read the file.")
    return missing(path)


class _Page:
    """Lines gathered for an answer, up to its bounds. `full` says which bound was reached, '' for none."""

    def __init__(self, lines: int) -> None:
        self.lines: List[str] = []
        self.full = ""
        self._most = lines
        self._chars = 0

    def add(self, line: str) -> bool:
        """Whether there was room."""
        if len(self.lines) >= self._most:
            self.full = f"{self._most} lines"
        elif self._chars + len(line) + 1 > MAX_CHARS:
            self.full = f"{MAX_CHARS} characters"
        if self.full:
            return False
        self.lines.append(line)
        self._chars += len(line) + 1
        return True


def grep(op: Grep, workspace: str) -> Reply:
    """`path:line:text` for lines that match a Python regular expression, ordered by path. See `wire.Grep`.

    With `context`, lines around them as `path-line-text`, groups apart by `--`. Every line counts for `head_limit`.
    meta {truncated}.
    """
    if op.context < 0 or op.head_limit < 0:
        raise Refused("context and head_limit must not be negative; 0 means no context and the default limit.")
    regex = _compile(op.pattern)
    root = resolve(op.path, workspace) if op.path else workspace
    page, oversized = _Page(op.head_limit or MAX_LINES), []
    walk = Walk(root, git=".git" in root.split("/") or ".git" in (op.glob or "").split("/"))
    for path in _candidates(root, op.glob, walk):
        text = _load(path, required=path == root)
        if text is None:
            oversized.append(path)
        elif not _search(text, path, regex, op.context, page):
            break
    notes = _notes(page, oversized, walk)
    body = "\n".join((page.lines or ["No matches found"]) + notes)
    return done(body, truncated=bool(page.full or oversized or walk.stopped))


def _compile(pattern: str) -> Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        raise Refused(
            f"Bad regular expression{where}: {error.msg}. It is Python's re syntax; escape \\( \\[ \\{{."
        ) from None
    except (RecursionError, OverflowError):
        raise Refused("Bad regular expression: nested too deeply or with too large a count; simplify it.") from None


def _candidates(root: str, pattern: Optional[str], walk: Walk) -> Iterator[str]:
    """The files to search: `root` itself if it is one, else the regular files below it that the glob filter lets by."""
    if not os.path.isdir(root):
        if not os.path.exists(root):
            raise missing(root)
        yield root
        return
    matcher = compile_pattern(_filter(pattern)) if pattern else None
    for relative, entry in walk:
        if entry.is_file(follow_symlinks=False) and (matcher is None or matcher.match(relative)):
            yield os.path.normpath(entry.path)


def _filter(pattern: str) -> str:
    """A glob filter as a pattern below the root; a bare one matches names in every folder."""
    folder, rest = split(pattern)
    return os.path.normpath(f"{folder}/{rest}") if folder else rest


def _load(path: str, required: bool) -> Optional[str]:
    """The text of a file: '' for binary and, unless it was asked for by name, for unreadable; None when too large."""
    try:
        with open_regular(path, follow=required) as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, Refused):
        if required:
            raise
        return ""
    if len(data) > MAX_FILE:
        return None
    return "" if b"\0" in data else data.decode("utf-8", "backslashreplace")


def _search(text: str, path: str, regex: Pattern[str], context: int, page: _Page) -> bool:
    """Add a file's lines to the page; False when it is full."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    lines = [line[:-1] if line.endswith("\r") else line for line in lines]
    name = shown(path)
    last = -1
    hits = (at for at, line in enumerate(lines) if regex.search(line))
    for at, is_hit in _with_context(hits, context, len(lines)):
        new_group = context > 0 and bool(page.lines) and (last < 0 or at != last + 1)
        if new_group and not page.add("--"):
            return False
        mark = ":" if is_hit else "-"
        if not page.add(f"{name}{mark}{at + 1}{mark}{_clip(lines[at])}"):
            return False
        last = at
    return True


def _with_context(hits: Iterator[int], context: int, count: int) -> Iterator[Tuple[int, bool]]:
    """Each line to show once, in order, with whether it is a hit. Asks for hits only as far as it must."""
    upcoming = next(hits, None)
    shown_to = 0
    while upcoming is not None:
        hit = upcoming
        for at in range(max(shown_to, hit - context), hit):
            yield at, False
        yield hit, True
        upcoming = next(hits, None)
        end = min(count, hit + context + 1)
        if upcoming is not None:
            end = min(end, upcoming)
        for at in range(hit + 1, end):
            yield at, False
        shown_to = end


def _clip(line: str) -> str:
    if len(line) <= MAX_LINE:
        return line
    return f"{line[:MAX_LINE]} [... {len(line) - MAX_LINE} more characters]"


def _notes(page: _Page, oversized: List[str], walk: Walk) -> List[str]:
    """The closing lines: which bounds were reached, and what to do."""
    notes = []
    if page.full:
        notes.append(f"[stopped at {page.full}; narrow it with path, glob or a tighter pattern]")
    if oversized:
        names = ", ".join(shown(path) for path in oversized[:_NAMED]) + (", ..." if len(oversized) > _NAMED else "")
        notes.append(f"[{len(oversized)} not searched, being over {MAX_FILE >> 20} MiB: {names}; try bash grep]")
    if walk.stopped:
        notes.append(f"[the search stopped after {MAX_ENTRIES} entries; give a narrower path]")
    return notes
