"""What kind of thing some bytes are, by their first bytes. Pure; knows no files.

Above: `files` (what may be shown to the model) and `workspace` (what a host is told).
"""

from __future__ import annotations

HEAD_BYTES = 8192
"""How much of a file is looked at to tell text from binary; the same amount that git looks at."""
PDF = "application/pdf"

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", PDF),
)
_BINARY = (
    (b"\x7fELF", "an ELF executable or library"),
    (b"PK\x03\x04", "a zip archive (or an Office file, a jar, a wheel)"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\xff\xfe", "UTF-16 text (iconv -f UTF-16 -t UTF-8 converts it)"),
    (b"\xfe\xff", "UTF-16 text (iconv -f UTF-16 -t UTF-8 converts it)"),
)


def rich_type(head: bytes) -> str:
    """The media type of an image or PDF that a model can look at, else ''."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")


def media_type(head: bytes) -> str:
    """The media type of a file that begins with `head`: a rich type, text/plain or application/octet-stream."""
    return rich_type(head) or ("text/plain" if looks_like_text(head) else "application/octet-stream")


def looks_like_text(head: bytes) -> bool:
    """Whether `head` is UTF-8 without NUL; a character cut in two at its end is forgiven."""
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(head) and error.reason == "unexpected end of data"
    return True


def describe_binary(head: bytes) -> str:
    """A few words for bytes that are no text."""
    return next((words for magic, words in _BINARY if head.startswith(magic)), "binary data or text that is not UTF-8")
