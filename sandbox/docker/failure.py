"""What an engine's refusal means: one table from (status, words) to our error tree.

Above: `engine`, the only caller. Pure: it sees a status and a message, never an exception class of docker-py.
"""

from __future__ import annotations

from sandbox.errors import ImageMissing, SandboxError, SandboxGone, SandboxUnavailable, SpecRefused

_WORDS: tuple[tuple[str, str], ...] = (
    (
        "no space left on device",
        "the engine's disk is full; free some with `skiff sandbox gc` or `docker system prune`",
    ),
    ("cannot allocate memory", "the engine's machine is out of memory; lower the number of parallel sessions"),
    ("permission denied", "this user may not use the engine; add it to the `docker` group or run as root"),
    ("seccomp", "the engine refused the seccomp profile; a newer engine or runc is needed"),
    ("rlimit", "the engine's machine forbids the file limit; raise its own `ulimit -n`"),
    ("cgroup", "the engine cannot set resource limits; see that its cgroup controllers are mounted (`make engine`)"),
)
"""Phrases of the engine, and what the operator can do about each."""


def classify(status: int, message: str, action: str) -> SandboxError:
    """The error for an engine's answer.

    status is the HTTP status, 0 when the engine was not reached at all; message is the engine's own; action says
    what was being done, as "create the container".
    """
    text = message.strip().rstrip(".")
    lowered = text.lower()
    if status == 0:
        advice = _advice(lowered) or "start it (`make engine`, or Docker Desktop) or set DOCKER_HOST"
        return SandboxUnavailable(f"no container engine answers: {text}; {advice}")
    if status == 404 and "image" in lowered:
        return ImageMissing(f"{text}; run `skiff sandbox build`")
    if status == 404:
        return SandboxGone(f"could not {action}: {text}")
    if status == 400:
        return SpecRefused(f"the engine could not {action}: {text}")
    advice = _advice(lowered)
    return SandboxUnavailable(f"the engine could not {action}: {text}" + (f"; {advice}" if advice else ""))


def is_passing(status: int) -> bool:
    """True for an answer that the same request may not get again: the object was in the middle of a change (409)."""
    return status == 409


def _advice(lowered: str) -> str:
    return next((advice for words, advice in _WORDS if words in lowered), "")
