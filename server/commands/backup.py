"""`skiff backup`: a copy of the data folder, whoever works on it meanwhile."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from server.backup import back_up
from server.settings import Settings

console = Console(highlight=False, soft_wrap=True)


async def copy(settings: Settings, target: Path) -> None:
    """Make the copy, and say what is in it and what is not."""
    copied = await back_up(settings.data_dir, target)
    console.print(
        f"{target}: {copied.sessions} sessions, {copied.files} files, {copied.size / 1e6:,.1f} MB.", markup=False
    )
    if copied.sandboxes:
        console.print(
            f"Not in it: the workspaces of {copied.sandboxes} sandboxes. Their sessions go on with empty ones there,"
            " and their agents are told."
        )
    if copied.at_work:
        console.print(f"{copied.at_work} sessions were at work: a server on the copy goes on with them.")
    console.print("It holds keys and tokens: keep it as closed as the folder itself.")
    console.print(f"Use it: skiff serve --data-dir {target}", markup=False)
