"""Names and labels: how an installation finds its own containers and volumes again, and never another's.

Above: `options`, `backend`, `pool`, `reaper`. Pure. An engine's labels cannot be changed after creation, so they
carry only what never changes: no session id, no status.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict

from sandbox.errors import SpecRefused
from sandbox.protocol import SandboxSpec

INSTALLATION = "dev.skiff.installation"
SLOT = "dev.skiff.slot"
SPEC = "dev.skiff.spec"
RUNNER = "dev.skiff.runner"

POOL_PREFIX = "pool-"
"""Slots that begin so were made for the warm pool, whoever owns them since."""

PACKING_PREFIX = "packing-"
"""Slots of containers that pack or unpack another slot's files: no session's, so that one left over is collected."""

LAYOUT = 2
"""Raised when containers get other volumes: one of an older layout is then replaced around its workspace."""

_SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")


def object_name(installation: str, slot: str) -> str:
    """The name of a slot's volume and of its container (they live in different name spaces of the engine).

    Raises SpecRefused for a slot that an engine cannot have in a name.
    """
    if not _SLOT.fullmatch(slot):
        raise SpecRefused(f"slot {slot!r}: letters, digits, '_', '.' and '-' only, at most 96")
    return f"skiff-{hashlib.sha256(installation.encode()).hexdigest()[:8]}-{slot}"


def session_volume(installation: str, slot: str) -> str:
    """The name of the volume with what a session was given and hands out. No slot's workspace can have it.

    Raises SpecRefused as `object_name`.
    """
    return object_name(installation, slot).replace("skiff-", "skiff-session-", 1)


def labels(installation: str, slot: str, spec_hash: str = "", runner: str = "") -> dict[str, str]:
    """The labels of a container (all four) or of a volume (whose spec and runner come and go)."""
    found = {INSTALLATION: installation, SLOT: slot}
    return {**found, SPEC: spec_hash, RUNNER: runner} if spec_hash else found


def owned_filter(installation: str) -> dict[str, list[str]]:
    """The engine's list filter for objects of this installation."""
    return {"label": [f"{INSTALLATION}={installation}"]}


def spec_hash(spec: SandboxSpec) -> str:
    """Equal for specifications that make equal containers."""
    made_of = {**asdict(spec), "layout": LAYOUT}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def slot_of(found: Mapping[str, str] | None) -> str:
    """The slot in an object's labels, "" where there is none."""
    return (found or {}).get(SLOT, "")
