"""The REST door: every declared endpoint behind the same checks, in the order of the hosted service.

    is there such a path? such a method? -> whose key is it? -> the beta -> the version -> query -> body -> the handler

Above: `doors.http`. Below: the handlers of the resource files, and through them the use-cases. It knows no resource.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from server.doors.observe import seen
from server.doors.rest import body, envelope, idempotency, refused
from server.doors.rest.auth import Verify, holder
from server.doors.rest.endpoint import Call, Endpoint, Make
from server.doors.rest.idempotency import Answers, Idempotency
from server.doors.rest.query import Query
from server.errors import InvalidRequest, NotFound, NotSupported, SkiffError

if TYPE_CHECKING:
    from server.usecases import UseCases

logger = logging.getLogger(__name__)

RESOURCES = ("agents", "environments", "sessions", "events", "threads", "files", "resources")
"""The modules beside this one that declare ENDPOINTS."""
BETA = "anthropic-beta"
VERSION = "anthropic-version"
_DATE = re.compile(r"20\d\d-[01]\d-[0-3]\d", re.ASCII)
_GONE = 499
"""What is noted of a request whose client left; nobody reads the answer."""


def endpoints() -> tuple[Endpoint, ...]:
    """Every endpoint of every resource."""
    modules = [f"{__package__}.{name}" for name in RESOURCES]
    found = [import_module(name) for name in modules if importlib.util.find_spec(name)]
    return tuple(endpoint for module in found for endpoint in module.ENDPOINTS)


@dataclass(frozen=True)
class Path:
    """One path with its methods."""

    pattern: re.Pattern[str]
    template: str
    methods: Mapping[str, Endpoint]


@dataclass(frozen=True)
class Found:
    """Where a request leads."""

    endpoint: Endpoint
    parameters: Mapping[str, str]


def paths(declared: Sequence[Endpoint]) -> list[Path]:
    """The paths of the endpoints; those with fewer parameters first, so that a word wins over a parameter."""
    templates: dict[str, dict[str, Endpoint]] = {}
    for endpoint in declared:
        methods = templates.setdefault(endpoint.path, {})
        assert endpoint.method not in methods, f"{endpoint.method} {endpoint.path} is declared twice"
        methods[endpoint.method] = endpoint
    ordered = sorted(templates.items(), key=lambda item: (item[0].count("{"), item[0]))
    return [Path(compile_path(template)[0], template, methods) for template, methods in ordered]


class RestDoor:
    """The ASGI application of `/v1`.

    uses        what handlers call
    declared    the endpoints that are served
    verify      whose key a request bears
    answers     where answers are kept under their Idempotency-Key
    """

    def __init__(self, uses: UseCases, declared: Sequence[Endpoint], verify: Verify, answers: Answers) -> None:
        self._uses = uses
        self._paths = paths(declared)
        self._verify = verify
        self._idempotency = Idempotency(answers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = await self._answered(request)
        try:
            await answer(scope, receive, send)
        except SkiffError as error:  # of an answer that has begun: its length tells the client that it was cut
            logger.warning("%s: the answer was broken off: %s", seen(scope).id, error)

    async def _answered(self, request: Request) -> Response:
        notes = seen(request.scope)
        try:
            return await self._answer(request)
        except SkiffError as error:
            if error.status >= 500:
                logger.exception("%s: %s %s failed", notes.id, notes.method, notes.route)
            return envelope.refusal(error, notes.id)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except Exception:
            logger.exception("%s: %s %s failed", notes.id, notes.method, notes.route)
            return envelope.unexpected(notes.id)

    async def _answer(self, request: Request) -> Response:
        notes = seen(request.scope)
        path, parameters = self._path(request)
        notes.route = path.template if path else ""
        if path and request.method not in path.methods:
            raise envelope.MethodNotAllowed(request.method, sorted(path.methods))
        notes.holder = await holder(request.headers, self._verify)
        if path is None:
            raise NotSupported(f"{refused.name_of(request.url.path)}: not supported by this version of Skiff.")
        endpoint = path.methods[request.method]
        check_headers(endpoint, request)
        query = Query.parse(request.scope["query_string"], endpoint.query)
        return await self._handled(Found(endpoint, parameters), query, request)

    def _path(self, request: Request) -> tuple[Path | None, Mapping[str, str]]:
        """The path; None for one that is known and not served. Raises NotFound for one that nobody knows."""
        asked = request.scope["path"]
        if b"%2f" in request.scope.get("raw_path", b"").lower():  # of an id, which has none: it would pass for a path
            raise NotFound("Not found")
        for path in self._paths:
            if match := path.pattern.fullmatch(asked):
                return path, match.groupdict()
        if refused.name_of(asked) is None:
            raise NotFound("Not found")
        return None, {}

    async def _handled(self, found: Found, query: Query, request: Request) -> Response:
        """The handler's answer, or the one that the same request got before."""
        endpoint = found.endpoint
        raw = b"" if endpoint.raw or request.method == "GET" else await body.whole(request)
        sent = body.json_object(raw, request.headers.get("content-type", ""))
        if sent and not endpoint.takes:
            raise InvalidRequest(f"{next(iter(sent))}: unknown field. This endpoint takes none.")
        call = Call(self._uses, found.parameters, query, sent, request, partial(holder, request.headers, self._verify))
        named = idempotency.text(request)
        if named is None:
            return _response(await endpoint.handle(call))
        if endpoint.raw:
            return _response(await endpoint.handle(replace(call, once=partial(self._once, named, request))))
        key = idempotency.key(named, request, idempotency.canonical(raw))
        if endpoint.keeps_key:
            return _response(await endpoint.handle(replace(call, key=(key.text, key.digest))))
        return _response(await self._idempotency.once(key, lambda keep: endpoint.handle(replace(call, keep=keep))))

    async def _once(self, named: str, request: Request, digest: bytes, make: Make) -> Mapping[str, Any]:
        """`Call.once`, with the request that it is about."""
        return await self._idempotency.once(idempotency.key(named, request, digest), make)


def check_headers(endpoint: Endpoint, request: Request) -> None:
    """The beta first, then the version. Raises NotFound (without the beta nothing is there), InvalidRequest."""
    if endpoint.beta is not None and endpoint.beta not in _listed(request.headers.getlist(BETA)):
        raise NotFound("not found")
    version = request.headers.get(VERSION)
    if not version:
        raise InvalidRequest(f"{VERSION}: header is required")
    if not _DATE.fullmatch(version):
        raise InvalidRequest(f"{VERSION}: {version[:40]!r} is not a version. Send 2023-06-01 or a later one.")


def _listed(headers: Sequence[str]) -> Iterator[str]:
    return (name.strip() for header in headers for name in header.split(","))


def _response(answer: Mapping[str, Any] | Response) -> Response:
    return answer if isinstance(answer, Response) else JSONResponse(answer)
