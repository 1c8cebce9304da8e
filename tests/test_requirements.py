"""The list of requirements is tied to tests in both directions. Tests are collected with `ast`, not by running."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.requirements import REQUIREMENTS, Requirement

HERE = Path(__file__).parent


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.id)
def test_a_requirement_is_shown_by_tests_that_exist_or_is_a_declared_gap(requirement: Requirement) -> None:
    missing = [name for name in requirement.tests if not _named(name)]
    assert not missing, f"no such tests: {missing}"
    assert requirement.tests or requirement.gap, "neither a test nor a reason why there is none"


def test_requirements_have_names_of_their_own_and_say_where_they_come_from() -> None:
    twice = [number for number, times in Counter(each.id for each in REQUIREMENTS).items() if times > 1]
    assert not twice
    assert not [each.id for each in REQUIREMENTS if not each.source or not each.says.endswith(".")]


def test_every_file_of_tests_shows_some_requirement() -> None:
    used = {name.partition("::")[0] for each in REQUIREMENTS for name in each.tests}
    files = {str(path.relative_to(HERE)) for path in HERE.rglob("test_*.py")}
    unused = sorted(files - used)
    assert not unused, f"name these in tests/requirements.py, beside what they show: {unused}"


def _named(name: str) -> list[str]:
    """The functions that this name, maybe cut short, stands for."""
    file, _, beginning = name.partition("::")
    return [function for function in _functions(file) if beginning and function.startswith(beginning)]


@cache
def _functions(file: str) -> list[str]:
    path = HERE / file
    if not path.is_file():
        return []
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")]
