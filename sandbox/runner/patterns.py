"""Doublestar patterns as regular expressions. Pure.

    **  any folders, none too    *  anything but /    ?  one character but /    [a-z] [!a]  a class    {a,b}  either

Above: `search`. A pattern without a slash matches in every folder.
"""

from __future__ import annotations

import re
from typing import List, Pattern, Set, Tuple

from sandbox.runner.replies import Refused

MAX_PATTERN = 4096
"""Characters of a pattern: the longest path that the kernel takes."""
_MAGIC = re.compile(r"[*?\[{\\]")


def split(pattern: str) -> Tuple[str, str]:
    """(folder, rest): the leading folders that are spelled out, and the pattern to match below them."""
    if "/" not in pattern:
        return "", "**/" + pattern
    parts = pattern.split("/")
    plain = 0
    while plain < len(parts) - 1 and not _MAGIC.search(parts[plain]) and parts[plain] != "**":
        plain += 1
    folder = "/".join(parts[:plain])
    if pattern.startswith("/") and not folder:
        folder = "/"
    return folder, "/".join(part for part in parts[plain:] if part not in ("", "."))


def compile_pattern(pattern: str) -> Pattern[str]:
    """Matches (with `match`) a path relative to where the pattern starts. Raises Refused for an overlong pattern."""
    if len(pattern) > MAX_PATTERN:
        raise Refused(f"The pattern has {len(pattern)} characters; give one of at most {MAX_PATTERN}.")
    return re.compile(_translate(pattern) + r"\Z", re.DOTALL)


def _translate(pattern: str) -> str:
    out: List[str] = []
    depth = 0
    closers = _matched_braces(pattern)
    at = 0
    while at < len(pattern):
        char = pattern[at]
        piece, width = _piece(pattern, at)
        if char == "{" and at in closers:
            piece, depth = "(?:", depth + 1
        elif char == "}" and at in closers:
            piece, depth = ")", depth - 1
        elif char == "," and depth:
            piece = "|"
        out.append(piece)
        at += width
    return "".join(out)


def _piece(pattern: str, at: int) -> Tuple[str, int]:
    """The regular expression for what stands at a position, braces apart, and how many characters it takes."""
    opens = at == 0 or pattern[at - 1] in "/{,"
    if pattern.startswith("**/", at) and opens:
        end = at + 3
        while pattern.startswith("**/", end):  # folded, or a chain of them would backtrack without end
            end += 3
        return "(?:[^/]+/)*", end - at
    char = pattern[at]
    if char == "*":
        end = at
        while pattern.startswith("*", end):
            end += 1
        whole = end - at > 1 and opens and (end == len(pattern) or pattern[end] in "/},")
        return ".*" if whole else "[^/]*", end - at
    if char == "?":
        return "[^/]", 1
    if char == "[":
        return _class(pattern, at)
    if char == "\\" and at + 1 < len(pattern):
        return re.escape(pattern[at + 1]), 2
    return re.escape(char), 1


def _class(pattern: str, at: int) -> Tuple[str, int]:
    """A character class; an unclosed or impossible one is a plain bracket."""
    start = at + 1 + (pattern[at + 1 : at + 2] in ("!", "^"))
    end = pattern.find("]", start + 1)
    if end < 0:
        return r"\[", 1
    inner = re.sub(r"([\\\[\]&~|^])", r"\\\1", pattern[start:end])
    expression = f"(?!/)[{'^' if start > at + 1 else ''}{inner}]"
    try:
        re.compile(expression)
    except re.error:
        return r"\[", 1
    return expression, end + 1 - at


def _matched_braces(pattern: str) -> Set[int]:
    """Positions of the braces that have a partner; others are plain characters."""
    opened: List[int] = []
    matched: Set[int] = set()
    for at, char in enumerate(pattern):
        if at and pattern[at - 1] == "\\":
            continue
        if char == "{":
            opened.append(at)
        elif char == "}" and opened:
            matched |= {opened.pop(), at}
    return matched
