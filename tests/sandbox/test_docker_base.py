"""Where a base root comes from on a machine without an image registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.docker.base import Mirror, cache_folder, find_mirror
from sandbox.errors import SandboxUnavailable

DEB822 = """\
# a comment: with a colon
Types: deb
URIs: http://security.example/debian
Suites: bookworm-security
Components: main

Types: deb deb-src
URIs: http://mirror.example/debian http://second.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg
"""
ONE_LINE = """\
# deb http://no.example/ubuntu jammy main
deb-src http://no.example/ubuntu jammy main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/ubuntu jammy main universe
"""


def machine(folder: Path, codename: str, file: str, sources: str) -> tuple[Path, Path]:
    (folder / "sources.list.d").mkdir()
    (folder / file).write_text(sources)
    (folder / "os-release").write_text(f'ID=x\nVERSION_CODENAME="{codename}"\n')
    return folder, folder / "os-release"


def test_the_machines_own_release_is_found_among_deb822_stanzas(tmp_path: Path) -> None:
    apt, release = machine(tmp_path, "bookworm", "sources.list.d/debian.sources", DEB822)
    assert find_mirror(apt, release) == Mirror(
        "bookworm", "http://mirror.example/debian", ("main", "contrib"), "/usr/share/keyrings/archive.gpg"
    )


def test_one_line_sources_with_options_are_read(tmp_path: Path) -> None:
    apt, release = machine(tmp_path, "jammy", "sources.list", ONE_LINE)
    assert find_mirror(apt, release) == Mirror("jammy", "http://mirror.example/ubuntu", ("main", "universe"), "/k.gpg")


def test_a_machine_without_a_source_for_its_release_is_told_what_to_do(tmp_path: Path) -> None:
    apt, release = machine(tmp_path, "trixie", "sources.list", ONE_LINE)
    with pytest.raises(SandboxUnavailable, match="docker load"):
        find_mirror(apt, release)


def test_the_cache_follows_the_xdg_rules(tmp_path: Path) -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/c"}, tmp_path) == Path("/c/skiff")
    assert cache_folder({}, tmp_path) == tmp_path / ".cache" / "skiff"
