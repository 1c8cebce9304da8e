"""What the wire has and Skiff has not: refused by its name, so that nobody takes a 404 for a wrong id.

Above: `app`, and the score card. Below: nothing. Words only; what is served is declared by the resource files.
"""

from __future__ import annotations

import re

REFUSED: tuple[tuple[str, str], ...] = (
    (r"/v1/environments/[^/]+/work", "environment work items (self-hosted environments)"),
    (r"/v1/vaults", "vaults"),
    (r"/v1/memory_stores", "memory stores"),
    (r"/v1/deployments", "deployments"),
    (r"/v1/deployment_runs", "deployment runs"),
    (r"/v1/dreams", "dreams"),
    (r"/v1/skills", "skills"),
    (r"/v1/tunnels", "MCP tunnels"),
    (r"/v1/user_profiles", "user profiles"),
    (r"/v1/messages", "the Messages API"),
    (r"/v1/complete", "text completions"),
    (r"/v1/models", "models"),
    (r"/v1/organizations", "organizations"),
)
"""Paths with everything below them, and what is found there on the hosted service."""
_PATTERNS = tuple((re.compile(f"{path}(/.*)?"), name) for path, name in REFUSED)


def name_of(path: str) -> str | None:
    """What a path stands for that Skiff does not have; None for what nobody knows."""
    return next((name for pattern, name in _PATTERNS if pattern.fullmatch(path)), None)
