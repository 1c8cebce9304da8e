"""The engine's socket: doors of other processes ring it, ask for files, and hear which sessions have news.

The frames are those of `sandbox.wire` (a JSON header and a body). A request carries `n`, its answer the same `n` and
either `result` or `error` (class name of a server error, and its text); news carry only `news`, a session id. The
socket lies in the data folder, which only its owner may enter: whoever can connect may do everything.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from sandbox.wire import MAX_BODY, Decoder, Frame, encode
from server import errors

logger = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, Any], bytes], Awaitable[tuple[Mapping[str, Any], bytes]]]
"""A request's header and body to the answer's `result` and body. Raises SkiffError leaves."""

SOCKET_NAME_LIMIT = 100
"""Bytes of a unix socket's path: the kernel takes 108, macOS 104."""
MAX_WAITING = 10_000
"""Frames that wait for one slow door before it is let go: it will connect again and look at everything."""
ANSWER_SECONDS = 120.0
"""For an answer: more than the slowest request, which stops a container (45 s) behind another that does."""


def socket_path(data_dir: Path) -> Path:
    """Where the engine of a data folder listens; a short name elsewhere when the folder's own is too long."""
    path = data_dir / "engine.sock"
    if len(os.fsencode(path)) <= SOCKET_NAME_LIMIT:
        return path
    folder = Path(tempfile.gettempdir()) / f"skiff-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise errors.StoreError(f"{folder} belongs to somebody else. Choose a data folder with a shorter path.")
    return folder / f"{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}.sock"


class Doorbell:
    """The engine's end. An async context manager."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        self._handle = handle
        self._doors: dict[asyncio.Task[None], asyncio.Queue[bytes]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Doorbell:
        self._path.unlink(missing_ok=True)  # of an engine that died: this process holds the lock now
        starting = asyncio.ensure_future(asyncio.start_unix_server(self._serve, self._path))
        try:
            self._server = await asyncio.shield(starting)
        except asyncio.CancelledError:
            (await starting).close()
            raise
        self._path.chmod(0o600)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        doors = list(self._doors)
        for door in doors:
            door.cancel()
        if doors:
            await asyncio.wait(doors)
        self._path.unlink(missing_ok=True)

    def tell(self, session_id: str) -> None:
        """This session has news: let every door know."""
        if not self._doors:
            return
        news = encode(Frame({"news": session_id}))
        for door, waiting in list(self._doors.items()):
            if waiting.qsize() > MAX_WAITING:
                door.cancel()
            else:
                waiting.put_nowait(news)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._doors[task] = outgoing
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(_send_all(writer, outgoing))
                async for frame in frames(reader):
                    group.create_task(self._answer(frame, outgoing))
                sending.cancel()
        except* (ConnectionError, asyncio.CancelledError):
            pass  # the door is gone, or we are leaving
        finally:
            del self._doors[task]
            writer.close()

    async def _answer(self, frame: Frame, outgoing: asyncio.Queue[bytes]) -> None:
        """Answer, whatever happens: the door waits. Only when this task itself is ended, the connection ends too."""
        number = frame.header.get("n")
        try:
            result, body = await self._handle(frame.header, frame.body)
            answer = encode(Frame({"n": number, "result": dict(result)}, body))
        except errors.SkiffError as error:
            answer = _refusal(number, type(error).__name__, str(error))
        except (KeyboardInterrupt, SystemExit):
            raise  # the end of this process
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            logger.exception("a request of another process failed")  # what it waited for may have been cancelled
            answer = _refusal(number, "SkiffError", f"The engine failed: {type(error).__name__}: {error}")
        outgoing.put_nowait(answer)


def _refusal(number: Any, kind: str, text: str) -> bytes:
    return encode(Frame({"n": number, "error": [kind, text]}))


class DoorbellClient:
    """A door's end: ask, and hear news. Dies with the engine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked: dict[int, asyncio.Future[Frame]] = {}
        self._numbers = itertools.count(1)  # never twice: a late answer must not be taken for another's

    @classmethod
    async def connect(cls, path: Path) -> DoorbellClient:
        """Raises OSError when no engine listens."""
        return cls(*await asyncio.open_unix_connection(path))

    async def listen(self, on_news: Callable[[str], None]) -> None:
        """Read answers and news until the engine is gone; then every open question fails."""
        try:
            async for frame in frames(self._reader):
                if (session_id := frame.header.get("news")) is not None:
                    on_news(str(session_id))
                elif (asked := self._asked.pop(int(frame.header.get("n", -1)), None)) and not asked.done():
                    asked.set_result(frame)
        except ConnectionError:
            pass  # as if it had ended
        finally:
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(ConnectionResetError("the engine went away"))
            self._asked.clear()
            self._writer.close()

    async def ask(
        self, request: Mapping[str, Any], body: bytes = b"", seconds: float = ANSWER_SECONDS
    ) -> tuple[Mapping[str, Any], bytes]:
        """A request and its answer.

        Raises the error that the engine raised, Conflict when it has not answered after so many seconds, and
        ConnectionError when it goes away.
        """
        if len(body) > MAX_BODY:
            raise errors.InvalidRequest(f"At most {MAX_BODY:,} bytes at once.")
        if self._writer.is_closing():
            raise ConnectionResetError("the engine went away")
        number = next(self._numbers)
        answered = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(encode(Frame({**request, "n": number}, body)))
            async with asyncio.timeout(seconds):
                frame = await answered
        except TimeoutError:
            raise errors.Conflict(
                f"The Skiff process that drives the sessions has not answered for {seconds:.0f} seconds; it may still"
                " do what was asked. Look, and try again."
            ) from None
        finally:
            self._asked.pop(number, None)
        if (failed := frame.header.get("error")) is not None:
            kind = getattr(errors, str(failed[0]), errors.SkiffError)
            raise kind(str(failed[1]))
        return frame.header.get("result", {}), frame.body


async def _send_all(writer: asyncio.StreamWriter, outgoing: asyncio.Queue[bytes]) -> None:
    while True:
        writer.write(await outgoing.get())
        await writer.drain()


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    """The frames of a stream, to its end."""
    decoder = Decoder()
    while data := await reader.read(1 << 16):
        for frame in decoder.feed(data):
            yield frame
