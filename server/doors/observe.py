"""What is noted of every HTTP request, whichever door takes it: its id, one log line, figures, a span.

Above: `http`, which wraps everything in `Observed`. Below: `telemetry`. It knows no door: a door writes what
only it knows (the route's template, whose key it was) into the request's `Seen`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import telemetry
from server.ids import new_id

access = logging.getLogger("skiff.access")
_KEY = "skiff.seen"


@dataclass
class Seen:
    """One request, as far as it is known."""

    method: str
    id: str = field(default_factory=lambda: new_id("req"))
    route: str = ""
    """The template of its path; "" while none has matched."""
    holder: str = ""
    """The name of the key that it bore."""
    status: int = 0
    """Of the answer; 0 when the client went away before there was one."""
    began: float = 0.0
    """Seconds until its answer began, which is all that a stream can be measured by."""
    seconds: float = 0.0
    """Until it was complete, or the client gone."""


def seen(scope: Scope) -> Seen:
    """The request's notes."""
    found: Seen = scope.setdefault(_KEY, Seen(scope.get("method", "")))
    return found


class Observed:
    """The application, with every request noted. `told` gets each one when its answer is complete."""

    def __init__(self, app: ASGIApp, told: Callable[[Seen], None] = lambda _: None) -> None:
        self._app = app
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes = seen(scope)
        began = time.monotonic()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.status = message["status"]
                notes.began = time.monotonic() - began
                MutableHeaders(scope=message)["request-id"] = notes.id
            await send(message)

        with telemetry.request(notes.method, Headers(scope=scope)) as span:
            try:
                await self._app(scope, receive, noting)
            finally:
                notes.seconds = time.monotonic() - began
                notes.began = notes.began or notes.seconds
                telemetry.answered(span, notes.method, notes.route, notes.status, notes.id)
                self._told(notes)
                access.info("%s", line(notes))


def line(notes: Seen) -> str:
    """The request as one line of JSON: no path and no query, which may hold what is nobody's business."""
    return json.dumps({
        "method": notes.method,
        "route": notes.route or None,
        "status": notes.status or None,
        "ms": round(notes.seconds * 1000, 1),
        "request_id": notes.id,
        "key": notes.holder or None,
    })  # fmt: skip
