"""Clients that are sloppy, broken or hostile, on real sockets: what they get, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
import httpx2
import pytest
import uvicorn
from starlette.types import Send

from server.doors import http
from tests.support.cast import TOOLSET, Cast, told
from tests.support.judged import refused
from tests.support.scenario import bash, call, eventually
from tests.support.served import BETA, TOKEN, VERSION, Site

FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def cast(site: Site) -> Iterator[Cast]:
    with site.client() as client:
        yield Cast(client, tools=[TOOLSET])


@contextlib.contextmanager
def connected(site: Site) -> Iterator[socket.socket]:
    address = httpx2.URL(site.url)
    with socket.create_connection((address.host, address.port or 80), timeout=60) as made:
        yield made


def head(site: Site, line: str, **more: object) -> bytes:
    """The head of a good request, with more headers."""
    given = {"host": httpx2.URL(site.url).netloc.decode(), "authorization": f"Bearer {TOKEN}"}
    given |= {"anthropic-beta": BETA, "anthropic-version": VERSION, "connection": "close"}
    given |= {name.replace("_", "-"): str(value) for name, value in more.items()}
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in given.items()), "", ""]).encode()


def heard(peer: socket.socket) -> bytes:
    """All that comes until the server closes."""
    return b"".join(iter(lambda: peer.recv(1 << 16), b""))


def begin_upload(site: Site, peer: socket.socket, length: int) -> None:
    kind = "multipart/form-data; boundary=b"
    peer.sendall(head(site, "POST /v1/files HTTP/1.1", content_length=length, content_type=kind))


def files(site: Site) -> list[Path]:
    return sorted((site.machine.folder / "files").glob("*"))


def peak(site: Site) -> int:
    """The most memory that the server has had, in MiB."""
    status = Path(f"/proc/{site.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def test_an_upload_costs_no_memory_however_large_it_is(site: Site, cast: Cast) -> None:
    before, portion, tail = peak(site), b"\r\n--c" * (MEBIBYTE // 5), b"\r\n--b--\r\n"
    opening = FORM % b"large.bin"
    with connected(site) as peer:
        begin_upload(site, peer, len(opening) + 200 * len(portion) + len(tail))
        peer.sendall(opening)
        for _ in range(200):
            peer.sendall(portion)
        peer.sendall(tail)
        assert heard(peer).startswith(b"HTTP/1.1 200")
    (made,) = [file for file in cast.client.beta.files.list() if file.filename == "large.bin"]
    assert made.size_bytes == 200 * len(portion)
    cast.client.beta.files.delete(made.id)
    assert peak(site) - before < 100, "MiB, for 200 that came"


@pytest.mark.parametrize("sent", [0, 1, 50, 3 * MEBIBYTE])
def test_an_upload_that_is_cut_leaves_no_trace(site: Site, cast: Cast, sent: int) -> None:
    before, known = files(site), [file.id for file in cast.client.beta.files.list()]
    with connected(site) as peer:
        begin_upload(site, peer, 10 * MEBIBYTE)
        peer.sendall((FORM % b"cut.bin" + bytes(3 * MEBIBYTE))[:sent])

    async def gone() -> bool:
        return files(site) == before

    asyncio.run(eventually(gone, "no bytes of it"))
    assert [file.id for file in cast.client.beta.files.list()] == known


def test_a_name_in_any_script_survives_being_sent_byte_by_byte(site: Site) -> None:
    name = "na\u00efve \u65e5\u672c\u8a9e \U0001f4a9.txt"
    body = FORM % name.encode() + b"x\r\n--b--\r\n"
    with connected(site) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin_upload(site, peer, len(body))
        for byte in body:
            peer.sendall(bytes([byte]))
        assert name.encode() in heard(peer)


def test_a_download_that_nobody_takes_to_its_end_disturbs_nobody(site: Site, cast: Cast) -> None:
    write, already = "head -c 20000000 /dev/zero > /mnt/session/outputs/zeros", len(site.said)
    session = cast.rested(call(bash(write)), {"say": "ok"})
    (file,) = cast.client.beta.files.list(scope_id=session.id, betas=[BETA])
    ask = head(site, f"GET /v1/files/{file.id}/content HTTP/1.1")
    for _ in range(3):
        with connected(site) as peer:
            peer.sendall(ask)
            assert peer.recv(100)
    assert len(cast.client.beta.files.download(file.id).read()) == 20_000_000
    with connected(site) as peer:
        peer.sendall(ask)
        assert peer.recv(100)
        cast.turn(session.id, told(call(bash("truncate -s 1 /mnt/session/outputs/zeros")), {"say": "ok"}))
        assert len(heard(peer)) < 20_000_000
    assert "Traceback" not in "".join(site.said[already:])


def test_an_encoded_slash_in_an_id_is_no_path(site: Site, cast: Cast) -> None:
    with site.http() as http:
        for path in (f"{cast.agent.id}%2Fversions", "..%2f..%2Fmetrics"):
            answer = http.get(f"/v1/agents/{path}")
            assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Not found")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_watchers_paths_refuse_other_methods_in_the_envelope(site: Site, path: str) -> None:
    with site.http() as http:
        answer = http.post(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "invalid_request_error")
    assert answer.json()["request_id"] == answer.headers["request-id"] and answer.headers["allow"] == "GET, HEAD"


def test_a_body_of_millions_of_values_is_refused_before_they_are_made(site: Site) -> None:
    before = peak(site)
    with site.http(content_type="application/json") as http:
        answer = http.post("/v1/agents", content=b'{"name": [' + b"[]," * (10 << 20) + b"[]]}")
    assert answer.status_code == 400 and "500,000 values" in answer.json()["error"]["message"]
    assert peak(site) - before < 200, "MiB, for the 31 of the body"


def test_a_compressed_body_is_refused_with_the_wires_code(site: Site) -> None:
    forms: list[tuple[str, Mapping[str, str]]] = [
        ("/v1/agents", {"content-type": "application/json"}),
        ("/v1/files", {"content-type": "multipart/form-data; boundary=b"}),
    ]
    with site.http(content_encoding="gzip") as http:
        for path, headers in forms:
            error = http.post(path, content=b"x", headers=headers).json()["error"]
            assert error["details"] == {"error_code": "request_body_encoding_unsupported"}


def test_whoever_begins_a_head_and_does_not_go_on_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.05)

    async def run() -> None:
        async def echo(scope: object, receive: object, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

        config = uvicorn.Config(echo, http=http._Connection, lifespan="off", log_config=None, ws="none")
        with http.listen("127.0.0.1", 0) as listener:
            port, server = listener.getsockname()[1], http._Server(config, lambda: None)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            for begun in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(begun)
                async with asyncio.timeout(30):
                    said = await reader.read()
                assert said.endswith(b"ok") == (b"\r\n\r\n" in begun)
                writer.close()
            server.should_exit = True
            await task

    asyncio.run(run())


def test_one_key_sent_by_many_at_once_makes_one_session(site: Site, cast: Cast) -> None:
    beta, headers = cast.client.beta, {"Idempotency-Key": "hostile-crowd"}

    def make(_: int) -> str:
        return beta.sessions.create(agent=cast.agent.id, environment_id=cast.environment.id, extra_headers=headers).id

    with ThreadPoolExecutor(8) as crowd:
        assert len(set(crowd.map(make, range(16)))) == 1


def test_the_place_of_a_cursor_is_within_the_filter_or_refused(site: Site, cast: Cast) -> None:
    session = cast.rested()
    first = cast.events.list(session.id, limit=2)
    with site.http() as http:
        where = {"page": first.next_page or "", "created_at[gt]": "2100-01-01T00:00:00Z"}
        answer = http.get(f"/v1/sessions/{session.id}/events", params=where)
    assert answer.status_code == 400 and "created_at" in answer.json()["error"]["message"]
    other = cast.rested()
    refused(400, lambda: cast.events.list(other.id, page=first.next_page), "invalid page cursor")


def test_secrets_are_in_no_answer_and_no_log(site: Site, cast: Cast) -> None:
    token = "ghp_hostile0123456789"
    given = {"type": "github_repository", "url": "https://github.com/a/b", "authorization_token": token}
    session = cast.session(resources=[given])
    (resource,) = [each for each in session.resources if each.type == "github_repository"]
    path = f"/v1/sessions/{session.id}"
    asked: list[object] = [{"authorization_token": f"{token} x"}, {"authorization_token": [token]}]
    with site.http() as http:
        said = [http.get(p).text for p in (path, f"{path}/resources", f"{path}/events", "/v1/sessions", "/metrics")]
        said += [http.post(f"{path}/resources/{resource.id}", json=each).text for each in asked]
        said += [
            http.post("/v1/sessions", json={"resources": [{**given, "url": f"https://{token}@github.com/a"}]}).text
        ]
    with pytest.raises(anthropic.AuthenticationError) as wrong:
        site.client(key=f"{TOKEN}-wrong").beta.agents.list()
    said += [str(wrong.value), *site.said]
    assert not [text for text in said if token in text or TOKEN in text]
