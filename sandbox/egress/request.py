"""What a client asks of the proxy: request heads, targets, and the headers that may travel on. Pure.

Above: `proxy`. Below: h11, which parses; this module refuses what h11 forgives. A proxy and a server that read the same
bytes differently can be played against each other, so whatever has two readings is refused, and what goes on is written
anew from what was understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from sandbox.egress.refusal import Refused

MAX_HEAD = 32 << 10
"""Bytes of a request head: four times what common servers take, for clients with heavy cookies."""
MAX_FIELDS = 100
"""Header lines of a request, as common servers have it."""

Headers = list[tuple[bytes, bytes]]

_AMBIGUOUS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|\r\n[ \t]")
"""Control characters, a CR or LF alone, and folded lines."""
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@/?#\\%]+))(?::(?P<port>[0-9]{1,5}))?\Z")
_HOP = {
    b"connection",
    b"proxy-connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"upgrade",
}
_FRAMING = {b"content-length", b"transfer-encoding", b"host"}
"""Never dropped because `Connection` names them: that is a known way to make two readers disagree."""


@dataclass(frozen=True)
class Target:
    """Where a request goes: `host` without brackets, `authority` as the client wrote it, `path` for the server."""

    host: str
    port: int
    authority: str
    path: str = ""


def check_head(head: bytes) -> None:
    """Raises Refused when a request head (up to and with its empty line) is too long or has two readings."""
    if len(head) > MAX_HEAD or head.count(b"\r\n") > MAX_FIELDS + 2:
        raise Refused(431, f"request head over {MAX_HEAD} bytes or {MAX_FIELDS} header lines")
    if _AMBIGUOUS.search(head):
        raise Refused(400, "control character, bare line end or folded line in the request head")


def check_framing(request: h11.Request) -> None:
    """Raises Refused when the length of the body can be read in two ways."""
    names = [name for name, _ in request.headers]
    chunked, sized = b"transfer-encoding" in names, b"content-length" in names
    if chunked and (sized or request.http_version < b"1.1"):
        raise Refused(400, "Transfer-Encoding together with Content-Length or HTTP/1.0")
    if request.method == b"CONNECT" and (chunked or sized):
        raise Refused(400, "CONNECT with a body")


def parse_target(request: h11.Request) -> Target:
    """The target of a proxy request. Raises Refused for any form but `host:port` (CONNECT) and `http://...`."""
    text = request.target.decode("ascii")
    if request.method == b"CONNECT":
        return _authority(text, None, "")
    scheme, found, rest = text.partition("://")
    if not found:
        raise Refused(400, "this is a proxy: ask with CONNECT host:port or an absolute http:// address")
    if scheme.lower() != "http":
        raise Refused(400, f"{scheme}:// is not forwarded; use CONNECT for anything but http://")
    if "#" in rest:
        raise Refused(400, "fragment in the request target")
    split = re.search(r"[/?]", rest)
    authority, path = (rest[: split.start()], rest[split.start() :]) if split else (rest, "")
    bare = "*" if request.method == b"OPTIONS" and not path else "/"
    return _authority(authority, 80, path if path.startswith("/") else bare + path)


def _authority(text: str, default_port: int | None, path: str) -> Target:
    match = _AUTHORITY.match(text)
    port = int(match["port"]) if match and match["port"] else default_port
    if match is None or port is None or not 0 < port < 65536:
        raise Refused(400, "the request target does not name a host and port")
    return Target(match["v6"] or match["name"], port, text, path)


def upstream_request(request: h11.Request, target: Target) -> h11.Request:
    """The request as the origin server gets it: own target, own Host, no hop-by-hop headers, one per connection."""
    kept = [(name, value) for name, value in _end_to_end(request.headers) if name.lower() != b"host"]
    headers = [(b"Host", target.authority.encode("ascii")), *kept, (b"Connection", b"close")]
    return h11.Request(method=request.method, target=target.path.encode("ascii"), headers=headers)


def client_response(response: h11.Response) -> h11.Response:
    """The response as the client gets it: no hop-by-hop headers, the last one on its connection."""
    headers = [*_end_to_end(response.headers), (b"Connection", b"close")]
    return h11.Response(status_code=response.status_code, reason=response.reason, headers=headers)


def client_interim(response: h11.InformationalResponse) -> h11.InformationalResponse:
    """A 1xx response as the client gets it."""
    return h11.InformationalResponse(
        status_code=response.status_code, reason=response.reason, headers=_end_to_end(response.headers)
    )


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    pairs = list(headers)
    named = {
        token.strip().lower() for name, value in pairs if name.lower() == b"connection" for token in value.split(b",")
    }
    dropped = _HOP | (named - _FRAMING)
    return [(name, value) for name, value in pairs if name.lower() not in dropped]
