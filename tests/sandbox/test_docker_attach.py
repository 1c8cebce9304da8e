"""The engine's attach stream, taken apart: a small server speaks the engine's side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandbox.docker.attach import STDERR_BYTES, AttachStream, attach
from sandbox.docker.endpoint import Endpoint
from sandbox.errors import ProtocolError, SandboxGone, SandboxUnavailable

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def with_engine(folder: Path, answer: bytes, story: Callable[[AttachStream], Awaitable[None]]) -> list[bytes]:
    """Run the story on a stream of an engine that says `answer`; returns what the engine was sent."""
    heard: list[bytes] = []
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.write_eof()
        heard.append(await reader.read())
        writer.close()
        await writer.wait_closed()
        served.set()

    async def main() -> None:
        path = str(folder / "engine.sock")
        async with await asyncio.start_unix_server(serve, path), asyncio.timeout(5):
            try:
                stream = await attach(Endpoint(socket=path), "abc", "1.41")
                try:
                    await story(stream)
                finally:
                    await stream.close()
            finally:
                await served.wait()

    asyncio.run(main())
    return heard


async def everything(stream: AttachStream) -> bytes:
    data = b""
    while portion := await stream.read():
        data += portion
    return data


def test_stdout_comes_through_and_stderr_goes_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(stream: AttachStream) -> None:
        assert await everything(stream) == b"\x00\xffone two"
        assert stream.write(b"in")

    answer = UPGRADED + frame(1, b"\x00\xffone ") + frame(1, b"") + frame(2, b"trouble") + frame(1, b"two")
    heard = with_engine(tmp_path, answer, story)
    assert heard[0].startswith(b"POST /v1.41/containers/abc/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\n")
    assert "trouble" in caplog.text


def test_a_flood_on_stderr_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(stream: AttachStream) -> None:
        assert await everything(stream) == b"still here"

    caplog.set_level(logging.WARNING)
    with_engine(tmp_path, UPGRADED + frame(2, b"x" * STDERR_BYTES) * 4 + frame(1, b"still here"), story)
    assert caplog.text.count("x") < STDERR_BYTES + 1000


def test_a_stream_cut_in_a_header_has_ended(tmp_path: Path) -> None:
    async def story(stream: AttachStream) -> None:
        assert await everything(stream) == b"whole"

    with_engine(tmp_path, UPGRADED + frame(1, b"whole") + b"\x01\x00\x00", story)


def test_what_is_not_the_engines_format_is_refused(tmp_path: Path) -> None:
    async def story(stream: AttachStream) -> None:
        with pytest.raises(ProtocolError, match="out of step"):
            await stream.read()

    with_engine(tmp_path, UPGRADED + b"not a stream at all", story)


def test_an_unknown_container_is_gone(tmp_path: Path) -> None:
    async def story(stream: AttachStream) -> None:
        raise AssertionError("attached")

    body = b'{"message":"No such container: abc"}'
    head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with pytest.raises(SandboxGone, match="No such container"):
        with_engine(tmp_path, head + body, story)


def test_no_engine_at_the_socket_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="make engine"):
        asyncio.run(attach(Endpoint(socket=str(tmp_path / "none")), "abc", "1.41"))


def test_what_cannot_be_written_any_more_is_said(tmp_path: Path) -> None:
    async def story(stream: AttachStream) -> None:
        await stream.close()
        with pytest.raises(ConnectionError):
            stream.write(b"in")

    with_engine(tmp_path, UPGRADED, story)
