"""`skiff demo`: the main job end to end, through the door that a host uses.

It starts the real server over standard input and output, sends out an agent, shows what happens as it happens, and
reads the files back. With no key the scripted model answers, and that is said; with one, a real model can be chosen.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sandbox.errors import SandboxError
from server.backends import choose
from server.errors import InvalidRequest
from server.settings import DEFAULT_MODEL, KEYS, SCRIPTED, load

TASK = "Write a small Python program that prints the prime numbers below 100, run it, and tell me what it printed."
WAIT_SECONDS = 120

console = Console(highlight=False)


async def show(sandbox: str | None, model: str | None) -> int:
    """Run the demonstration; the exit code says whether the agent did its work."""
    model = _model(model)
    with tempfile.TemporaryDirectory(prefix="skiff-demo-") as folder:
        kind = await _sandbox(sandbox, Path(folder))
        console.rule("Skiff: an agent sent out and brought back")
        host = _server(Path(folder), kind, model)
        started = time.monotonic()
        async with Client(host) as client:
            tools = (await client.list_tools()).tools
            _say(started, f"server started over stdio; {len(tools)} tools: {', '.join(tool.name for tool in tools)}")
            return await _voyage(client, started, kind, model)


async def _voyage(client: Client, started: float, kind: str, model: str) -> int:
    async def progress(value: float, total: float | None, message: str | None) -> None:
        _say(started, f"  [cyan]{message or ''}[/]")

    session = await _call(client, "create_session", {"title": "demo", "wait_seconds": 0})
    session_id = str(session["session_id"])
    _say(started, f"create_session → {session_id}")
    _say(started, f"send_message   → “{TASK}”")
    sent = time.monotonic()
    arguments = {"session_id": session_id, "message": TASK, "wait_seconds": WAIT_SECONDS}
    result = await _call(client, "send_message", arguments, progress)
    worked = time.monotonic() - sent
    console.print(Panel(Text(str(result.get("reply") or result.get("error"))), title="reply", title_align="left"))
    files = await _call(client, "read_workspace", {"session_id": session_id})
    names = [entry["name"] for entry in files["entries"] if entry["type"] == "file"]
    for name in names:
        file = await _call(client, "read_workspace", {"session_id": session_id, "path": name})
        console.print(Panel(Text(str(file["text"]).rstrip()), title=f"/workspace/{name}", title_align="left"))
    _summary(result, names, kind, model, worked, time.monotonic() - started)
    await _call(client, "delete_session", {"session_id": session_id})
    return 0 if result["status"] == "idle" and names else 1


async def _call(client: Client, name: str, arguments: dict[str, Any], progress: Any = None) -> Mapping[str, Any]:
    result = await client.call_tool(name, arguments, progress_callback=progress)
    if result.is_error or not isinstance(result.structured_content, Mapping):
        text = " ".join(getattr(block, "text", "") for block in result.content)
        raise InvalidRequest(f"{name}: {text}")
    return result.structured_content


def _summary(result: Mapping[str, Any], names: list[str], kind: str, model: str, worked: float, whole: float) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("status", str(result["status"]))
    table.add_row("files", ", ".join(names) or "none")
    table.add_row("tool calls", str(result["tool_calls"]))
    usage = result["usage"]
    cached = f"{usage['cache_read_input_tokens']} read from cache"
    table.add_row("tokens", f"{_written(usage)} in, {cached}, {usage['output_tokens']} out")
    cost = result["cost_usd"]
    table.add_row("cost", "unknown: no list price" if cost is None else f"${cost:.4f}")
    table.add_row("time", f"{worked:.2f} s from message to reply, {whole:.2f} s in all")
    table.add_row("sandbox", kind)
    scripted = "scripted: no language model was asked. Set ANTHROPIC_API_KEY for a real one."
    table.add_row("model", scripted if model == SCRIPTED else model)
    console.print(table)


def _written(usage: Mapping[str, Any]) -> int:
    """Input tokens that were not read from the cache."""
    return int(usage["input_tokens"]) + int(usage["cache_creation_input_tokens"])


def _model(asked: str | None) -> str:
    if asked:
        return asked
    if any(os.environ.get(key) for key in KEYS):
        return DEFAULT_MODEL
    console.print("No API key is set, so the built-in [bold]scripted[/] model answers: the rest is real.")
    return SCRIPTED


async def _sandbox(asked: str | None, folder: Path) -> str:
    """The backend that will be used, its image built where it is missing. Says which, and how to get the other."""
    from server.commands.sandbox import build

    settings = load(data_dir=folder, sandbox=asked, pool=0)
    backend = await choose(settings, "demo")
    if backend.name == "docker":
        console.print("The sandbox is a [bold]container[/]: an engine answers. (--sandbox local: without one.)")
        await build(settings, (), False, "", False)
        return "docker"
    async with backend:
        try:
            await backend.check()
        except SandboxError as error:
            raise InvalidRequest(str(error)) from None
    if asked == "local":
        console.print("The [bold]embedded sandbox[/] (bubblewrap) is used, as asked.")
    else:
        console.print(
            "No container engine answers, so the [bold]embedded sandbox[/] (bubblewrap) is used. For containers, start"
            " Docker, or on Debian and Ubuntu as root: make engine"
        )
    return backend.name


def _server(folder: Path, kind: str, model: str) -> StdioServerParameters:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("ANTHROPIC_", "SKIFF_", "DOCKER_", "PYTHON", "SSL_", "XDG_")) or key in ("PATH", "HOME")
    }
    arguments = ["-m", "server", "mcp", "--data-dir", str(folder), "--sandbox", kind, "--model", model]
    root = Path(__file__).resolve().parents[2]
    return StdioServerParameters(
        command=sys.executable,
        args=arguments,
        env={**environment, "SKIFF_POOL": "0", "PYTHONPATH": str(root)},
    )


def _say(started: float, line: str) -> None:
    console.print(f"[dim]{time.monotonic() - started:6.2f} s[/]  {line}")
