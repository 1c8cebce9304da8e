"""A result from the sandbox as content blocks for the model and the log. Pure; the result is hostile input."""

from __future__ import annotations

import base64
from typing import Any

from sandbox.wire import Result

Content = list[dict[str, Any]]
MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n", 3_932_160),
    "image/jpeg": (b"\xff\xd8\xff", 3_932_160),
    "image/gif": (b"GIF8", 3_932_160),
    "image/webp": (b"RIFF", 3_932_160),
    "application/pdf": (b"%PDF-", 20 << 20),
}
"""What may go to the model as itself: how it begins, and its most bytes (5 MiB of base64 for images, 20 MiB for PDFs).
A file that is not what the runner calls it would make the provider refuse every later request of the session."""
MAX_TEXT = 120_000
"""Characters of one result: the runner cuts at 100,000 and adds words of its own; one that does not is cut here."""


def render(result: Result) -> tuple[Content, bool]:
    """Content blocks and whether they are an error."""
    media = str(result.meta.get("media_type"))
    if not result.ok or media not in MAGIC:
        return [{"type": "text", "text": _text(result)}], not result.ok
    start, most = MAGIC[media]
    if not result.body.startswith(start) or len(result.body) > most:
        return [
            {"type": "text", "text": f"The file is no {media} of at most {most:,} bytes, and cannot be shown."}
        ], True
    kind = "document" if media == "application/pdf" else "image"
    return [{"type": kind, "source": _base64(media, result.body)}], False


def _text(result: Result) -> str:
    text = result.body.decode("utf-8", "replace").replace("\0", "\ufffd")
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + f"\n[cut at {MAX_TEXT:,} characters]"
    lines = [text] if text else []
    notes = result.meta.get("notes")
    if isinstance(notes, list):
        lines += [f"[{note}]" for note in notes[:20] if isinstance(note, str)]
    code = result.meta.get("exit_code")
    if isinstance(code, int) and code != 0:
        lines.append(f"[exit code {code}]")
    if not any(line.strip() for line in lines):
        return "(no output)"  # the model's API refuses blank texts
    return "\n".join(line.rstrip("\n") if index < len(lines) - 1 else line for index, line in enumerate(lines))


def _base64(media_type: str, data: bytes) -> dict[str, str]:
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode()}
