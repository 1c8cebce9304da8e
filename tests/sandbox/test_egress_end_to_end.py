"""From a client inside to a server outside: listener, frames, mux and proxy together, in one process.

The listener runs on its own selector in a thread, as in the runner; frames travel over a socket pair; the origin server
is a real one on loopback, which an injected address rule lets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import selectors
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from sandbox.egress.dial import Dialer, reachable
from sandbox.egress.mux import NetMux
from sandbox.egress.policy import parse_policy
from sandbox.egress.proxy import Proxy
from sandbox.protocol import NetworkPolicy
from sandbox.runner.net import NetListener
from sandbox.wire import NET_WINDOW, Decoder, Frame, encode

BIG = 50 << 20
LIMITED = NetworkPolicy("limited", ("origin.test",))


class Origin(http.server.BaseHTTPRequestHandler):
    """GET /big, GET /cut (says more than it sends), GET anything else echoes the head; POST echoes the body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        size = {"/big": BIG, "/cut": 1 << 20}.get(self.path)
        body = f"{self.path}\n{self.headers}".encode() if size is None else b"x" * (1 << 16)
        self.send_response(200)
        self.send_header("Content-Length", str(size or len(body)))
        self.send_header("Keep-Alive", "timeout=5")
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/big":
            with contextlib.suppress(OSError):
                for _ in range(BIG // len(body) - 1):
                    self.wfile.write(body)
        self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def origin_server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class Inside:
    """The runner's part: one selector loop in a thread."""

    def __init__(self, pipe: socket.socket) -> None:
        pipe.setblocking(False)
        self._pipe = pipe
        self._out = bytearray()
        self._decoder = Decoder()
        self._selector = selectors.DefaultSelector()
        self._selector.register(pipe, selectors.EVENT_READ, self._on_pipe)
        self.listener = NetListener(self._selector, lambda frame: self._out.extend(encode(frame)), port=0)
        self.listener.start()
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while self._running:
            for key, mask in self._selector.select():
                key.data(mask)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
            if self._running:
                self._selector.modify(self._pipe, events, self._on_pipe)
        self.listener.close()
        self._pipe.close()
        self._selector.close()

    def _on_pipe(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and self._out:
            with contextlib.suppress(OSError):
                del self._out[: self._pipe.send(self._out)]
        if mask & selectors.EVENT_READ:
            data = b""  # an end with unread data behind it is reported as a reset
            with contextlib.suppress(ConnectionResetError):
                data = self._pipe.recv(1 << 18)
            self._running = bool(data)
            for frame in self._decoder.feed(data):
                self.listener.handle(frame)


@dataclass
class Network:
    """A sandbox's network as a test sees it."""

    port: int
    mux: NetMux
    decisions: list[tuple[str, int, bool, str]] = field(default_factory=list)
    in_flight: Counter[int] = field(default_factory=Counter)
    most_in_flight: int = 0

    def http(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def get(self, url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str, bytes]:
        with contextlib.closing(self.http()) as client:
            client.request(method, url, body)
            response = client.getresponse()
            return response.status, response.reason, response.read()

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are, end, and read to the end."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(1 << 16), b""))


@contextlib.asynccontextmanager
async def network(policy: NetworkPolicy, allowed: Callable[[str], bool] = lambda ip: True) -> AsyncIterator[Network]:
    """A sandbox's network. Every name leads to the origin server on loopback; `allowed` judges that address."""
    ours, theirs = socket.socketpair()
    inside = Inside(theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    with origin_server() as origin:

        async def resolve(host: str, port: int) -> list[tuple[str, int]]:
            return [("127.0.0.1", origin)]

        async def send(frame: Frame) -> None:
            if frame.type == "net.data":
                net.in_flight[frame.header["stream"]] += len(frame.body)
                net.most_in_flight = max(net.most_in_flight, *net.in_flight.values())
            writer.write(encode(frame))
            await writer.drain()

        async def receive() -> None:
            decoder = Decoder()
            while data := await reader.read(1 << 18):
                for frame in decoder.feed(data):
                    if frame.type == "net.window":
                        net.in_flight[frame.header["stream"]] -= frame.header["bytes"]
                    mux.handle(frame)

        def decided(host: str, port: int, allowed: bool, reason: str) -> None:
            net.decisions.append((host, port, allowed, reason))

        proxy = Proxy(parse_policy(policy), decided, Dialer(resolve, allowed))
        mux = NetMux(send, proxy.serve)
        net = Network(inside.listener.port, mux)
        receiving = asyncio.create_task(receive())
        try:
            yield net
        finally:
            await mux.close()
            proxy.close()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            with contextlib.suppress(ConnectionError):
                await receiving
            await asyncio.to_thread(inside.join)


def run(story: Callable[[Network], None], policy: NetworkPolicy = LIMITED, **options: Callable[[str], bool]) -> Network:
    """Run a client's story in a thread while the loop serves it; give back what was seen."""

    async def main() -> Network:
        async with asyncio.timeout(60), network(policy, **options) as net:
            await asyncio.to_thread(story, net)
            return net

    return asyncio.run(main())


def test_an_allowed_host_answers_and_hop_by_hop_headers_do_not_travel() -> None:
    def story(net: Network) -> None:
        with contextlib.closing(net.http()) as client:
            hop = {
                "Proxy-Authorization": "secret",
                "Connection": "x-mine, content-length",
                "X-Mine": "1",
                "X-Kept": "2",
            }
            client.request("GET", "http://origin.test/hello?a=b", headers=hop)
            response = client.getresponse()
            body = response.read().lower()
            assert response.status == 200 and response.headers["Connection"] == "close"
            assert response.headers["Keep-Alive"] is None
            assert body.startswith(b"/hello?a=b\n") and b"host: origin.test\n" in body and b"x-kept: 2" in body
            assert b"secret" not in body and b"x-mine" not in body

    assert run(story).decisions == [("origin.test", 80, True, "")]


def test_a_body_travels_there_and_back() -> None:
    body = bytes(range(256)) * 8192  # 2 MiB, eight windows

    def story(net: Network) -> None:
        assert net.get("http://origin.test/", "POST", body) == (201, "Created", body)

    run(story)


def test_a_denied_host_gets_a_403_that_says_how_to_allow_it() -> None:
    def story(net: Network) -> None:
        status, reason, body = net.get("http://other.test/")
        assert status == 403 and "other.test" in reason
        assert body.count(b"\n") == 1 and b"environment.network.allowed_hosts" in body

    assert [decision[:3] for decision in run(story).decisions] == [("other.test", 80, False)]


def test_a_denied_tunnel_names_the_host_in_its_status_line() -> None:
    def story(net: Network) -> None:
        with contextlib.closing(net.http()) as client:
            client.set_tunnel("other.test", 443)
            try:
                client.connect()
            except OSError as error:
                assert "403" in str(error) and "other.test" in str(error)
            else:
                raise AssertionError("the tunnel was opened")

    run(story)


def test_a_refused_upload_still_hears_why() -> None:
    def story(net: Network) -> None:
        status, _, body = net.get("http://other.test/", "POST", bytes(1 << 20))
        assert status == 403 and b"other.test" in body

    run(story)


def test_an_allowed_name_with_a_private_address_is_refused() -> None:
    def story(net: Network) -> None:
        status, _, body = net.get("http://origin.test/")
        assert status == 403 and b"127.0.0.1" in body

    assert [decision[:3] for decision in run(story, allowed=reachable).decisions] == [("origin.test", 80, False)]


def test_a_tunnel_carries_bytes_both_ways_and_half_closes() -> None:
    def story(net: Network) -> None:
        request = b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n\r\n"
        answer = net.raw(request + b"GET /through HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"/through" in rest and rest.startswith(b"HTTP/1.1 200")

    run(story)


def test_a_big_download_arrives_whole_and_never_has_more_than_a_window_in_flight() -> None:
    def story(net: Network) -> None:
        assert len(net.get("http://origin.test/big")[2]) == BIG

    assert run(story).most_in_flight <= NET_WINDOW


def test_a_hundred_small_requests_are_answered() -> None:
    def story(net: Network) -> None:
        for number in range(100):
            assert net.get(f"http://origin.test/{number}")[0] == 200

    assert len(run(story).decisions) == 100


def test_a_slow_reader_does_not_stall_another_stream() -> None:
    def story(net: Network) -> None:
        with contextlib.closing(net.http()) as slow:
            slow.request("GET", "http://origin.test/big")
            assert slow.getresponse().status == 200  # and reads no further
            assert len(net.get("http://origin.test/big")[2]) == BIG

    assert run(story).most_in_flight <= NET_WINDOW


def test_a_client_that_aborts_leaves_the_others_alone() -> None:
    def story(net: Network) -> None:
        with contextlib.closing(net.http()) as client:
            client.request("GET", "http://origin.test/big")
            client.getresponse().read(1000)
        assert net.get("http://origin.test/after")[0] == 200

    run(story)


def test_a_cut_response_looks_cut() -> None:
    def story(net: Network) -> None:
        with contextlib.suppress(ConnectionResetError, http.client.IncompleteRead):
            net.get("http://origin.test/cut")
            raise AssertionError("a cut response passed for a whole one")

    run(story)


def test_requests_with_two_readings_are_refused() -> None:
    start = b"POST http://origin.test/ HTTP/1.1\r\nHost: origin.test\r\n"
    cases = {
        b"both lengths": start + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"two lengths": start + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"folded": start + b"X: a\r\n b\r\n\r\n",
        b"bare line end": start + b"X: a\nY: b\r\n\r\n",
        b"control": start + b"X: a\x0bb\r\n\r\n",
        b"bad chunk": start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"no proxy request": b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n",
        b"tls": b"GET https://origin.test/ HTTP/1.1\r\nHost: origin.test\r\n\r\n",
        b"user": b"GET http://origin.test@other.test/ HTTP/1.1\r\nHost: origin.test\r\n\r\n",
        b"tunnel with body": b"CONNECT origin.test:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    }

    def story(net: Network) -> None:
        for name, request in cases.items():
            assert net.raw(request).startswith(b"HTTP/1.1 400"), name
        many = b"".join(b"X-%d: y\r\n" % n for n in range(101))
        assert net.raw(start + many + b"\r\n").startswith(b"HTTP/1.1 431")
        assert net.raw(start + b"X: " + b"y" * 40000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431")

    run(story)


def test_a_second_request_on_a_connection_never_reaches_the_server() -> None:
    def story(net: Network) -> None:
        get = b"GET http://origin.test/%d HTTP/1.1\r\nHost: origin.test\r\n\r\n"
        assert net.raw(get % 1 + get % 2).count(b"HTTP/1.1 200") == 1

    run(story)
