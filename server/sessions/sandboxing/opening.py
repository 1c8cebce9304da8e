"""From a session's row to a live sandbox around its files, and to none at the end.

Above: `sandboxes`, which says when. Below: the backend, `archives` and `mounting`, and the store, where every engine
call is announced by an intent row before it is made.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace

from sandbox.errors import SandboxError, SandboxGone, SandboxUnavailable, WorkspaceGone
from sandbox.protocol import Sandbox, SandboxBackend
from sandbox.wire import Call, Put
from server.ids import new_id
from server.sessions.reading import view_now
from server.sessions.sandboxing.archives import Archives, reference
from server.sessions.sandboxing.mounting import Mounting
from server.sessions.sandboxing.place import Place
from server.sessions.spec import Spec
from server.store.store import SandboxRow, Store

logger = logging.getLogger(__name__)

LOST = "The sandbox was lost with all its files; this is a new, empty one."
STOPPED = (
    "The sandbox was stopped and started again: files are kept; shell variables, background processes and /tmp are not."
)
BARE = "What was handed out (/mnt/session/outputs) is lost; what the session was given is there again."
PUT_AWAY = (
    "The sandbox was put away, for it was not used for long, and is back: files are kept; shell variables, background"
    " processes and /tmp are not."
)


class Opening:
    """Makes, finds, brings back and removes the sandboxes of sessions."""

    def __init__(self, store: Store, backend: SandboxBackend, mounting: Mounting, archives: Archives) -> None:
        self._store = store
        self._backend = backend
        self._mounting = mounting
        self._archives = archives

    async def open(self, place: Place, spec: Spec) -> Sandbox:
        """The session's sandbox, as its row says. Raises SandboxUnavailable; its files are kept then."""
        row = await self._store.sandbox(place.session_id)
        if row is None:
            if spec.backend not in ("none", self._backend.name):
                raise SandboxUnavailable(self._other_backend(spec.backend))
            return await self._make(place, spec, [])
        if row.backend != self._backend.name:
            raise SandboxUnavailable(self._other_backend(row.backend))
        news = [] if place.told else row.news.splitlines()
        try:
            if row.state == "stored":
                await self._archives.bring_back(row, spec)
            sandbox = await self._backend.attach(reference(row), spec.sandbox)
        except WorkspaceGone:
            await self._backend.destroy(reference(row))
            return await self._make(place, spec, [*news, LOST] if row.state != "making" else news)
        except SandboxGone as gone:
            raise SandboxUnavailable(f"The sandbox could not be started again: {gone}. Its files are kept.") from gone
        if row.state in ("stored", "making") or sandbox.bare:
            # What was made by a server that died has never been given anything; else repositories are there.
            await self._mounting.begin_again(place.session_id, files_alone=row.state != "making")
        told = news or _said(row, sandbox)
        await self._settle(place, sandbox, [*told, BARE] if sandbox.bare and row.state != "making" else told)
        await self._archives.discard(row)
        return sandbox

    def _other_backend(self, name: str) -> str:
        return (
            f"This session belongs in a {name} sandbox, but this server uses {self._backend.name}. Start Skiff with"
            f" --sandbox {name}."
        )

    async def _make(self, place: Place, spec: Spec, news: list[str]) -> Sandbox:
        session_id = place.session_id
        slot = f"skiff-{session_id.split('_', 1)[1].lower()}"
        row = SandboxRow(session_id, slot, self._backend.name, "", "", "making", news="\n".join(news))
        await self._store.put_sandbox(row)
        making = asyncio.create_task(self._create(place, spec, slot, news), name=f"create sandbox {session_id}")
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            # Broken off half way, a pooled one would be known to nobody: it is recorded first, then let go.
            with suppress(SandboxError):
                await (await making).close()
            raise

    async def _create(self, place: Place, spec: Spec, slot: str, news: list[str]) -> Sandbox:
        sandbox = await self._backend.create(spec.sandbox, slot)
        try:
            await self._mounting.begin_again(place.session_id)
            await self._settle(place, sandbox, news)
        except BaseException:  # it is in no row, or in one that the next attempt will overwrite
            await asyncio.shield(self._backend.destroy(sandbox.ref))
            raise
        return sandbox

    async def _settle(self, place: Place, sandbox: Sandbox, news: list[str]) -> None:
        """Record that this sandbox is live, then place the staged files and what the session was given."""
        ref, session_id = sandbox.ref, place.session_id
        row = SandboxRow(session_id, ref.slot, ref.backend, ref.container, sandbox.incarnation, "live")
        await self._store.put_sandbox(replace(row, news="\n".join(news)))
        place.news, place.told = news, False
        await self._clear_away(session_id, sandbox)
        staged = await self._store.staged_files(session_id)
        for path, content in staged.items():
            call = Call(new_id("stage"), Put(path), body=content)
            result = await sandbox.call(call)
            await sandbox.settle([call.op_id])
            if not result.ok:
                place.news.append(f"The file {path} could not be placed: {result.body.decode('utf-8', 'replace')}")
        if staged:
            await self._store.unstage_files(session_id)
        await self._mounting.bring(session_id, sandbox)

    async def _clear_away(self, session_id: str, sandbox: Sandbox) -> None:
        """Let the runner forget what a server that died left with it: results that are in the log already, and
        operations that nobody waits for. Open calls are not touched; they are asked for again under their ids."""
        if not sandbox.left:
            return
        state = (await view_now(self._store, session_id)).state
        nobodys = sandbox.left.keys() - {call.id for call in state.calls}
        for op_id in nobodys:
            if sandbox.left[op_id] == "running":
                await sandbox.cancel(op_id)
        await sandbox.settle(sorted(nobodys))

    async def remove(self, row: SandboxRow) -> None:
        """Remove a sandbox with its files, wherever they are; the intent to do so is stored."""
        try:
            await self._backend.destroy(reference(row))
        except SandboxError as error:
            logger.warning("removing the sandbox of %s: %s; tried again at the next start", row.session_id, error)
            return
        await self._archives.discard(row)
        await self._store.forget_sandbox(row.session_id)


def _said(row: SandboxRow, sandbox: Sandbox) -> list[str]:
    """What the agent has to be told of a sandbox that was found again, if it has not to be told of the like anyway."""
    if row.state == "stored":
        return [PUT_AWAY]
    return [STOPPED] if row.state in ("live", "stopped") and sandbox.incarnation != row.incarnation else []
