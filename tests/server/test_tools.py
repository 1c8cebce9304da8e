"""Tools: schemas that the API takes, calls that become operations, words for calls that cannot."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.wire import Bash, Edit, Glob, Grep, Operation, Read, Write
from server.providers.scripted.validation import refusal
from server.tools import BadArguments
from server.tools.bash import COMMAND_LIMIT
from server.tools.files import EDIT_LIMIT
from server.tools.toolset import IN_SANDBOX


def test_every_definition_is_one_that_the_api_takes() -> None:
    tools = [tool.definition() for tool in IN_SANDBOX.values()]
    message = {"role": "user", "content": "hi"}
    assert refusal({"model": "m", "max_tokens": 1, "messages": [message], "tools": tools}) is None
    for tool in tools:
        assert set(tool["input_schema"]["required"]) <= set(tool["input_schema"]["properties"])


@pytest.mark.parametrize(
    ("name", "arguments", "operation", "body"),
    [
        ("bash", {"command": "ls"}, Bash("ls", False, 0), b""),
        ("bash", {"command": "ls", "timeout_ms": 5}, Bash("ls", False, 5), b""),
        ("bash", {"restart": True}, Bash(None, True, 0), b""),
        ("read", {"file_path": "a", "view_range": [1, -1]}, Read("a", [1, -1]), b""),
        ("write", {"file_path": "a", "content": "ä"}, Write("a"), "ä".encode()),
        ("write", {"file_path": "a", "content": ""}, Write("a"), b""),
        ("edit", {"file_path": "a", "old_string": "x", "new_string": "y"}, Edit("a", "x", "y", False), b""),
        ("glob", {"pattern": "*"}, Glob("*", None), b""),
        ("grep", {"pattern": "x", "head_limit": 3}, Grep("x", None, None, 0, 3), b""),
    ],
)
def test_a_call_becomes_an_operation(name: str, arguments: dict[str, Any], operation: Operation, body: bytes) -> None:
    assert IN_SANDBOX[name].prepare(arguments) == (operation, body)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("bash", {}, "give a `command`"),
        ("bash", {"command": "  "}, "give a `command`"),
        ("bash", {"command": 5}, "`command` must be a string, not 5"),
        ("bash", {"cmd": "ls"}, r"no input `cmd`. Inputs: command \(optional\)"),
        ("bash", {"command": "ls", "timeout_ms": -1}, "an integer of at least 0"),
        ("bash", {"command": "ls", "timeout_ms": True}, "an integer"),
        ("bash", {"command": "x" * (COMMAND_LIMIT + 1)}, "Write it to a file"),
        ("read", {}, "`file_path` is missing"),
        ("read", {"file_path": "a", "view_range": [1]}, "a list of 2 to 2 integers"),
        ("read", {"file_path": "a", "view_range": [1, "2"]}, "a list of 2 to 2 integers"),
        ("write", {"file_path": "a"}, "`content` is missing"),
        ("edit", {"file_path": "a", "old_string": "x" * EDIT_LIMIT, "new_string": "y"}, "Edit in parts"),
        ("edit", {"file_path": "a", "old_string": "x", "new_string": "y", "replace_all": "yes"}, "a boolean"),
        ("grep", {"pattern": None}, "`pattern` must be a string"),
    ],
)
def test_a_wrong_call_is_answered_with_what_to_change(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadArguments, match=words):
        IN_SANDBOX[name].prepare(arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("bash", {"command": "echo \ud800"}),
        ("edit", {"file_path": "a", "old_string": "\ud800", "new_string": "y"}),
        ("write", {"file_path": "a", "content": "\ud800"}),
    ],
)
def test_half_a_surrogate_pair_does_not_make_a_call_fail(name: str, arguments: dict[str, Any]) -> None:
    IN_SANDBOX[name].prepare(arguments)
