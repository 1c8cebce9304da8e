"""What is written about the code is checked: settings, tools, commands, files and examples that the documents name."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic_core import PydanticUndefined

from server.catalog import agents, environments
from server.cli import app
from server.doors.mcp.door import Door
from server.doors.mcp.tools import every
from server.settings import DEFAULT_MODEL, Settings, load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
HOUSE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")

BOUNDS = environments.Bounds(
    images=(), max_cpus=2.0, max_memory_mb=4096, cpus=1.0, memory_mb=1024, disk_mb=2048, pids=512
)
REGISTRIES = (
    ("pypi", "org"),
    ("files", "pythonhosted", "org"),
    ("registry", "npmjs", "org"),
    ("registry-1", "docker", "io"),
    ("index", "docker", "io"),
    ("hub", "docker", "com"),
    ("ghcr", "io"),
    ("quay", "io"),
    ("gcr", "io"),
    ("mcr", "microsoft", "com"),
    ("deb", "debian", "org"),
    ("archive", "ubuntu", "com"),
    ("proxy", "golang", "org"),
)
"""In pieces, so that this file does not name them either."""
SOMEBODYS_PATH = re.compile(r"(?<![\w.~}])/(?:work|root|mnt(?!/session\b)|Users)/\w")
"""Where people and machines keep checkouts; documents and code have no business there. (A session's own files lie
under /mnt/session in its sandbox, and the API has paths that end in /work.)"""


def test_the_readme_has_every_setting_with_its_default_and_its_sentence() -> None:
    assert settings_table() in README, f"put this into README.md under Settings:\n\n{settings_table()}\n"
    assert f"the model is `{DEFAULT_MODEL}`" in _section(README, "Settings")


def test_the_readme_has_every_tool_with_every_argument() -> None:
    rows = {name: set(_names(arguments)) for name, arguments, _ in _rows(_section(README, "Tools"))}
    assert rows == {tool.name: set(tool.parameters["properties"]) for tool in every(Door(_no_service))}


def test_the_readme_has_every_command() -> None:
    rows = [command for command, _ in _rows(_section(README, "Commands"))]
    assert sorted(rows) == sorted(commands())


def test_the_readme_names_what_is_refused() -> None:
    refused = _section(README, "Not in this version")
    assert set(agents.LATER) <= set(_names(refused))


def test_the_readme_names_every_field_of_agents_and_environments() -> None:
    for title, known in (("`agent`", agents.FRIENDLY), ("`environment`", environments.FRIENDLY)):
        # description and metadata are bookkeeping; packages and config are refused, and named there
        for field in set(known) - {"description", "metadata", "packages", "config"}:
            assert field in _section(README, title), f"{title} does not show {field}"


@pytest.mark.parametrize("example", ["agent", "environment"])
def test_examples_of_agents_and_environments_are_taken(example: str) -> None:
    blocks = [json.loads(code) for _, code in _fences(_section(README, f"`{example}`"))]
    assert blocks
    for asked in blocks:
        if example == "agent":
            agents.resolve(asked, default_model=DEFAULT_MODEL, web=True)
        else:
            environments.resolve(asked, BOUNDS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_snippets_parse(document: str) -> None:
    for language, code in _fences((ROOT / document).read_text("utf-8")):
        if language == "json":
            json.loads(code)
        elif language == "toml":
            tomllib.loads(code)


def test_the_settings_example_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [code for _, code in _fences(_section(README, "Settings")) if code.startswith("# skiff.toml")]
    (tmp_path / "skiff.toml").write_text(example)
    monkeypatch.delenv("SKIFF_CONFIG", raising=False)
    given = {key: getattr(load(data_dir=tmp_path), key) for key in tomllib.loads(example)}
    assert given == tomllib.loads(example)


def test_the_example_configuration_is_the_readmes() -> None:
    example = json.loads((ROOT / "claude_desktop_config.example.json").read_text("utf-8"))
    assert example in [json.loads(code) for _, code in _fences(_section(README, "Claude Desktop"))]
    server = example["mcpServers"]["skiff"]
    assert (server["command"], server["args"]) == ("skiff", ["mcp"])
    assert "ANTHROPIC_API_KEY" in server["env"]


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        anchors = {_anchor(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in anchors, f"{document}: {target}"
            elif "://" not in target:
                assert (ROOT / target).exists(), f"{document}: {target}"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"(?:`|^|sudo )make ([a-z]+)", (ROOT / document).read_text("utf-8"), re.MULTILINE))
        assert named <= targets, f"{document}: {named - targets}"


def test_the_picture_of_the_house_is_true() -> None:
    named = [f"{folder}{file}" for folder, files in _house() for file in files]
    assert len(named) == len(set(named)), "a file is named twice"
    there = {
        str(path.relative_to(ROOT))
        for top in ("server", "sandbox")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.stat().st_size and "__pycache__" not in path.parts
    }
    assert set(named) == there


def test_no_file_names_a_registry_or_a_path_of_somebodys_machine() -> None:
    names = "|".join(re.escape(".".join(parts)) for parts in REGISTRIES)
    hosts = re.compile(rf"(?<![\w.-])(?:{names})(?![\w-])")
    found = []
    for path, text in _tracked():
        for number, line in enumerate(text.splitlines(), 1):
            if hosts.search(line) or SOMEBODYS_PATH.search(line) or str(ROOT) in line:
                found.append(f"{path}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def settings_table() -> str:
    """Every setting as the README shows it."""
    lines = ["| setting | default | what it says |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "see [Data folder](#data-folder)" if field.default is PydanticUndefined else _shown(field.default)
        lines.append(f"| `SKIFF_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def commands() -> Iterator[str]:
    """Every command as it is typed."""
    groups: list[tuple[str, typer.Typer]] = [("skiff", app)]
    for prefix, group in groups:
        for command in group.registered_commands:
            assert command.callback is not None
            yield f"{prefix} {command.name or command.callback.__name__}"
        groups += [
            (f"{prefix} {below.name}", below.typer_instance)
            for below in group.registered_groups
            if below.typer_instance
        ]


async def _no_service() -> Any:
    raise AssertionError("describing the tools asks nothing of the service")


def _shown(default: object) -> str:
    return "none" if default in ("", None, []) else f"`{default}`"


def _section(text: str, title: str) -> str:
    """The part of a document below the heading of this title, up to the next heading of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"there is no section {title}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} \S", re.sub(r"(?ms)^```.*?^```$", _blank, rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def _blank(fence: re.Match[str]) -> str:
    return "." * len(fence[0])


def _rows(section: str) -> list[list[str]]:
    """The tables' rows, whose first column is in backticks; that column without them."""
    found = []
    for line in re.findall(r"^\| `[^`]+` \|.*\|$", section, re.MULTILINE):
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        found.append([first.strip("`"), *others])
    return found


def _names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def _fences(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _house() -> Iterator[tuple[str, list[str]]]:
    """The folders of ARCHITECTURE.md's section, each with the files in its table."""
    for part in re.split(r"^### ", _section(HOUSE, "The house"), flags=re.MULTILINE)[1:]:
        folder = re.match(r"`([\w/]+/)`", part)
        assert folder, f"a heading of the house begins with its folder: {part[:40]}"
        yield folder[1], [file for cell in re.findall(r"^\| (`[^|]+) \|", part, re.MULTILINE) for file in _names(cell)]


def _tracked() -> Iterator[tuple[str, str]]:
    """The text files under version control, the new ones too; nothing to say where there is no repository."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            yield name, path.read_text("utf-8", "replace")
