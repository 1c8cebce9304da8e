"""What the scripted model does when nobody gave it a script: a small piece of honest work.

Above: `model.py`. Below: nothing. It writes a Python program that fits the task's text, runs it with the tools that
are offered, and reports what really came out. Pure: which step is due follows from the messages alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.providers.scripted.script import Messages, Step, last_result, last_user
from server.providers.scripted.usage import as_blocks

NOTICE = "I am the scripted model: no language model reads this, I only demonstrate how an agent works here."


@dataclass(frozen=True)
class _Program:
    file: str
    words: tuple[str, ...]
    purpose: str
    lines: tuple[str, ...]


_PROGRAMS = (
    _Program(
        "primes.py",
        ("prime",),
        "prints the primes below 100",
        (
            "def primes(limit):",
            "    sieve = bytearray([1]) * limit",
            "    sieve[:2] = b'\\0\\0'",
            "    for n in range(2, int(limit ** 0.5) + 1):",
            "        if sieve[n]:",
            "            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))",
            "    return [n for n in range(limit) if sieve[n]]",
            "",
            "print(*primes(100))",
        ),
    ),
    _Program(
        "fibonacci.py",
        ("fibonacci",),
        "prints the first 20 Fibonacci numbers",
        ("a, b = 0, 1", "for _ in range(20):", "    print(a, end=' ')", "    a, b = b, a + b", "print()"),
    ),
    _Program(
        "files.py",
        ("file", "folder", "director", "workspace"),
        "counts the files of the workspace by kind",
        (
            "import collections",
            "import pathlib",
            "",
            "kinds = collections.Counter(p.suffix or 'no suffix' for p in pathlib.Path('.').rglob('*') if p.is_file())",
            "for kind, count in kinds.most_common():",
            "    print(f'{count:5} {kind}')",
        ),
    ),
    _Program(
        "words.py",
        (),
        "counts the words of the task",
        (
            "import collections",
            "",
            "words = [word.strip('.,:;!?').lower() for word in TASK.split()]",
            "print(len(words), 'words; most common:')",
            "for word, count in collections.Counter(words).most_common(5):",
            "    print(f'{count:3} {word}')",
        ),
    ),
)


def next_step(messages: Messages, tools: Collection[str]) -> Step:
    """The step that is due for these messages and offered tool names."""
    turn, done = _turn(messages)
    task = last_user(messages) or "(nothing)"
    if done:
        return {"say": _report(messages[-1], last_result(messages))}
    if "bash" not in tools:
        offered = ", ".join(sorted(tools)) or "nothing"
        return {
            "say": f"{NOTICE} The task was: {_quote(task)}. I would write and run a small program, but no "
            f"`bash` tool is offered here. Offered: {offered}."
        }
    if turn > 1:
        command = "ls -l && head -n 3 *.py 2>/dev/null"
        return {
            "say": f"You said: {_quote(task)}. I show what is in the workspace.",
            "call": [{"tool": "bash", "input": {"command": command}}],
        }
    program = _choose(task)
    return {
        "say": f"{NOTICE} I write `{program.file}`, which {program.purpose}, and run it.",
        "call": [{"tool": "bash", "input": {"command": _command(program, task)}}],
    }


def _turn(messages: Messages) -> tuple[int, bool]:
    """How many times the user has spoken, and whether tool results have come since the last time."""
    turns, answered = 0, False
    for message in messages:
        if message["role"] != "user":
            continue
        kinds = {block["type"] for block in as_blocks(message["content"])}
        if "tool_result" in kinds:
            answered = True
        elif kinds - {"tool_result"}:
            turns, answered = turns + 1, False
    return turns, answered


def _choose(task: str) -> _Program:
    text = task.lower()
    return next(program for program in _PROGRAMS if not program.words or any(word in text for word in program.words))


def _command(program: _Program, task: str) -> str:
    """Write the program with a quoted here-document (nothing in the task is expanded) and run it."""
    heading = [f"# Task: {line}" for line in task.splitlines()[:5]]
    body = (f"TASK = {task[:2000]!a}", "", *program.lines) if "TASK" in "".join(program.lines) else program.lines
    source = "\n".join([*heading, *body])
    return f"cat > {program.file} <<'END_OF_PROGRAM'\n{source}\nEND_OF_PROGRAM\npython3 {program.file}"


def _report(message: Mapping[str, Any], output: str) -> str:
    results: Sequence[Mapping[str, Any]] = as_blocks(message["content"])
    if any(block.get("is_error") for block in results):
        return f"The command failed. It said:\n\n{output}"
    return f"Done. This came out:\n\n{output}" if output.strip() else "Done. Nothing was printed."


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line[:200]}…”" if len(line) > 200 else f"“{line}”"
