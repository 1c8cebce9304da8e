"""The use-cases of files: uploads, what sessions are given, and what they hand out.

Above: the REST door, and `sessions.service` for what a new session is given. Below: the tables, the folder of blobs,
and a link to the engine, for outputs lie in sandboxes. An upload is only ever given to sessions, never handed out
again; what a session wrote to its folder of outputs is read from there whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sandbox.wire import OUTPUTS
from server.errors import Conflict, InvalidRequest, NotFound, NotSupported, Refused, SkiffError, coded
from server.files import wire
from server.files.blobs import Blobs, Incoming, to_its_end
from server.files.collecting import collect
from server.ids import new_id, now
from server.room import Room
from server.sessions import resources
from server.sessions.inputs import Uploaded
from server.sessions.resources import AskedFile
from server.sessions.sandboxing.workspace import File, Folder
from server.store.answers import Keep
from server.store.database import Cursor
from server.store.files import FileRow, FileTable, Seen
from server.store.resources import NewResource, ResourceRow, ResourceTable, insert_resources
from server.store.store import SessionRow, Store

EXPIRES_LEAST, EXPIRES_MOST = 3_600, 7_776_000
"""Seconds after which an upload may expire, as the hosted service has them: one hour to ninety days."""
PORTION = 1 << 20
"""Bytes of an output that are asked of the engine at once: a file may be larger than memory."""
MAX_SHOWN = 32 << 20
"""Bytes of all files that the events of one request show to the model: it takes no larger requests."""
MOST_IDS = 100
"""Ids that one list request may name, as the hosted service has it."""


@dataclass(frozen=True)
class FileRules:
    """What the operator's settings say about files."""

    max_bytes: int = 500_000_000
    """Of one upload."""
    max_inputs_bytes: int = 2_000_000_000
    """Of all files that one session is given."""
    git_hosts: Mapping[str, str] = field(default_factory=lambda: {"github.com": "https://github.com"})
    """Hosts that repositories may be fetched from, each with the address where it is really reached."""


@dataclass(frozen=True)
class Content:
    """The bytes of a file on their way out."""

    filename: str
    mime_type: str
    size: int
    portions: AsyncIterator[bytes]


@dataclass(frozen=True)
class Given:
    """What a session that is about to be made is given."""

    resources: Sequence[NewResource] = ()
    lines: Sequence[str] = ()
    """For the agent: what lies where."""
    max_bytes: int = 0

    def insert(self, cursor: Cursor, session_id: str) -> None:
        """Write it, in the transaction that makes the session. Raises NotFound, InvalidRequest."""
        insert_resources(cursor, session_id, self.resources, resources.MOST_FILES, self.max_bytes)


class FilesLink(Protocol):
    """The way to the engine, as far as files need it."""

    async def outputs(self, row: SessionRow) -> list[Seen]:
        """Every file below the session's folder of outputs; none when its sandbox was never made."""

    async def remove_output(self, row: SessionRow, path: str) -> None:
        """Delete one of them."""

    async def read_workspace(self, row: SessionRow, path: str, after: str, offset: int, limit: int) -> Folder | File:
        """See `Workspaces.read`."""

    async def mount(self, row: SessionRow) -> None:
        """Bring the session's resources into its sandbox, if that is live; else they come when it is."""


