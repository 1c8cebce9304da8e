"""glob and grep, called as the runner's child calls them, on a real folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sandbox.runner import search
from sandbox.runner.files import perform
from sandbox.runner.patterns import compile_pattern
from sandbox.wire import Glob, Grep


def good(workspace: Path, operation: Any) -> list[str]:
    """The lines of the answer, with the workspace's own path taken off."""
    ok, out, _ = perform(operation, b"", str(workspace))
    assert ok, out.decode()
    return out.decode().replace(f"{workspace}/", "").split("\n")


def bad(workspace: Path, operation: Any) -> str:
    ok, out, _ = perform(operation, b"", str(workspace))
    assert not ok, out.decode()
    return out.decode()


def make(workspace: Path, *names: str, text: str = "") -> None:
    for name in names:
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text(text)


# --- glob ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/*.py", "a.py", True),
        ("**/*.py", "x/y/a.py", True),
        ("src/**", "src/x/y", True),
        ("src/**/a", "src/a", True),
        ("src/**/**/a", "src/x/a", True),
        ("*.py", "x/a.py", False),
        ("*", ".hidden", True),
        ("?.py", "ab.py", False),
        ("[!a].py", "b.py", True),
        ("[!a].py", "a.py", False),
        ("x[!a]y", "x/y", False),
        ("[]-]", "]", True),
        ("[a-z", "[a-z", True),
        ("[z-a]", "[z-a]", True),
        ("{a,b/c}.py", "b/c.py", True),
        ("{a,{b,c}}.py", "c.py", True),
        ("{a,**/b}", "x/y/b", True),
        ("{a", "{a", True),
        ("a}", "a}", True),
        ("a,b", "a,b", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("a.b+(c)", "a.b+(c)", True),
        ("a", "a\n", False),
        ("*", "a\nb", True),
    ],
)
def test_patterns_match_as_doublestar_does(pattern: str, path: str, matches: bool) -> None:
    assert bool(compile_pattern(pattern).match(path)) == matches


def test_a_bare_pattern_recurses_and_one_with_a_slash_does_not(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "x/b.py", "x/y/c.py", ".d.py", ".git/e.py")
    assert sorted(good(tmp_path, Glob("*.py"))) == [".d.py", "a.py", "x/b.py", "x/y/c.py"]
    assert good(tmp_path, Glob("x/*.py")) == ["x/b.py"]
    assert sorted(good(tmp_path, Glob("./*.py"))) == [".d.py", "a.py"]
    assert sorted(good(tmp_path, Glob("x/**"))) == ["x/b.py", "x/y/c.py"]
    assert good(tmp_path, Glob("../x/*.py", "x")) == ["x/b.py"]
    assert good(tmp_path, Glob("*.py", str(tmp_path / "x/y"))) == ["x/y/c.py"]
    assert good(tmp_path, Glob(f"{tmp_path}/x/*.py")) == ["x/b.py"]
    assert good(tmp_path, Glob("**/.git/*")) == [".git/e.py"]
    assert good(tmp_path, Glob("*.rs")) == ["No files found"]
    assert good(tmp_path, Glob("nowhere/*.rs")) == ["No files found"]


def test_the_newest_come_first(tmp_path: Path) -> None:
    make(tmp_path, "old", "new", "middle")
    for age, name in enumerate(("new", "middle", "old")):
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    assert good(tmp_path, Glob("*")) == ["new", "middle", "old"]


def test_links_to_folders_are_not_followed_and_links_to_files_are_found(tmp_path: Path) -> None:
    make(tmp_path, "d/a")
    (tmp_path / "d/loop").symlink_to(tmp_path)
    (tmp_path / "d/link").symlink_to("a")
    (tmp_path / "d/self").symlink_to("self")
    assert sorted(good(tmp_path, Glob("**"))) == ["d/a", "d/link", "d/self"]


def test_ten_thousand_files_are_cut_to_the_newest_and_the_rest_counted(tmp_path: Path) -> None:
    for n in range(10_000):
        (tmp_path / f"{n}.txt").touch()
    make(tmp_path, "newest.txt")
    os.utime(tmp_path / "newest.txt", (2**32, 2**32))
    lines = good(tmp_path, Glob("*.txt"))
    assert len(lines) == search.MAX_PATHS + 1 and lines[0] == "newest.txt"
    assert lines[-1].startswith("[9801 more; narrow")


def test_a_walk_that_is_too_large_stops_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/1", "b/2", "c/3", "d/4", text="x")
    monkeypatch.setattr(search, "MAX_ENTRIES", 5)
    assert "stopped after 5" in good(tmp_path, Glob("*"))[-1]
    assert "stopped after 5" in good(tmp_path, Grep("x"))[-1]


def test_strange_names_are_shown_as_one_line_of_valid_text(tmp_path: Path) -> None:
    for raw in (b"caf\xe9", b"two\nlines", "日本".encode()):
        (tmp_path / os.fsdecode(raw)).write_text("x")
    assert sorted(good(tmp_path, Glob("*"))) == sorted(["caf\\xe9", "two\\nlines", "日本"])
    assert sorted(good(tmp_path, Grep("x"))) == sorted(["caf\\xe9:1:x", "two\\nlines:1:x", "日本:1:x"])


