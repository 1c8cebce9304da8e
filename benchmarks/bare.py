"""The other side of the REST door: the same paths in a bare Starlette, `python -m benchmarks.bare SESSION_JSON`.

It answers every `GET /v1/sessions/{id}` with the JSON in this file, and hands the events that are posted on to whoever
follows, through a queue each: no log, no key, no bounds. Served by uvicorn as Skiff is, in one process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from server.doors.http import listen


class Bare:
    """The three endpoints."""

    def __init__(self, session: Mapping[str, Any]) -> None:
        self._session = session
        self._queues: set[asyncio.Queue[bytes]] = set()
        self._numbers = itertools.count(1)

    async def retrieve(self, request: Request) -> Response:
        return JSONResponse(self._session)

    async def send(self, request: Request) -> Response:
        asked = (await request.json())["events"]
        events = [{**event, "id": f"sevt_{next(self._numbers)}", "processed_at": None} for event in asked]
        for event in events:
            frame = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            for queue in self._queues:
                queue.put_nowait(frame)
        return JSONResponse({"data": events})

    async def stream(self, request: Request) -> Response:
        return StreamingResponse(self._frames(), media_type="text/event-stream")

    async def _frames(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield b"event: ping\ndata: {}\n\n"
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)


async def main(session: Mapping[str, Any]) -> None:
    """Serve on a free port, said on standard error, until SIGTERM."""
    bare = Bare(session)
    one = "/v1/sessions/{session_id}"
    routes = [
        Route(one, bare.retrieve, methods=["GET"]),
        Route(f"{one}/events", bare.send, methods=["POST"]),
        Route(f"{one}/events/stream", bare.stream, methods=["GET"]),
    ]
    with listen("127.0.0.1", 0) as listener:
        print(f"bare: serving the API at http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        config = uvicorn.Config(
            Starlette(routes=routes), log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1
        )
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
