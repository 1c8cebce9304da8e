"""The answer no: an HTTP status and one line that says why."""

from __future__ import annotations

from http import HTTPStatus


class Refused(Exception):
    """A request is not served. `status` is the HTTP status, `str(error)` one line for whoever reads it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def response(self) -> bytes:
        """The whole HTTP response.

        The reason is in the status line too: clients drop the body of a refused CONNECT but show that line.
        """
        reason = " ".join(str(self).split()).encode("ascii", "replace")
        phrase = HTTPStatus(self.status).phrase.encode("ascii")
        return (
            b"HTTP/1.1 %d %s: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n"
            % (self.status, phrase, reason, len(reason) + 1, reason)
        )
