"""The `skiff` command. Each command's work is in `commands/`, imported when it is called: a host waits for `skiff mcp`
to answer, and every import counts there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server import garbage

if TYPE_CHECKING:
    from server.settings import Settings

app = typer.Typer(
    name="skiff",
    help="Send out sandboxed Claude sub-agents from any MCP host, and bring back the result.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
sandbox_app = typer.Typer(help="The sandboxes' image and what is left over of them.", no_args_is_help=True)
sessions_app = typer.Typer(help="Look at the sessions of the data folder.", no_args_is_help=True)
keys_app = typer.Typer(help="The API keys of the data folder, besides its owner's token.", no_args_is_help=True)
app.add_typer(sandbox_app, name="sandbox")
app.add_typer(keys_app, name="keys")
app.add_typer(sessions_app, name="sessions")

DataDir = Annotated[Path | None, typer.Option(help="Folder for database, keys and sandboxes [SKIFF_DATA_DIR].")]
SandboxKind = Annotated[str | None, typer.Option("--sandbox", help="auto, docker or local [SKIFF_SANDBOX].")]
Model = Annotated[str | None, typer.Option(help="Model of agents that name none; `scripted` needs no key.")]
Host = Annotated[str | None, typer.Option(help="Address to bind (default 127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="Port to bind (default 8400).")]
SessionId = Annotated[str, typer.Argument(help="The session's id, as `skiff sessions list` shows it.")]


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("skiff-agents"))
        raise typer.Exit


@app.callback()
def skiff(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Send out sandboxed Claude sub-agents from any MCP host, and bring back the result."""


