"""How the API says no: one JSON shape for every error, with the request's id in it.

Above: `app` and the HTTP application. Below: the error tree. It never shows what an unexpected error says: that is in
the log, under the same id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from server.errors import BodyTimeout, Conflict, NoRoom, SkiffError, StoreBlocked, TryAgain

REQUEST_ID = "request-id"
SHOULD_RETRY = "x-should-retry"
API = "api_error"
UNEXPECTED = "Something went wrong inside Skiff. The log has the reason under this request id."
BLOCKED = "The server's database is locked, or its disk is full: nothing was done. Try again in a moment."


class MethodNotAllowed(SkiffError):
    """The path exists, this method of it does not."""

    wire_type = "invalid_request_error"
    status = 405

    def __init__(self, method: str, allowed: list[str]) -> None:
        super().__init__(f"{method} is not allowed here. Allowed: {', '.join(allowed)}.")
        self.allowed = allowed


def refusal(error: SkiffError, request_id: str) -> JSONResponse:
    """The answer to a request that failed with this error; of one that is nobody's fault but ours, the bare fact."""
    shown = str(error) if error.status < 500 or isinstance(error, NoRoom) else UNEXPECTED
    if isinstance(error, StoreBlocked):  # its own words name paths
        shown = BLOCKED
    return JSONResponse(body(error.wire_type, shown, request_id, error.code), error.status, headers=_headers(error))


def unexpected(request_id: str) -> JSONResponse:
    """The answer when the program is wrong."""
    return JSONResponse(body(API, UNEXPECTED, request_id), 500)


def body(kind: str, message: str, request_id: str, code: str = "") -> dict[str, Any]:
    """The envelope. `code` is the wire's `details.error_code`, "" for none."""
    error: dict[str, Any] = {"type": kind, "message": message}
    if code:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error, "request_id": request_id}


def _headers(error: SkiffError) -> Mapping[str, str]:
    if isinstance(error, MethodNotAllowed):
        return {"allow": ", ".join(error.allowed)}
    if isinstance(error, TryAgain):
        return {SHOULD_RETRY: "true"}
    if isinstance(error, BodyTimeout):  # what may still come of the body is not the next request
        return {"connection": "close"}
    if isinstance(error, Conflict | NoRoom):  # the SDK asks again after 409 and 5xx, which cannot help here
        return {SHOULD_RETRY: "false"}
    return {}