@pytest.mark.parametrize("pattern", ["", "x" * 5000, 3])
def test_a_pattern_that_cannot_be_is_refused(tmp_path: Path, pattern: Any) -> None:
    assert "attern" in bad(tmp_path, Glob(pattern))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "file")
    assert "not a folder" in bad(tmp_path, Glob("*", "file"))
    assert "does not exist" in bad(tmp_path, Glob("*", "missing"))


# --- grep ------------------------------------------------------------------------------------------------------------


def test_grep_gives_path_line_and_text_in_the_order_of_paths(tmp_path: Path) -> None:
    make(tmp_path, "b.py", "a.txt", "a/z.py", ".hidden", ".git/config", text="one\nTWO\n")
    assert good(tmp_path, Grep("(?i)two")) == [".hidden:2:TWO", "a.txt:2:TWO", "a/z.py:2:TWO", "b.py:2:TWO"]
    assert good(tmp_path, Grep("^one$", glob="*.py")) == ["a/z.py:1:one", "b.py:1:one"]
    assert good(tmp_path, Grep("one", "a")) == ["a/z.py:1:one"]
    assert good(tmp_path, Grep("one", glob="a/*.{py,txt}")) == ["a/z.py:1:one"]
    assert good(tmp_path, Grep("one", "b.py")) == ["b.py:1:one"]
    assert good(tmp_path, Grep("one", ".git")) == [".git/config:1:one"]
    assert good(tmp_path, Grep("three")) == ["No matches found"]


def test_context_is_grouped_as_grep_does(tmp_path: Path) -> None:
    make(tmp_path, "a", text="hit\n2\n3\n4\n5\nhit\nhit\n8\n")
    make(tmp_path, "b", text="hit\n")
    assert good(tmp_path, Grep("hit", context=1)) == [
        "a:1:hit", "a-2-2", "--", "a-5-5", "a:6:hit", "a:7:hit", "a-8-8", "--", "b:1:hit",
    ]  # fmt: skip
    assert good(tmp_path, Grep("hit", "a", context=2)) == [
        "a:1:hit", "a-2-2", "a-3-3", "a-4-4", "a-5-5", "a:6:hit", "a:7:hit", "a-8-8",
    ]  # fmt: skip
    assert len(good(tmp_path, Grep("hit", "a", context=10**12))) == 8


def test_the_answer_is_bounded_in_lines_and_characters(tmp_path: Path) -> None:
    make(tmp_path, "a", text="hit\n" * 5000)
    assert good(tmp_path, Grep("hit", head_limit=2))[:2] == ["a:1:hit", "a:2:hit"]
    assert good(tmp_path, Grep("hit", head_limit=2))[2].startswith("[stopped at 2 lines")
    assert good(tmp_path, Grep("hit", head_limit=1001))[1000] == "a:1001:hit"
    lines = good(tmp_path, Grep("hit"))
    assert len(lines) == 1001 and "stopped at 1000 lines" in lines[-1]
    make(tmp_path, "a", text=("x" * 400 + "\n") * 1000)
    ok, out, meta = perform(Grep("x"), b"", str(tmp_path))
    assert ok and len(out) < search.MAX_CHARS + 200 and b"stopped at 100000 characters" in out and meta["truncated"]


def test_a_huge_line_is_clipped(tmp_path: Path) -> None:
    make(tmp_path, "a", text="x" * 1_000_000)
    assert good(tmp_path, Grep("x$")) == ["a:1:" + "x" * 500 + " [... 999500 more characters]"]


def test_binary_and_special_files_are_skipped_and_large_ones_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"hit\n\0")
    (tmp_path / "latin").write_bytes(b"hit \xe9\r\n")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"hit\n".ljust(search.MAX_FILE + 1, b"."))
    (tmp_path / "link").symlink_to("latin")
    (tmp_path / "loop").symlink_to(".")
    lines = good(tmp_path, Grep("hit"))
    assert lines[0] == "latin:1:hit \\xe9"
    assert len(lines) == 2 and lines[1].startswith("[1 not searched, being over 8 MiB: large;")
    assert good(tmp_path, Grep("hit", "link")) == ["link:1:hit \\xe9"]


def test_what_cannot_be_searched_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "at position 1" in bad(tmp_path, Grep("a[b"))
    assert "Bad regular expression" in bad(tmp_path, Grep("a{99999999999999}"))
    assert "Bad regular expression" in bad(tmp_path, Grep("(" * 5000 + ")" * 5000))
    assert "does not exist" in bad(tmp_path, Grep("a", "missing"))
    assert "FIFO" in bad(tmp_path, Grep("a", "fifo"))
    assert "negative" in bad(tmp_path, Grep("a", context=-1))
    assert "must be" in bad(tmp_path, Grep(3))  # type: ignore[arg-type]


def test_ten_thousand_files_are_searched(tmp_path: Path) -> None:
    for n in range(10_000):
        (tmp_path / f"{n:05}").write_text(f"number {n}\n")
    assert good(tmp_path, Grep("number 99[0-9]{2}$"))[0] == "09900:1:number 9900"
