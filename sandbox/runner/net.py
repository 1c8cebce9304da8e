"""The sandbox's way out, inside end: a listener on loopback whose connections travel as frames.

Above: commands, which find the listener through PROXY_ENV. Beside: the runner's loop, which owns the selector, calls
`key.data(mask)` for what is registered here, passes `net.*` frames to `handle` and calls `reset_all` when an owner
comes or goes. Below: loopback, which must be up (a container without network and bubblewrap both see to that).

Standard library only and Python 3.8 syntax. This module does not know HTTP, hosts or policy: the other end decides.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
from typing import Callable, Dict, Optional

from sandbox.wire import NET_ACK, NET_PORTION, NET_STREAMS, NET_WINDOW, Frame, net_share

PROXY_HOST = "127.0.0.1"
PROXY_PORT = 3128
"""The customary port of HTTP proxies; nothing else listens in a sandbox's own network namespace."""

_URL = f"http://{PROXY_HOST}:{PROXY_PORT}"
_DIRECT = "localhost,127.0.0.1,::1"
PROXY_ENV: Dict[str, str] = {
    "http_proxy": _URL,
    "https_proxy": _URL,
    "HTTP_PROXY": _URL,
    "HTTPS_PROXY": _URL,
    "no_proxy": _DIRECT,
    "NO_PROXY": _DIRECT,
    # Node's own fetch obeys the variables above only when told to.
    "NODE_USE_ENV_PROXY": "1",
}
"""For commands of a sandbox with network. No ALL_PROXY: many programs read it as SOCKS, which is not spoken here."""

_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: close sends RST, so that a cut download never looks like a whole one."""


class NetListener:
    """Accepts connections on loopback and carries each as one stream of frames.

    `send` takes a frame and never blocks; the owner stamps its epoch. All methods belong to the selector's thread.
    """

    def __init__(self, selector: selectors.BaseSelector, send: Callable[[Frame], None], port: int = PROXY_PORT) -> None:
        self.selector = selector
        self.send = send
        self.port = port
        self._streams: Dict[int, _Stream] = {}
        self._last = 0
        self._listener: Optional[socket.socket] = None
        self._spare = -1

    def start(self) -> None:
        """Listen. Raises OSError when the port is taken or loopback is down. A port of 0 becomes the one chosen."""
        self._listener = listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((PROXY_HOST, self.port))
        listener.listen(NET_STREAMS)
        self.port = listener.getsockname()[1]
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop listening and abort every stream."""
        self.reset_all()
        if self._listener is not None:
            self.selector.unregister(self._listener)
            self._listener.close()
            os.close(self._spare)
            self._listener = None

    def reset_all(self) -> None:
        """Abort every connection without a frame: the owner that knew these streams is gone."""
        for stream in list(self._streams.values()):
            stream.abort()

    def handle(self, frame: Frame) -> None:
        """Take a `net.*` frame. Frames of streams that are over are ignored: they crossed the end on their way."""
        stream = self._streams.get(frame.header.get("stream", 0))
        if stream is None:
            return
        if frame.type == "net.data":
            stream.deliver(frame.body)
        elif frame.type == "net.window":
            stream.credit(int(frame.header.get("bytes", 0)))
        elif frame.type == "net.end":
            stream.peer_ended()
        elif frame.type == "net.reset":
            stream.peer_reset()

    def share(self) -> int:
        """Bytes a stream may have on the way out now."""
        return net_share(len(self._streams))

    def forget(self, number: int) -> None:
        self._streams.pop(number, None)

    def _accept(self, mask: int) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return
        if len(self._streams) >= NET_STREAMS:
            sock.close()
            return
        self._last += 1
        stream = self._streams[self._last] = _Stream(self, self._last, sock)
        self.send(Frame({"t": "net.open", "stream": self._last}))
        stream.on_ready(selectors.EVENT_READ)

    def _turn_away(self) -> None:
        """Out of descriptors: spend the spare one on accepting and closing, or the loop would spin on this listener."""
        assert self._listener is not None
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY)


class _Stream:
    """One accepted connection: `_unacked` counts bytes on the way out, `_pending` holds bytes for the client."""

    def __init__(self, listener: NetListener, number: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener = listener
        self._number = number
        self._sock = sock
        self._events = 0
        self._pending = bytearray()
        self._unacked = 0
        self._consumed = 0
        self._sent_end = False
        self._got_end = False
        self._shut = False
        self._open = True

    # what the selector says

    def on_ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if mask & selectors.EVENT_READ and self._open and not self._sent_end:
            self._read()

    def _read(self) -> None:
        room = self._listener.share() - self._unacked
        if room > 0:
            try:
                data = self._sock.recv(min(NET_PORTION, room))
            except (BlockingIOError, InterruptedError):
                data = None
            except OSError:
                self._reset("the client is gone")
                return
            if data:
                self._unacked += len(data)
                self._send("net.data", data)
            elif data is not None:
                self._sent_end = True
                self._send("net.end")
        self._settle()

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._pending) if self._pending else 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._reset("the client is gone")
            return
        del self._pending[:sent]
        self._consumed += sent
        if self._consumed >= NET_ACK and not self._got_end:
            self._send("net.window", bytes=self._consumed)
            self._consumed = 0
        self._settle()

    # what the other side says

    def deliver(self, data: bytes) -> None:
        if self._got_end or len(self._pending) + len(data) > NET_WINDOW:
            self._reset("data beyond the window or the end")
            return
        idle = not self._pending
        self._pending += data
        if idle:
            self._flush()

    def credit(self, count: int) -> None:
        self._unacked -= min(max(count, 0), self._unacked)
        self._settle()

    def peer_ended(self) -> None:
        self._got_end = True
        self._settle()

    def peer_reset(self) -> None:
        """After an end the client still gets what was sent; without one it must see that something was cut off."""
        if self._got_end:
            self._sent_end = True
            self._settle()
        else:
            self.abort()

    def abort(self) -> None:
        """Close with RST and say nothing."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._close()

    # what follows from it

    def _settle(self) -> None:
        """After any change: pass on the end, close when both sides have ended, else watch for what can happen next."""
        if not self._open:
            return
        if self._got_end and not self._pending and not self._shut:
            self._shut = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        if self._shut and self._sent_end:
            self._close()
            return
        readable = not self._sent_end and self._unacked < self._listener.share()
        self._watch((selectors.EVENT_READ if readable else 0) | (selectors.EVENT_WRITE if self._pending else 0))

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        selector = self._listener.selector
        if not self._events:
            selector.register(self._sock, events, self.on_ready)
        elif events:
            selector.modify(self._sock, events, self.on_ready)
        else:
            selector.unregister(self._sock)
        self._events = events

    def _send(self, kind: str, body: bytes = b"", **header: object) -> None:
        self._listener.send(Frame({"t": kind, "stream": self._number, **header}, body))

    def _reset(self, why: str) -> None:
        self._send("net.reset", why=why)
        self.abort()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._watch(0)
            self._sock.close()
            self._listener.forget(self._number)
