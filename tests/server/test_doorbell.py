"""The engine's socket: questions and news, between real processes where it matters."""

from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox.wire import MAX_BODY
from server.app import running
from server.engine import role
from server.engine.doorbell import SOCKET_NAME_LIMIT, Doorbell, DoorbellClient, socket_path
from server.errors import Conflict, InvalidRequest, NotFound, SkiffError
from server.settings import load
from tests.support.factories import PATIENCE
from tests.support.scenario import eventually

ENGINE = """
import asyncio, sys
from pathlib import Path
from server.engine.doorbell import Doorbell

async def main():
    async def handle(header, body):
        if header["do"] == "never":
            await asyncio.Event().wait()
        bell.tell("sesn_of_" + header["do"])
        return {"did": header["do"]}, body[::-1]
    async with Doorbell(Path(sys.argv[1]), handle) as bell:
        print("open", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_door_asks_and_hears_another_process_and_notices_its_death(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "engine.sock"
        engine = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ENGINE, str(path), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert engine.stdout is not None
            assert await engine.stdout.readline() == b"open\n"
            client = await DoorbellClient.connect(path)
            news: asyncio.Queue[str] = asyncio.Queue()
            listening = asyncio.create_task(client.listen(news.put_nowait))
            assert await client.ask({"do": "work"}, b"abc" * 100_000) == ({"did": "work"}, b"cba" * 100_000)
            assert await news.get() == "sesn_of_work"
            waiting = asyncio.create_task(client.ask({"do": "never"}))
            await client.ask({"do": "more"})
            engine.kill()
            await listening
            with pytest.raises(ConnectionError):
                await waiting
            with pytest.raises(ConnectionError):
                await client.ask({"do": "late"})
        finally:
            if engine.returncode is None:
                engine.kill()
            await engine.wait()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_errors_cross_the_socket_as_what_they_are_and_answers_find_their_questions(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    kinds: Mapping[str, Exception] = {"missing": NotFound("no x"), "busy": Conflict("busy"), "bug": ValueError("oops")}
    later = asyncio.Event()

    async def handle(header: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        if header["do"] in kinds:
            raise kinds[header["do"]]
        if header["do"] == "slow":
            await later.wait()
        else:
            later.set()
        return {"did": header["do"]}, b""

    async def scenario() -> None:
        async with Doorbell(path, handle):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            client = await DoorbellClient.connect(path)
            listening = asyncio.create_task(client.listen(lambda _: None))
            for name, kind in (("missing", NotFound), ("busy", Conflict), ("bug", SkiffError)):
                with pytest.raises(kind):
                    await client.ask({"do": name})
            answers = await asyncio.gather(client.ask({"do": "slow"}), client.ask({"do": "quick"}))
            assert [answer["did"] for answer, _ in answers] == ["slow", "quick"]
            with pytest.raises(InvalidRequest):
                await client.ask({"do": "big"}, b"x" * (MAX_BODY + 1))
        await listening
        assert not path.exists()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_the_socket_of_a_dead_engine_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"

    async def handle(header: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        return {}, b""

    async def scenario() -> None:
        (path).touch()
        async with Doorbell(path, handle):
            client = await DoorbellClient.connect(path)
            listening = asyncio.create_task(client.listen(lambda _: None))
            assert await client.ask({}) == ({}, b"")
        await listening

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_folder_with_a_long_name_gets_a_short_socket_always_the_same(tmp_path: Path) -> None:
    short = socket_path(Path("/d"))
    assert short == Path("/d/engine.sock")
    long = tmp_path / ("x" * 200)
    assert socket_path(long) == socket_path(long)
    assert socket_path(long) != socket_path(tmp_path / ("y" * 200))
    assert len(str(socket_path(long))) <= SOCKET_NAME_LIMIT


def test_a_question_is_answered_even_when_what_it_waited_for_was_cancelled_or_cannot_be_said(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"

    async def handle(header: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        if header["do"] == "cancelled":
            raise asyncio.CancelledError
        if header["do"] == "strange":
            raise BaseExceptionGroup("several", [asyncio.CancelledError(), GeneratorExit()])
        if header["do"] == "unsayable":
            return {"no json": object()}, b""
        if header["do"] == "too much":
            return {}, b"x" * (MAX_BODY + 1)
        return {}, b""

    async def scenario() -> None:
        async with Doorbell(path, handle):
            client = await DoorbellClient.connect(path)
            listening = asyncio.create_task(client.listen(lambda _: None))
            for name in ("cancelled", "strange", "unsayable", "too much"):
                with pytest.raises(SkiffError, match="The engine failed"):
                    await client.ask({"do": name})
            assert await client.ask({"do": "well"}) == ({}, b"")
        await listening

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_an_engine_that_does_not_answer_in_time_is_said_so_and_its_late_answer_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    later = asyncio.Event()

    async def handle(header: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        if header["do"] == "slow":
            await later.wait()
        else:
            later.set()
            await asyncio.sleep(0)  # the late answer goes first
        return {"did": header["do"]}, b""

    async def scenario() -> None:
        async with Doorbell(path, handle):
            client = await DoorbellClient.connect(path)
            listening = asyncio.create_task(client.listen(lambda _: None))
            with pytest.raises(Conflict, match="has not answered"):
                await client.ask({"do": "slow"}, seconds=0.01)
            assert await client.ask({"do": "next"}) == ({"did": "next"}, b"")
        await listening

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_ring_that_the_engine_does_not_answer_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "WAKE_SECONDS", 0.01)
    rung = asyncio.Event()

    async def handle(header: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
        if header["do"] == "wake":
            rung.set()
            await asyncio.Event().wait()
        return {"backend": "any"}, b""

    async def scenario() -> None:
        settings = load(data_dir=tmp_path, sandbox="local", model="scripted")
        async with Doorbell(socket_path(settings.data_dir), handle), running(settings, lead=False) as app:
            assert await app.role.backend() == "any"
            await app.role.wake("sesn_any")
            assert rung.is_set()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_what_keeps_the_engine_from_starting_is_told_to_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role, "READY_SECONDS", 0.01)

    async def scenario() -> None:
        settings = load(data_dir=tmp_path, sandbox="local", model="scripted", prices=tmp_path / "missing.json")
        async with running(settings) as app:

            async def told() -> str:
                return app.role.trouble

            await eventually(told)
            with pytest.raises(Conflict, match=r"missing\.json"):
                await app.role.backend()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
