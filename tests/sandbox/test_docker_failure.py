"""What the engine's answers become."""

from __future__ import annotations

import pytest

from sandbox.docker.failure import classify
from sandbox.errors import ImageMissing, SandboxError, SandboxGone, SandboxUnavailable, SpecRefused


@pytest.mark.parametrize(
    ("status", "message", "kind", "words"),
    [
        (0, "Connection refused", SandboxUnavailable, "make engine"),
        (0, "Permission denied", SandboxUnavailable, "docker` group"),
        (404, "No such image: skiff-sandbox:x", ImageMissing, "skiff sandbox build"),
        (404, "No such container: abc", SandboxGone, "abc"),
        (404, "get skiff-1: no such volume", SandboxGone, "skiff-1"),
        (400, "Range of CPUs is from 0.01 to 2.00", SpecRefused, "Range of CPUs"),
        (500, "write /x: no space left on device", SandboxUnavailable, "skiff sandbox gc"),
        (500, "OCI runtime create failed: error setting rlimit type 7", SandboxUnavailable, "ulimit -n"),
        (409, "removal of container x is already in progress", SandboxUnavailable, "in progress"),
    ],
)
def test_an_answer_becomes_one_of_our_errors_with_advice(
    status: int, message: str, kind: type[SandboxError], words: str
) -> None:
    error = classify(status, message, "create the container")
    assert type(error) is kind
    assert words in str(error)
