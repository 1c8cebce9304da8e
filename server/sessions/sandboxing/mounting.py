"""What a session was given, brought into its sandbox: files as they are, repositories checked out.

Above: `sandboxes`, which asks for it whenever a sandbox was opened, or something was given to a live one. Below: the
rows of resources, the blobs, `files.repositories`, and the sandbox's own verbs. What cannot be brought is said in the
session's log as `session.error`; the session goes on without it, and it is tried again at the next opening.
"""

from __future__ import annotations

import logging
import shlex
from contextlib import aclosing, suppress

from sandbox.errors import SandboxGone, SandboxUnavailable
from sandbox.protocol import Sandbox
from sandbox.wire import UPLOADS, Bash, Call, Result
from server import events
from server.errors import NotFound, StoreError
from server.events import NewEvent
from server.files.blobs import Blobs
from server.files.repositories import Bundle, Repositories, RepositoryError
from server.ids import new_id
from server.sessions.log import Log
from server.sessions.resources import OURS, below_uploads
from server.store.files import FileTable
from server.store.resources import PLACED, REMOVING, WAITING, ResourceRow, ResourceTable
from server.store.store import Store

logger = logging.getLogger(__name__)

SHELL = "skiff-setup"
"""A shell of our own, so that a checkout neither waits for the agent's commands nor meets what they have defined."""
CHECKOUT_MS = 600_000
"""A working tree of a million files takes minutes on a slow disk."""
NO_GIT, TAKEN = 93, 94
"""Exit codes of the checkout's script, beside git's own."""


class Mounting:
    """The way of resources into sandboxes."""

    def __init__(
        self,
        store: Store,
        table: ResourceTable,
        files: FileTable,
        blobs: Blobs,
        repositories: Repositories,
        log: Log,
    ) -> None:
        self._store = store
        self._table = table
        self._files = files
        self._blobs = blobs
        self._repositories = repositories
        self._log = log

    async def begin_again(self, session_id: str, *, files_alone: bool = False) -> None:
        """The sandbox is a new one, in which nothing is yet: everything is to be brought. `files_alone`: repositories
        came back with the workspace."""
        if any(row.state != WAITING for row in await self._table.everything(session_id)):
            await self._table.start_again(session_id, files_alone=files_alone)

    async def bring(self, session_id: str, sandbox: Sandbox) -> None:
        """Let the sandbox show what the session has. Raises SandboxGone when the sandbox dies meanwhile."""
        rows = await self._table.everything(session_id)
        # Removals first: their places may be wanted.
        left = sorted((row for row in rows if row.state != PLACED), key=lambda row: row.state != REMOVING)
        troubles = [trouble for row in left if (trouble := await self._bring(row, sandbox))]
        if troubles:
            await self._report(session_id, troubles)

    async def _bring(self, row: ResourceRow, sandbox: Sandbox) -> tuple[str, str, str | None] | None:
        """Bring one; what went wrong, as the wire's type, words, and the repository."""
        url = row.body.get("url")
        try:
            if row.state == REMOVING:
                await sandbox.unplace(below_uploads(row.body["mount_path"]))
                await self._table.forget(row.id)
            elif url is None:
                await self._place(row, sandbox)
            else:
                await self._check_out(row, sandbox)
        except RepositoryError as error:
            return error.error_type, f"{url} could not be checked out: {error}", url
        except SandboxGone:
            raise
        except (SandboxUnavailable, StoreError) as error:
            kind = "unknown_error" if url is None else "repository_clone_error"
            return kind, f"{row.body['mount_path']} could not be placed in the sandbox: {error}", url
        return None

    async def _place(self, row: ResourceRow, sandbox: Sandbox) -> None:
        file = await self._files.file(row.file_id or "")
        if file is None or file.blob is None:
            return  # deleted meanwhile
        async with aclosing(self._blobs.portions(file.blob)) as portions:
            await sandbox.place(below_uploads(row.body["mount_path"]), file.size_bytes, portions)
        await self._table.mark(row.id, PLACED)

    async def _check_out(self, row: ResourceRow, sandbox: Sandbox) -> None:
        """Fetch outside, bring the bundle in as root's file, have the agent's user check it out, take it away."""
        async with self._repositories.fetched(row.body["url"], row.body["checkout"], row.secret) as bundle:
            path = f"{OURS}/{row.id}.bundle"
            try:
                async with aclosing(Blobs(bundle.path.parent).portions(bundle.path.name)) as portions:
                    await sandbox.place(path, bundle.size, portions)
                await self._run(_script(row, bundle, f"{UPLOADS}/{path}"), sandbox)
            finally:
                with suppress(SandboxUnavailable):
                    await sandbox.unplace(OURS)
        await self._table.mark(row.id, PLACED)

    async def _run(self, script: str, sandbox: Sandbox) -> None:
        call = Call(new_id("setup"), Bash(command=script, timeout_ms=CHECKOUT_MS), SHELL)
        result = await sandbox.call(call)
        await sandbox.settle([call.op_id])
        if not result.ok or result.meta.get("exit_code") != 0:
            raise RepositoryError("repository_checkout_error", _why(result))

    async def _report(self, session_id: str, troubles: list[tuple[str, str, str | None]]) -> None:
        with suppress(NotFound):  # deleted meanwhile
            thread = (await self._store.session(session_id)).thread_id
            new: list[NewEvent] = [
                events.session_error(thread, kind, words, "retrying", repository_url=url)
                for kind, words, url in troubles
            ]
            await self._log.append(session_id, new)


def _script(row: ResourceRow, bundle: Bundle, path: str) -> str:
    """Made beside its place and moved there when it is whole: a second try finds either all of it, by the name that it
    was given, or nothing."""
    place, source = row.body["mount_path"], shlex.quote(path)
    ours = shlex.quote(f"/workspace/.skiff-{row.id}")
    checkout = (
        f"git checkout -q -b {shlex.quote(bundle.branch)} --track {shlex.quote('origin/' + bundle.branch)}"
        if bundle.branch
        else f"git fetch -q {source} HEAD && git checkout -q --detach {bundle.commit}"
    )
    steps = (
        f"rm -rf {ours}",
        f"git -c init.defaultBranch=main init -q {ours}",
        f"cd {ours}",
        f"git config skiff.resource {row.id}",
        f"git remote add origin {shlex.quote(row.body['url'])}",
        f"git fetch -q {source} '+refs/heads/*:refs/remotes/origin/*'",
        checkout,
        f"mkdir -p {shlex.quote(place.rpartition('/')[0])}",
        f"mv -T {ours} {shlex.quote(place)}",  # onto an empty folder, if there is one
    )
    return (
        f"command -v git >/dev/null || exit {NO_GIT}\n"
        f'[ "$(git -C {shlex.quote(place)} config --get skiff.resource 2>/dev/null)" = {row.id} ] && exit 0\n'
        f'[ -z "$(ls -A {shlex.quote(place)} 2>/dev/null)" ] || exit {TAKEN}\n'
        f"( {' && '.join(steps)} ) 2>&1\ncode=$?; rm -rf {ours}; exit $code"
    )


def _why(result: Result) -> str:
    code = result.meta.get("exit_code")
    if code == NO_GIT:
        return "There is no git in the sandbox's image."
    if code == TAKEN:
        return "There is something at its mount path already."
    return result.body.decode("utf-8", "replace").strip()[-400:] or "The checkout failed and said nothing."