def main() -> None:
    """Run the command line; errors that a person can mend are one line on standard error, exit code 1."""
    if sys.platform == "win32":
        sys.exit("Skiff does not run on Windows yet. Use WSL 2.")
    from sandbox.errors import SandboxError
    from server.errors import SkiffError

    garbage.look_seldom()
    try:
        app()
    except (SkiffError, SandboxError) as error:
        sys.exit(f"skiff: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _settings(**flags: object) -> Settings:
    from server.settings import load

    settings = load(**flags)
    logging.basicConfig(level=settings.log_level, stream=sys.stderr, format="skiff: %(levelname)s: %(message)s")
    return settings


def _run(work: Coroutine[Any, Any, int | None]) -> None:
    if code := asyncio.run(work):
        raise typer.Exit(code)


@app.command()
def mcp(data_dir: DataDir = None, sandbox: SandboxKind = None, model: Model = None) -> None:
    """Serve one MCP host over standard input and output. This is what hosts start."""
    from server.commands.mcp import serve_stdio

    _run(serve_stdio(lambda: _settings(data_dir=data_dir, sandbox=sandbox, model=model)))


@app.command()
def serve(
    data_dir: DataDir = None, sandbox: SandboxKind = None, model: Model = None, host: Host = None, port: Port = None
) -> None:
    """Serve MCP at /mcp and the API at /v1 over HTTP, with a token that is made at the first start."""
    from server.commands.serve import serve_http

    _run(serve_http(_settings(data_dir=data_dir, sandbox=sandbox, model=model, host=host, port=port)))


@app.command()
def openapi() -> None:
    """Print the API at /v1 as an OpenAPI document."""
    from server.commands.openapi import show

    show()


@app.command()
def work(data_dir: DataDir = None, sandbox: SandboxKind = None, model: Model = None) -> None:
    """Finish the work of sessions whose host has gone, then leave. Skiff starts this by itself."""
    from server.commands.work import finish

    _run(finish(_settings(data_dir=data_dir, sandbox=sandbox, model=model)))


@app.command()
def stop(
    session_id: Annotated[str | None, typer.Argument(help="The session to interrupt.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Interrupt every session that is at work.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Interrupt a session, or all of them, whichever process drives them. Files and history stay."""
    from server.commands.stop import stop

    _run(stop(_settings(data_dir=data_dir), session_id, every))


@app.command()
def demo(sandbox: SandboxKind = None, model: Model = None) -> None:
    """Send out an agent over MCP, as a host does, and show what comes back. Needs no key."""
    from server.commands.demo import show

    _run(show(sandbox, model))


@app.command()
def doctor(data_dir: DataDir = None, sandbox: SandboxKind = None, model: Model = None) -> None:
    """Check this machine: each line is ok, or says what to do."""
    from server.commands.doctor import examine

    _run(examine(_settings(data_dir=data_dir, sandbox=sandbox, model=model)))


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="Folder to be made; nothing that exists is overwritten.")],
    data_dir: DataDir = None,
) -> None:
    """Copy the data folder while it is in use: database and files, as they are at one moment."""
    from server.commands.backup import copy

    _run(copy(_settings(data_dir=data_dir), target.expanduser().resolve()))


@sandbox_app.command("build")
def sandbox_build(
    names: Annotated[
        list[str] | None, typer.Argument(help="Ready-made images to build on top; `skiff sandbox images` lists them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Build every ready-made image.")] = False,
    base: Annotated[
        str, typer.Option(help="Image to build on; default: Debian slim, or this machine's packages.")
    ] = "",
    fresh: Annotated[bool, typer.Option(help="Build again even if it is there.")] = False,
) -> None:
    """Build the sandbox image, once (about a minute), and ready-made ones by name."""
    from server.commands.sandbox import build

    _run(build(_settings(), names or [], every, base, fresh))


@sandbox_app.command("images")
def sandbox_images() -> None:
    """The ready-made images and those of environments with packages: what is in them, size, time of the build."""
    from server.commands.sandbox import show_images

    _run(show_images())


@sandbox_app.command("list")
def sandbox_list(data_dir: DataDir = None) -> None:
    """The sandboxes of this data folder, and whose they are."""
    from server.commands.sandbox import show_all

    _run(show_all(_settings(data_dir=data_dir)))


@sandbox_app.command("gc")
def sandbox_gc(data_dir: DataDir = None) -> None:
    """Remove sandboxes of this data folder that no session owns any more, and images that are out of date."""
    from server.commands.sandbox import collect

    _run(collect(_settings(data_dir=data_dir)))


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for; logs show it.")] = "key", data_dir: DataDir = None
) -> None:
    """Make a key that is good on both doors. It is shown once."""
    from server.commands.keys import create

    _run(create(_settings(data_dir=data_dir), name))


@keys_app.command("list")
def keys_list(data_dir: DataDir = None) -> None:
    """Every key: its id, name, and when it was used last."""
    from server.commands.keys import show_list

    _run(show_list(_settings(data_dir=data_dir)))


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `skiff keys list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Let a key be good no more."""
    from server.commands.keys import revoke

    _run(revoke(_settings(data_dir=data_dir), key_id))


@sessions_app.command("list")
def sessions_list(
    data_dir: DataDir = None, limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20
) -> None:
    """Sessions, newest first."""
    from server.commands.sessions import show_list

    _run(show_list(_settings(data_dir=data_dir), limit))


@sessions_app.command("show")
def sessions_show(session_id: SessionId, data_dir: DataDir = None) -> None:
    """One session: its state, cost, and the agent's last reply."""
    from server.commands.sessions import show_one

    _run(show_one(_settings(data_dir=data_dir), session_id))


@sessions_app.command("tail")
def sessions_tail(
    session_id: SessionId,
    data_dir: DataDir = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come, until interrupted.")] = False,
) -> None:
    """A session's events, one a line."""
    from server.commands.sessions import tail

    _run(tail(_settings(data_dir=data_dir), session_id, follow))


@sessions_app.command("rm")
def sessions_rm(session_id: SessionId, data_dir: DataDir = None) -> None:
    """Delete a session with its history, sandbox and files; stops it first."""
    from server.commands.sessions import remove

    _run(remove(_settings(data_dir=data_dir), session_id))