class Files:
    """The use-cases."""

    def __init__(
        self,
        store: Store,
        table: FileTable,
        given: ResourceTable,
        blobs: Blobs,
        engine: FilesLink,
        rules: FileRules,
        room: Room,
    ) -> None:
        self._store = store
        self._table = table
        self._given = given
        self._blobs = blobs
        self._engine = engine
        self._rules = rules
        self._room = room

    @property
    def max_bytes(self) -> int:
        """The largest upload."""
        return self._rules.max_bytes

    # --- files --------------------------------------------------------------------------------------------------------

    def receiving(self) -> AbstractAsyncContextManager[Incoming]:
        """A place for the bytes of an upload; what is not given to `keep` within the block is gone after it.

        Writing to it raises TooLarge over the bound, and NoRoom once the disk is nearly full.
        """
        return self._blobs.receiving(self._rules.max_bytes, self._room.check)

    async def keep(
        self,
        incoming: Incoming,
        filename: str,
        mime_type: str,
        expires_in_seconds: int | None,
        keep: Keep | None = None,
    ) -> dict[str, Any]:
        """Make an upload of what came in, and keep the answer with it. Raises InvalidRequest for a bad expiry."""
        if expires_in_seconds is not None and not EXPIRES_LEAST <= expires_in_seconds <= EXPIRES_MOST:
            raise InvalidRequest(f"expires_in_seconds: must be from {EXPIRES_LEAST} to {EXPIRES_MOST}.")
        await self.collect()
        filename, mime_type = wire.name_and_type(filename, mime_type)
        at = now()
        blob = await incoming.keep()
        row = FileRow(
            new_id("file"), filename, mime_type, incoming.size, at, _expiry(at, expires_in_seconds), blob=blob
        )
        answer = wire.file(row)
        also = None if keep is None else lambda cursor: keep(cursor, answer)
        await to_its_end(self._table.add(row, also))  # the bytes are let go of only when they are somebody's
        return answer

    async def files(
        self, limit: int, after: tuple[str, str] | None, order: str, *, scope_id: str | None = None
    ) -> list[dict[str, Any]]:
        """A page of files by age: all that are known, or those of a session, its newest outputs included."""
        if scope_id is not None and after is None:
            with suppress(NotFound):
                await self._refresh(await self._store.session(scope_id))
        found = await self._table.files(limit=limit, after=after, order=order, session_id=scope_id)
        return [wire.file(row) for row in found]

    async def named(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Those of these files that exist. Raises InvalidRequest when more than MOST_IDS are named."""
        distinct = list(dict.fromkeys(ids))
        if len(distinct) > MOST_IDS:
            raise InvalidRequest(f"ids[]: at most {MOST_IDS} different ids can be named at once.")
        return [wire.file(row) for row in await self._table.named(distinct)]

    async def file(self, file_id: str) -> dict[str, Any]:
        """What is known of a file; of an output, as it is now where its sandbox can be asked. Raises NotFound."""
        return wire.file(await self._current(file_id))

    async def content(self, file_id: str) -> Content:
        """The bytes of a session's output.

        Raises NotFound (`file_expired` for an expired upload), InvalidRequest (`file_not_downloadable` for an upload),
        Conflict when the sandbox cannot be reached.
        """
        row = await self._row(file_id)
        if _expired(row):
            raise _gone(file_id)
        if row.path is None or row.session_id is None:
            raise coded(
                InvalidRequest(f"File {file_id} was uploaded: only what a session wrote can be downloaded."),
                "file_not_downloadable",
            )
        session = await self._store.session(row.session_id)
        first = await self._portion(session, row.path, 0)
        return Content(row.filename, row.mime_type, first.size, self._portions(session, row.path, first))

    async def delete(self, file_id: str) -> dict[str, Any]:
        """Delete a file: an output in its sandbox too. Raises NotFound, Refused for a copy that a session was given."""
        row = await self._row(file_id)
        if row.path is not None and row.session_id is not None:
            await self._engine.remove_output(await self._store.session(row.session_id), row.path)
        if not await self._table.remove(file_id):
            raise Refused(f"File {file_id} is mounted in session {row.session_id}. Delete the session's resource.")
        await self.collect()
        return {"id": file_id, "type": "file_deleted"}

    async def uploads(self, ids: Sequence[str]) -> dict[str, Uploaded]:
        """Those of these files that are there, whole, for messages that show them to the model.

        Raises InvalidRequest when they have more than MAX_SHOWN bytes in all.
        """
        rows = [row for row in await self._table.named(ids) if not _expired(row)]
        if sum(row.size_bytes for row in rows) > MAX_SHOWN:
            raise InvalidRequest(f"The files of these events have more than {MAX_SHOWN >> 20} MiB in all.")
        return {row.id: Uploaded(row.mime_type, await self._whole(row)) for row in rows}

    async def _whole(self, row: FileRow) -> bytes:
        kept = row.blob is not None
        portions = self._blobs.portions(row.blob or "") if kept else (await self.content(row.id)).portions
        return b"".join([portion async for portion in portions])

    async def collect(self) -> None:
        """Remove the bytes of expired files, and those that are no file's any more."""
        await collect(self._table, self._blobs)

    # --- what sessions are given --------------------------------------------------------------------------------------

    async def prepare(self, asked: Sequence[Any]) -> Given:
        """Check the `resources` of a session that is to be made.

        Raises NotFound for an upload that is not there, NotSupported, InvalidRequest.
        """
        found = resources.read(asked, self._rules.git_hosts)
        new = []
        for item in found:
            if isinstance(item, AskedFile):
                new.append(await self._copy(item))
            else:
                new.append(NewResource(new_id("sesrsc"), "github_repository", item.body, secret=item.token))
        return Given(new, resources.describe(found), self._rules.max_inputs_bytes)

    async def _copy(self, asked: AskedFile) -> NewResource:
        source = await self._row(asked.file_id)
        if _expired(source):
            raise _gone(asked.file_id)
        if source.blob is None:
            raise NotSupported(
                f"file_id: {asked.file_id} is an output of session {source.session_id}, which cannot be mounted."
                " Download it, and upload it again."
            )
        copy = new_id("file")
        body = {"file_id": copy, "mount_path": asked.mount_path}
        return NewResource(new_id("sesrsc"), "file", body, source=source.id, file_id=copy)

    async def resources_of(self, session_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """What each of these sessions was given, as the API shows it."""
        found = await self._given.of_sessions(session_ids)
        return {session_id: [wire.resource(row) for row in rows] for session_id, rows in found.items()}

    async def resources(self, session_id: str, limit: int, after: tuple[str, str] | None) -> list[dict[str, Any]]:
        """A page of what a session was given, oldest first. Raises NotFound."""
        await self._store.session(session_id)
        rows = [row for row in await self._given.resources(session_id) if after is None or _at(row) > after]
        return [wire.resource(row) for row in rows[:limit]]

    async def resource(self, session_id: str, resource_id: str) -> dict[str, Any]:
        """Raises NotFound."""
        return wire.resource(await self._resource(session_id, resource_id))

    async def add_resource(self, session_id: str, asked: Mapping[str, Any], keep: Keep | None = None) -> dict[str, Any]:
        """Mount one more file, in a live sandbox at once, and keep the answer with it.

        Raises NotFound, InvalidRequest, Conflict when archived.
        """
        session = await self._open(session_id)
        new = await self._copy(resources.read_file(asked))
        most, most_bytes = resources.MOST_FILES, self._rules.max_inputs_bytes
        also = None if keep is None else lambda cursor, row: keep(cursor, wire.resource(row))
        row = await self._given.add(session_id, new, most, most_bytes, also)
        await self._mount(session)
        return wire.resource(row)

    async def rotate_token(self, session_id: str, resource_id: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Fetch a repository with another token from now on; one that could not be fetched is tried again."""
        session = await self._open(session_id)
        row = await self._resource(session_id, resource_id)
        if row.type != "github_repository":
            raise InvalidRequest("Only a github_repository has an authorization_token to be updated.")
        updated = await self._given.set_secret(session_id, resource_id, resources.read_token(asked))
        await self._mount(session)
        return wire.resource(updated or row)

    async def delete_resource(self, session_id: str, resource_id: str) -> dict[str, Any]:
        """Unmount a file. Raises NotFound, InvalidRequest for a repository, Conflict when archived."""
        session = await self._open(session_id)
        row = await self._resource(session_id, resource_id)
        if row.type != "file":
            raise InvalidRequest("A github_repository stays for the life of its session; only files can be deleted.")
        await self._given.remove(session_id, resource_id)
        await self.collect()
        await self._mount(session)
        return {"id": resource_id, "type": "session_resource_deleted"}

    # --- parts --------------------------------------------------------------------------------------------------------

    async def _open(self, session_id: str) -> SessionRow:
        session = await self._store.session(session_id)
        if session.archived_at:
            raise Conflict(f"Session {session_id} is archived: its resources cannot be changed.")
        return session

    async def _mount(self, session: SessionRow) -> None:
        with suppress(Conflict):  # no engine now, or no sandbox: what is stored is done when there is one
            await self._engine.mount(session)

    async def _row(self, file_id: str) -> FileRow:
        row = await self._table.file(file_id)
        if row is None:
            raise NotFound(f"File not found: {file_id}.")
        return row

    async def _current(self, file_id: str) -> FileRow:
        row = await self._row(file_id)
        if row.path is not None and row.session_id is not None:
            with suppress(Conflict):  # the sandbox cannot be asked now: as it was last seen
                await self._refresh(await self._store.session(row.session_id))
            return await self._row(file_id)
        return row

    async def _refresh(self, session: SessionRow) -> None:
        await self._table.reconcile(session.id, await self._engine.outputs(session))

    async def _resource(self, session_id: str, resource_id: str) -> ResourceRow:
        await self._store.session(session_id)
        row = await self._given.resource(session_id, resource_id)
        if row is None:
            raise NotFound(f"Resource not found: {resource_id}.")
        return row

    async def _portion(self, session: SessionRow, path: str, offset: int) -> File:
        found = await self._engine.read_workspace(session, f"{OUTPUTS}/{path}", "", offset, PORTION)
        if not isinstance(found, File):
            raise NotFound(f"{path} is no file any more.")
        return found

    async def _portions(self, session: SessionRow, path: str, first: File) -> AsyncGenerator[bytes]:
        """As many bytes as the file had when it was asked for. Raises Conflict when it shrinks meanwhile."""
        sent, portion = 0, first
        while sent < first.size:
            data = portion.content[: first.size - sent]
            if not data:
                raise Conflict(f"{path} became shorter while it was read.")
            yield data
            sent += len(data)
            if sent < first.size:
                portion = await self._portion(session, path, sent)


def _expiry(at: str, seconds: int | None) -> str | None:
    if seconds is None:
        return None
    moment = datetime.fromisoformat(at).astimezone(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _expired(row: FileRow) -> bool:
    return row.expires_at is not None and row.expires_at <= now()


def _gone(file_id: str) -> SkiffError:
    return coded(NotFound(f"File {file_id} has expired. Upload it again."), "file_expired")


def _at(row: ResourceRow) -> tuple[str, str]:
    return row.created_at, row.id
