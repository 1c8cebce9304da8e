"""Packages of an environment, where no engine is needed: what may be asked for, the script, the ready-made lists."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from sandbox.docker import packages
from sandbox.docker.labels import spec_hash
from sandbox.docker.options import create_options
from sandbox.errors import SpecRefused
from sandbox.local import LocalBackend
from sandbox.packages import check
from sandbox.protocol import Packages, SandboxSpec
from sandbox.readymade import READY_MADE, RECIPES
from tests.sandbox.test_docker_options import PLACE

GOOD = {
    "apt": ("tree", "g++", "libc6:amd64", "tree=2.1.0-1", "python3.11", "postgresql-client=15+248*"),
    "npm": ("express", "express@4.18.0", "@types/node@^20.1", "left-pad@latest", "x@>=1.0.0-beta.1"),
    "pip": ("numpy", "numpy==2.4.6", "requests[socks,use_chardet]>=2,<3", "a~=1.0", "Pillow!=9.*", "torch==2.1+cpu"),
}
BAD = {
    "apt": ("", "-y", "--force-yes", "tree-", "./x.deb", "tree/sid", "a b", "a;b", "$(id)", "Tree", "a\nb", "task^"),
    "npm": (
        "", "-g", "user/repository", "git+ssh://host/x", "https://host/x.tgz", "file:../x", "x@npm:y", "../x", "./x",
        "@scope", "x@git://h/y", "a b", "a;b", "`id`",
    ),
    "pip": (
        "", "-r", "--index-url=https://host", "name@https://host/x.whl", "name @ file:///x", "./x", "x/y", "..", "a b",
        "a; python_version<'3'", "$(id)", "git+https://host/x", "a==1\n-e x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("manager,name", [(manager, name) for manager, names in GOOD.items() for name in names])
def test_names_with_versions_in_the_managers_own_syntax_are_taken(manager: str, name: str) -> None:
    check(((manager, (name,)),))


@pytest.mark.parametrize("manager,name", [(manager, name) for manager, names in BAD.items() for name in names])
def test_whatever_is_more_than_a_name_and_a_version_is_refused(manager: str, name: str) -> None:
    with pytest.raises(SpecRefused, match=f"the {manager} package .* is not a name and version"):
        check(((manager, (name,)),))


@pytest.mark.parametrize("manager", ["cargo", "gem", "go"])
def test_a_manager_that_is_not_there_is_refused_by_name(manager: str) -> None:
    with pytest.raises(SpecRefused, match=f"packages of '{manager}' are not supported; apt, npm, pip are"):
        create_options(SandboxSpec(packages=((manager, ("x",)),)), PLACE)


def test_the_local_backend_refuses_packages_by_name(tmp_path: Path) -> None:
    spec = SandboxSpec(packages=(("apt", ("tree",)), ("pip", ("numpy",))))
    with pytest.raises(SpecRefused, match=r"packages of apt, pip need a container engine"):
        asyncio.run(LocalBackend(tmp_path).create(spec, "one"))


def test_a_shell_takes_every_name_as_it_stands_and_the_managers_in_alphabetical_order() -> None:
    functions = "\n".join(
        f"""{name}() {{ for word in {name} "$@"; do printf '%s\\n' "$word"; done; }}"""
        for name in ("apt_packages", "npm_packages", "pip_packages", "clean_up")
    )
    asked: Packages = tuple((manager, GOOD[manager]) for manager in ("pip", "npm", "apt"))
    said = subprocess.run(["sh", "-euc", packages.script(asked, functions)], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == [
        "apt_packages", *GOOD["apt"], "npm_packages", *GOOD["npm"], "pip_packages", *GOOD["pip"], "clean_up",
    ]  # fmt: skip


def test_the_functions_that_the_script_calls_are_a_shell_script() -> None:
    recipe = Path(packages.__file__).parents[1] / "image/packages.sh"
    assert subprocess.run(["sh", "-n", recipe], capture_output=True, text=True).stderr == ""
    for manager in ("apt_packages", "npm_packages", "pip_packages", "clean_up"):
        assert f"\n{manager}() {{\n" in recipe.read_text()


def test_an_image_is_shared_by_those_who_want_the_same_on_the_same_base() -> None:
    one: Packages = (("apt", ("tree",)), ("pip", ("numpy",)))
    tag = packages.tag("sha256:1", one, "recipe")
    assert tag == packages.tag("sha256:1", tuple(reversed(one)), "recipe")
    others = {
        packages.tag("sha256:2", one, "recipe"),
        packages.tag("sha256:1", one, "another recipe"),
        packages.tag("sha256:1", (("apt", ("tree",)), ("pip", ("numpy==2",))), "recipe"),
    }
    assert len({tag, *others}) == 4


def test_packages_make_another_container() -> None:
    assert spec_hash(SandboxSpec()) != spec_hash(SandboxSpec(packages=(("apt", ("tree",)),)))


def test_every_ready_made_image_is_a_list_that_could_be_asked_for() -> None:
    assert list(READY_MADE) == ["standard", "data", "databases", "ci"]
    for recipe in RECIPES.values():
        check(recipe.packages)
        assert recipe.says.endswith(".")
        assert [manager for manager, _ in recipe.packages] == sorted(manager for manager, _ in recipe.packages)
        for manager, names in recipe.packages:
            assert manager == "apt" or all("==" in name or "@" in name for name in names), "pinned"
