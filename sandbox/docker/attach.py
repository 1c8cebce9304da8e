"""A container's stdin and stdout as a byte stream: the engine's attach call, upgraded to a raw connection.

Above: `container`, which puts a `sandbox.channel` on it. Below: `endpoint`, `sending`, asyncio. It frames nothing of
ours: it takes the engine's own 8-byte stream headers off and gives the runner's stdout as it came. docker-py is not
used here: its attach blocks a thread for as long as the sandbox lives.
"""

from __future__ import annotations

import asyncio
import logging
import re
import struct

from sandbox.docker.endpoint import Endpoint
from sandbox.docker.failure import classify
from sandbox.errors import ProtocolError, SandboxUnavailable
from sandbox.sending import send

_HEAD = struct.Struct("!BxxxI")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_STDOUT, _STDERR, _ENGINE = 1, 2, 3

PORTION = 256 << 10
"""Bytes taken at once: larger ones were no faster, and a follower sees its first output sooner."""
STDERR_BYTES = 16 << 10
"""A healthy runner writes nothing there; a traceback fits. What comes after is a hostile flood and is dropped."""
CLOSE_SECONDS = 1.0

log = logging.getLogger("skiff.sandbox.docker")


class AttachStream:
    """A `sandbox.channel.Transport` over one attached container."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, container: str) -> None:
        self._reader = reader
        self._writer = writer
        self._container = container
        self._kind = 0
        self._left = 0
        self.complaints = b""
        """What came on stderr, up to STDERR_BYTES."""

    async def read(self) -> bytes:
        """The next portion of the runner's output; b"" when the container or the engine ended the stream.

        Raises ProtocolError when what comes is not the engine's stream format.
        """
        while True:
            try:
                portion = await self._portion()
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                return b""
            if portion and self._kind != _STDOUT:
                self._complain(portion)
                continue
            return portion

    async def _portion(self) -> bytes:
        while not self._left:
            kind, self._left = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
            if kind not in (_STDOUT, _STDERR, _ENGINE):
                raise ProtocolError(f"the engine's attach stream of {self._container} is out of step (stream {kind})")
            self._kind = kind
        portion = await self._reader.read(min(self._left, PORTION))
        self._left -= len(portion)
        return portion

    def _complain(self, portion: bytes) -> None:
        heard = portion[: STDERR_BYTES - len(self.complaints)]
        self.complaints += heard
        if heard:
            log.warning("runner in %s wrote to stderr: %r", self._container, heard)

    def write(self, data: bytes) -> bool:
        """Send to the runner's stdin. Whether the kernel took all of it. Raises ConnectionError when the stream is
        closed."""
        return send(self._writer, data)

    async def drain(self) -> None:
        """Wait until the connection's buffer has room again. Raises ConnectionError when the stream is closed."""
        await self._writer.drain()

    async def close(self) -> None:
        """Let go. The container lives on; bytes that it writes while nobody is attached are lost."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


async def attach(endpoint: Endpoint, container: str, api: str) -> AttachStream:
    """Attach to a created or running container. The caller bounds the wait.

    container is an id or a name, api the engine's API version. Raises SandboxUnavailable when the engine does not
    answer, SandboxGone when it does not know the container.
    """
    if not _CONTAINER.fullmatch(container):
        raise ValueError(f"not a container's id or name: {container!r}")
    try:
        reader, writer = await _dial(endpoint)
    except OSError as error:
        raise classify(0, error.strerror or str(error), "attach") from error
    try:
        writer.write(_request(endpoint, container, api))
        await writer.drain()
        status, reason = await _answer(reader)
        if status not in (101, 200):
            raise classify(status, reason, f"attach to {container}")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
        writer.close()
        raise SandboxUnavailable(f"the engine broke off while attaching to {container}: {error}") from error
    except BaseException:
        writer.close()
        raise
    return AttachStream(reader, writer, container)


async def _dial(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.socket:
        return await asyncio.open_unix_connection(endpoint.socket, limit=PORTION)
    tls = endpoint.tls.context() if endpoint.tls else None
    return await asyncio.open_connection(endpoint.host, endpoint.port, ssl=tls, limit=PORTION)


def _request(endpoint: Endpoint, container: str, api: str) -> bytes:
    lines = (
        f"POST /v{api}/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1",
        f"Host: {endpoint.host or 'engine'}",
        "Connection: Upgrade",
        "Upgrade: tcp",
        "Content-Length: 0",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and, for a refusal, the engine's words."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, _, fields = head.partition("\r\n")
    words = first.split(" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if status in (101, 200):
        return status, ""
    length = re.search(r"(?im)^content-length:\s*(\d+)", fields)
    body = await reader.readexactly(min(int(length[1]), 4096)) if length else b""
    return status or 500, body.decode(errors="replace") or first
