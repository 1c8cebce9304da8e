"""A result from the sandbox as content blocks for the model and the log. Pure; the result is hostile input."""

from __future__ import annotations

import base64
from typing import Any

from sandbox.wire import Result

Content = list[dict[str, Any]]
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
MAX_TEXT = 120_000
"""Characters of one result: the runner cuts at 100,000 and adds words of its own; one that does not is cut here."""


def render(result: Result) -> tuple[Content, bool]:
    """Content blocks and whether they are an error."""
    media = str(result.meta.get("media_type"))
    if result.ok and media in IMAGES:
        return [{"type": "image", "source": _base64(media, result.body)}], False
    if result.ok and media == "application/pdf":
        return [{"type": "document", "source": _base64(media, result.body)}], False
    return [{"type": "text", "text": _text(result)}], not result.ok


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
