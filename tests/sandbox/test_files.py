"""read, write, edit, list, fetch and put, called as the runner's child calls them, on a real folder."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from sandbox.runner import editing, reading
from sandbox.runner.files import perform
from sandbox.wire import Bash, Edit, Fetch, List_, Put, Read, Usage, Write

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100


def good(workspace: Path, operation: Any, body: bytes = b"") -> tuple[bytes, dict[str, Any]]:
    ok, out, meta = perform(operation, body, str(workspace))
    assert ok, out.decode()
    return out, meta


def bad(workspace: Path, operation: Any, body: bytes = b"") -> str:
    ok, out, meta = perform(operation, body, str(workspace))
    assert not ok and meta == {}, out
    return out.decode()


# --- read ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"one\ntwo\n", b"no end", b"\xef\xbb\xbfbom\r\ncrlf\r\n", "größe 日本\n".encode()])
def test_read_returns_text_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert good(tmp_path, Read("a")) == (content, {"total_bytes": len(content)})
    assert good(tmp_path, Read(str(tmp_path / "a")))[0] == content


@pytest.mark.parametrize(
    ("view", "text"),
    [([1, 1], b"1\n"), ([2, 3], b"2\n3\n"), ([3, 0], b"3\n4"), ([4, -1], b"4"), ([2, 99], b"2\n3\n4")],
)
def test_view_range_counts_from_one_and_includes_its_end(tmp_path: Path, view: list[int], text: bytes) -> None:
    (tmp_path / "a").write_bytes(b"1\n2\n3\n4")
    assert good(tmp_path, Read("a", view))[0] == text


@pytest.mark.parametrize("view", [[0, 1], [-1, 2], [3, 2], [1], [1, 2, 3], ["1", 2], [True, 2], [1.0, 2], [5, 0]])
def test_an_impossible_view_range_is_refused(tmp_path: Path, view: list[Any]) -> None:
    (tmp_path / "a").write_bytes(b"1\n2\n3\n4")
    assert "line" in bad(tmp_path, Read("a", view))


def test_a_long_text_is_cut_at_a_line_and_says_how_to_read_on(tmp_path: Path) -> None:
    lines = [f"line {n}\n".encode() for n in range(1, 100_001)]
    (tmp_path / "a").write_bytes(b"".join(lines))
    seen: list[bytes] = []
    view = None
    while True:
        out, meta = good(tmp_path, Read("a", view))
        if not meta.get("truncated"):
            seen.append(out)
            break
        text, note = out[: out.rindex(b"\n") + 1], out[out.rindex(b"\n") + 1 :].decode()
        assert len(text) <= reading.MAX_TEXT and "of 100000 shown" in note
        seen.append(text)
        view = json.loads(note[note.index("view_range ") + 11 : -1])
    assert b"".join(seen) == b"".join(lines)
    assert good(tmp_path, Read("a", [99_999, 0]))[0] == b"line 99999\nline 100000\n"


@pytest.mark.parametrize("shift", range(4))
def test_a_huge_line_is_cut_between_characters(tmp_path: Path, shift: int) -> None:
    (tmp_path / "a").write_text("x" * shift + "€" * 200_000 + "\nnext\n")
    out, meta = good(tmp_path, Read("a"))
    assert meta["truncated"] and "tail -c +" in out.decode() and "view_range [2, 0]" in out.decode()
    assert good(tmp_path, Read("a", [2, 2]))[0] == b"next\n"


def test_a_text_of_exactly_the_limit_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * reading.MAX_TEXT)
    assert "truncated" not in good(tmp_path, Read("a"))[1]
    (tmp_path / "a").write_bytes(b"x" * (reading.MAX_TEXT + 1))
    assert good(tmp_path, Read("a"))[1]["truncated"]


@pytest.mark.parametrize(
    ("head", "kind"),
    [(PNG, "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"GIF89a", "image/gif"),
     (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"), (b"%PDF-1.7\n", "application/pdf")],
)  # fmt: skip
def test_images_and_pdfs_come_as_bytes_with_their_type(tmp_path: Path, head: bytes, kind: str) -> None:
    (tmp_path / "misnamed.txt").write_bytes(head)
    out, meta = good(tmp_path, Read("misnamed.txt"))
    assert (out, meta["media_type"]) == (head, kind)
    assert "view_range" in bad(tmp_path, Read("misnamed.txt", [1, 2]))


def test_an_image_over_its_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG.ljust(reading.MAX_IMAGE, b"\0"))
    assert len(good(tmp_path, Read("a.png"))[0]) == reading.MAX_IMAGE
    (tmp_path / "a.png").write_bytes(PNG.ljust(reading.MAX_IMAGE + 1, b"\0"))
    assert "smaller copy" in bad(tmp_path, Read("a.png"))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\x7fELF\0\0", "ELF"), ("hé".encode("utf-16"), "UTF-16"), (b"caf\xe9\n", "0xe9"), (b"a\0b", "binary")],
)
def test_other_binary_is_named_and_sent_to_bash(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a").write_bytes(content)
    message = bad(tmp_path, Read("a"))
    assert words in message and "xxd" in message


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert b"is empty" in good(tmp_path, Read("a"))[0]


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert "socket" in bad(tmp_path, Read("socket"))
    assert "FIFO" in bad(tmp_path, Read("fifo"))
    assert "folder" in bad(tmp_path, Read("dir"))
    assert "device" in bad(tmp_path, Read("/dev/zero"))


def test_a_missing_file_brings_similar_names(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert str(tmp_path / "README.md") in bad(tmp_path, Read("readme.txt"))
    assert "only " + str(tmp_path) in bad(tmp_path, Read("no/such/folder.txt"))
    assert "symbolic link to nowhere" in bad(tmp_path, Read("dangling"))


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", "x" * 300, "a/" * 3000, 7, None, ["a"]])
def test_paths_that_cannot_be_are_errors_for_every_operation(tmp_path: Path, path: Any) -> None:
    for operation in (Read(path), Write(path), Edit(path, "a", "b"), Fetch(path), Put(path)):
        assert bad(tmp_path, operation)


def test_a_name_that_is_no_utf8_is_read_and_shown_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    out, _ = good(tmp_path, Write(name), b"x")
    assert b"caf\\xe9.txt" in out
    assert good(tmp_path, Read(name))[0] == b"x"


def test_bash_is_not_a_file_operation(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        perform(Bash("true"), b"", str(tmp_path))


# --- write -----------------------------------------------------------------------------------------------------------


def test_write_makes_parents_and_says_what_it_did(tmp_path: Path) -> None:
    out, _ = good(tmp_path, Write("a/b/ü.txt"), b"hello")
    path = tmp_path / "a/b/ü.txt"
    assert out.decode() == f"Wrote 5 bytes to {path} (created it)"
    assert path.read_bytes() == b"hello" and path.stat().st_mode & 0o777 == 0o644
    assert b"overwrote" in good(tmp_path, Write("a/b/ü.txt"), b"")[0]
    assert os.listdir(path.parent) == ["ü.txt"]


def test_write_keeps_the_mode_and_goes_through_links(tmp_path: Path) -> None:
    (tmp_path / "real.sh").write_text("old")
    (tmp_path / "real.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("real.sh")
    (tmp_path / "dangling").symlink_to("new/target")
    good(tmp_path, Write("link"), b"new")
    good(tmp_path, Write("dangling"), b"made")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real.sh").read_text() == "new"
    assert (tmp_path / "real.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "new/target").read_text() == "made"


def test_write_refuses_what_it_would_destroy(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    assert "folder" in bad(tmp_path, Write("dir"), b"x")
    assert "folder" in bad(tmp_path, Write("new/"), b"x")
    assert "FIFO" in bad(tmp_path, Write("fifo"), b"x")
    assert "circle" in bad(tmp_path, Write("loop"), b"x")
    assert "not a folder" in bad(tmp_path, Write("file/below"), b"x")
    assert sorted(os.listdir(tmp_path)) == ["dir", "fifo", "file", "loop"]


def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0o444)
    for folder in (tmp_path, *tmp_path.parents[:-2]):  # below /tmp itself
        folder.chmod(0o777)
    pid = os.fork()
    if not pid:  # a child, for root may write everything and has to become somebody else
        if os.geteuid() == 0:
            os.setuid(65534)
        ok, words, _ = perform(Write("a"), b"y", str(tmp_path))
        os._exit(0 if not ok and b"chmod" in words else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "a").read_text() == "x"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    pid = os.fork()
    if not pid:  # a child, for the limit on file sizes lasts as long as the process
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        ok, _, _ = perform(Write("a"), b"x" * 5000, str(tmp_path))
        os._exit(1 if ok else 0)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


# --- edit ------------------------------------------------------------------------------------------------------------


def test_edit_replaces_the_only_match_and_shows_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("".join(f"line {n}\n" for n in range(1, 21)))
    (tmp_path / "a.py").chmod(0o750)
    out, meta = good(tmp_path, Edit("a.py", "line 10\n", "ten\nten and a half\n"))
    assert (tmp_path / "a.py").read_text().splitlines()[8:12] == ["line 9", "ten", "ten and a half", "line 11"]
    assert "    10\tten\n    11\tten and a half\n    12\tline 11" in out.decode() and meta == {"replacements": 1}
    assert (tmp_path / "a.py").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("z", ""), ("a\nz", "x"), ("a\nz\n", "")])
def test_the_snippet_holds_at_the_ends_of_a_file(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "f").write_text("a\nz\n")
    good(tmp_path, Edit("f", old, new))
    assert (tmp_path / "f").read_text() == "a\nz\n".replace(old, new)


@pytest.mark.parametrize(("text", "at", "length", "snippet"), [
    ("a\nb\n", 0, 1, "     1\ta\n     2\tb"),
    ("\n\nx\n", 2, 1, "     1\t\n     2\t\n     3\tx"),
    ("1\n2\n3\n4\n5\n6\n7\n8\n9", 8, 1, "     2\t2\n     3\t3\n     4\t4\n     5\t5\n     6\t6\n     7\t7\n     8\t8"),
    ("", 0, 0, ""),
])  # fmt: skip
def test_a_snippet_numbers_its_lines(text: str, at: int, length: int, snippet: str) -> None:
    assert editing._snippet(text, at, length) == snippet


def test_edit_refuses_more_than_one_match_unless_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\ny\nx\n")
    message = bad(tmp_path, Edit("a", "x", "z"))
    assert "occurs 2 times" in message and "lines 1, 3" in message and "replace_all" in message
    assert good(tmp_path, Edit("a", "x", "z", True))[1] == {"replacements": 2}
    assert (tmp_path / "a").read_text() == "z\ny\nz\n"


def test_overlapping_matches_are_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("aaa")
    assert "occurs 2 times" in bad(tmp_path, Edit("a", "aa", "b"))


@pytest.mark.parametrize(
    ("old", "words"),
    [("    def f( ):\n        pass", 'white space differs here; the exact text is:\n2: "\\tdef f():"\n3: "\\t\\tpass"'),
     ("def f():\n  return", "what follows differs"), ("def g():", 'closest line is:\n2: "\\tdef f():"'),
     ("entirely unlike", "read the file again"), ("  \n\n\n ", "only white space")],
)  # fmt: skip
def test_a_missing_old_string_is_answered_with_what_is_there(tmp_path: Path, old: str, words: str) -> None:
    (tmp_path / "a").write_text("class A:\n\tdef f():\n\t\tpass\n")
    message = bad(tmp_path, Edit("a", old, "x"))
    assert "was not found" in message and words in message


def test_edit_refuses_empty_equal_missing_binary_and_unwritable_strings(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_bytes(b"\0x")
    assert "empty" in bad(tmp_path, Edit("a", "", "x"))
    assert "same" in bad(tmp_path, Edit("a", "x", "x"))
    assert "does not exist" in bad(tmp_path, Edit("c", "x", "y"))
    assert "binary" in bad(tmp_path, Edit("b", "x", "y"))
    assert "surrogate" in bad(tmp_path, Edit("a", "x", "\ud800"))
    assert "folder" in bad(tmp_path, Edit(".", "x", "y"))
    assert (tmp_path / "a").read_text() == "x"


def test_edit_keeps_crlf_and_bom(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\nthree\r\n")
    good(tmp_path, Edit("a", "one\ntwo", "1\n2\n2.5"))
    assert (tmp_path / "a").read_bytes() == b"\xef\xbb\xbf1\r\n2\r\n2.5\r\nthree\r\n"
    good(tmp_path, Edit("a", "\r\n", "\n", replace_all=True))
    assert b"\r" not in (tmp_path / "a").read_bytes()


# --- list ------------------------------------------------------------------------------------------------------------


def test_list_names_types_and_pages(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"123")
    (tmp_path / "a").mkdir()
    (tmp_path / "c").symlink_to("/etc")
    os.mkfifo(tmp_path / "d")
    entries = json.loads(good(tmp_path, List_())[0])
    assert [(e["name"], e["type"]) for e in entries] == [("a", "dir"), ("b", "file"), ("c", "symlink"), ("d", "other")]
    assert entries[1]["size"] == 3 and entries[1]["mtime"] == (tmp_path / "b").stat().st_mtime


def test_ten_thousand_files_and_strange_names_are_listed_page_by_page(tmp_path: Path) -> None:
    names = [f"{n:05}" for n in range(10_000)] + [os.fsdecode(b"\xff"), "a\nb", "日本"]
    for name in names:
        (tmp_path / name).touch()
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        out, meta = good(tmp_path, List_(after=after, limit=1000))
        assert meta["total"] == len(names)
        seen += [entry["name"] for entry in json.loads(out)]
        after = meta["next"]
    assert seen == sorted(names)
    assert good(tmp_path, Fetch(os.fsdecode(b"\xff")))[0] == b""


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_list_refuses_a_page_of_impossible_size(tmp_path: Path, limit: int) -> None:
    assert "limit" in bad(tmp_path, List_(limit=limit))


# --- staying inside --------------------------------------------------------------------------------------------------


@pytest.fixture
def walled(tmp_path: Path) -> Path:
    """A workspace with a secret beside it, and every way out that an agent could lay."""
    workspace = tmp_path / "workspace"
    (workspace / "sub").mkdir(parents=True)
    (tmp_path / "workspace-2").mkdir()
    for secret in (tmp_path / "secret", tmp_path / "workspace-2/secret"):
        secret.write_text("secret")
    (workspace / "file").symlink_to(tmp_path / "secret")
    (workspace / "sub/up").symlink_to("../..")
    (workspace / "dir").symlink_to(tmp_path)
    (workspace / "chain").symlink_to("dir/secret")
    (workspace / "sibling").symlink_to(tmp_path / "workspace-2")
    (workspace / "loop").symlink_to("loop")
    return workspace


WAYS_OUT = ["file", "../secret", "sub/../../secret", "sub/up/secret", "dir/secret", "chain", "sibling/secret",
            "/etc/passwd", "sub/up/workspace/../secret", "../workspace/../secret"]  # fmt: skip


@pytest.mark.parametrize("path", WAYS_OUT)
def test_a_host_cannot_be_led_out_of_the_workspace(walled: Path, path: str) -> None:
    for operation in (Fetch(path), Put(path), List_(path)):
        assert "out of the workspace" in bad(walled, operation, b"overwritten")
    assert (walled.parent / "secret").read_text() == "secret"


def test_links_in_a_circle_and_deep_paths_end(walled: Path) -> None:
    assert "circle" in bad(walled, Fetch("loop"))
    assert "too long" in bad(walled, Put("d/" * 2000 + "x"), b"x")
    assert not (walled / "d").exists()


def test_links_inside_the_workspace_are_followed(walled: Path) -> None:
    (walled / "sub/real").write_text("text")
    (walled / "relative").symlink_to("sub/real")
    (walled / "absolute").symlink_to(walled / "sub")
    (walled / "sub/back").symlink_to("../sub/real")
    for path in ("relative", "absolute/real", "sub/back", "sub/../sub/real", str(walled / "sub/real")):
        assert good(walled, Fetch(path))[0] == b"text"
    good(walled, Put("absolute/new/file"), b"put")
    assert (walled / "sub/new/file").read_bytes() == b"put"
    assert "back" in good(walled, List_("absolute"))[0].decode()


def test_fetch_and_put_refuse_what_is_no_file_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    for path, word in (("fifo", "FIFO"), ("dir", "folder"), (".", "folder")):
        assert word in bad(tmp_path, Fetch(path))
        assert word in bad(tmp_path, Put(path), b"x")
    assert "no such file" in bad(tmp_path, Fetch("missing"))
    assert "no such file" in bad(tmp_path, List_("missing"))
    assert "not a folder" in bad(tmp_path, List_("fifo"))


def test_no_descriptor_is_left_open(walled: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for operation in (
        Fetch("file"),
        Put("sub/x"),
        Put("sub"),
        Fetch("sub/up/x"),
        List_("sub"),
        Read("loop"),
        Read("."),
    ):
        perform(operation, b"", str(walled))
    assert len(os.listdir("/proc/self/fd")) == before


def test_fetch_gives_the_bytes_asked_for_and_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    out, meta = good(tmp_path, Fetch("a.png", offset=4, limit=4))
    assert out == PNG[4:8]
    assert (meta["size"], meta["media_type"], meta["offset"]) == (len(PNG), "image/png", 4)
    assert good(tmp_path, Fetch("a.png", offset=10_000))[0] == b""
    (tmp_path / "t").write_bytes("ü".encode() * 5000)
    assert good(tmp_path, Fetch("t"))[1]["media_type"] == "text/plain"
    (tmp_path / "b").write_bytes(b"\xff\xff")
    assert good(tmp_path, Fetch("b"))[1]["media_type"] == "application/octet-stream"
    assert "offset" in bad(tmp_path, Fetch("b", offset=-1))


def test_put_sets_the_mode_and_replaces_atomically(tmp_path: Path) -> None:
    good(tmp_path, Put("a/run.sh", mode=0o755), b"1")
    good(tmp_path, Put("a/run.sh", mode=0o700), b"\0\xff")
    assert (tmp_path / "a/run.sh").read_bytes() == b"\0\xff"
    assert (tmp_path / "a/run.sh").stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path / "a") == ["run.sh"]
    assert "mode" in bad(tmp_path, Put("a/run.sh", mode=0o4755), b"x")


def test_usage_counts_allocated_bytes_once_and_follows_no_link(tmp_path: Path) -> None:
    before = perform(Usage(), b"", str(tmp_path))[2]["bytes"]
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "out").symlink_to("/usr")
    (tmp_path / "folder").mkdir()
    ok, body, meta = perform(Usage(), b"", str(tmp_path))
    assert ok and body == b""
    assert meta["files"] == 3
    assert 100_000 <= meta["bytes"] - before < 200_000
