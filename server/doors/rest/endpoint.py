"""What an endpoint is: one line of the API, and what its handler gets. The resource files declare them.

Above: `app`, which serves every declared endpoint behind the same checks, and `openapi`, which describes them. Below:
nothing. It does not know HTTP: a handler takes a `Call` and gives the JSON object of its answer, or a response of its
own where it is no JSON (a stream, a file).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from server.doors.rest.query import Query
    from server.usecases import UseCases

MANAGED_AGENTS = "managed-agents-2026-04-01"
"""The beta without which the API's own resources do not exist for a client (observed: 404)."""

Keep = Callable[[Any, Mapping[str, Any]], None]
"""Keeps the answer for whoever asks again; for the use-case, which calls it in its own transaction."""
Make = Callable[[Keep | None], Awaitable[Mapping[str, Any]]]
"""Does what was asked, and gives the answer."""


@dataclass(frozen=True)
class Call:
    """One request that has passed every check."""

    uses: UseCases
    path: Mapping[str, str]
    """Path parameters by name."""
    query: Query
    body: Mapping[str, Any]
    """The JSON object that was sent; empty where the endpoint takes none."""
    request: Request
    """For what is not JSON: multipart bodies, the end of a connection."""
    known: Callable[[], Awaitable[object]]
    """Raises Unauthenticated when the key that the request bore is good no more: for answers that go on."""
    key: tuple[str, str] | None = None
    """(Idempotency-Key, digest of the request), where the client sent one and the endpoint stores it itself."""
    keep: Keep | None = None
    """Where the client sent one, for what would be done twice if it were done again."""
    once: Callable[[bytes, Make], Awaitable[Mapping[str, Any]]] | None = None
    """`once(digest, make)`, where the client sent an Idempotency-Key and the handler reads the body itself: the answer
    given before to the body with this digest, else what `make` gives."""


Handler = Callable[[Call], Awaitable["Mapping[str, Any] | Response"]]


@dataclass(frozen=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    """As in `/v1/agents/{agent_id}`."""
    handle: Handler
    summary: str
    """A sentence for the OpenAPI document."""
    takes: str = ""
    """The SDK's type of the body, dotted, as in `anthropic.types.beta.AgentCreateParams`; "" = no body."""
    gives: str = ""
    """The SDK's type of the answer, dotted; of a list, of its elements."""
    many: bool = False
    """The answer is a page of a list."""
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Query parameters by name (`types[]`, `created_at[gte]`), each with its JSON schema; others are refused."""
    beta: str | None = MANAGED_AGENTS
    """The beta that the client must name, or None."""
    media: str = "application/json"
    """What kind of content the answer is: `text/event-stream` of a stream, `application/octet-stream` of a file."""
    raw: bool = False
    """The handler reads the body itself."""
    keeps_key: bool = False
    """The handler passes `Call.key` on, to be stored in its own transaction; else the door remembers the answer."""
