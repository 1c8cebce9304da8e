"""The real model: the Messages API through the official SDK.

Above: `server.sessions.loop`, through `ModelProvider`. Below: the `anthropic` package, imported here alone and only on
first need (it costs about two seconds of CPU; `warm_up` does it in a thread). The SDK's own retries are off: retrying
is the loop's decision. It does not know sessions, tools or prices.

The stream is asked for as `messages.create(stream=True)` does it, but its events are read as plain dictionaries
(`sse.py`) and not as pydantic models: `accumulate.py` keeps every field, known to the SDK or not, and half the CPU of a
request is saved. Another third of what is left is saved by aiohttp under the SDK in the place of its default.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.request import getproxies

from server.errors import InvalidRequest, ModelError, ModelRefusedRequest, ModelUnavailable
from server.providers import Chunk, ModelRequest, Said, encode
from server.providers.accumulate import Accumulator
from server.providers.failures import redact, status_error
from server.providers.sse import Decoder

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic, AsyncStream, DefaultAioHttpClient

Platform = Literal["api", "bedrock", "vertex", "foundry"]

SILENCE_SECONDS = 120.0
"""No byte, not even a ping, for this long means that the provider is gone; the API pings every few seconds."""
ONLY_PINGS = 15
"""For so many times as long it may send nothing but pings (half an hour): the longest thought that nobody is shown
takes a quarter of an hour, and a provider that goes on pinging for ever must not hold a turn for ever."""
CONNECT_SECONDS = 10.0
"""A TLS connection that takes longer than this, with the look for its address, is not going to come about."""
SLOWEST_UPLOAD = 64 << 10
"""Bytes a second: a line that takes a request more slowly, on the whole, is as good as dead."""

_CLIENTS = {
    "api": ("anthropic", "AsyncAnthropic", "anthropic", "anthropic"),
    "bedrock": ("anthropic.lib.bedrock", "AsyncAnthropicBedrock", "botocore.eventstream", "anthropic[bedrock]"),
    "vertex": ("anthropic.lib.vertex", "AsyncAnthropicVertex", "google.auth", "anthropic[vertex]"),
    "foundry": ("anthropic.lib.foundry", "AsyncAnthropicFoundry", "anthropic", "anthropic"),
}
"""By platform: module and class of its client, what that imports only when it is used, the requirement to install."""


class AnthropicProvider:
    """Claude over the Messages API, on Anthropic's own platform or a cloud's.

    Credentials are the SDK's: ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN, ANTHROPIC_BASE_URL, or the platform's own
    variables. `silence_seconds` bounds the wait for the next byte, `connect_seconds` the wait for a connection.
    An `options["betas"]` of a request becomes its `anthropic-beta` header, as in the SDK.
    """

    name = "anthropic"

    def __init__(
        self,
        *,
        platform: Platform = "api",
        base_url: str | None = None,
        silence_seconds: float = SILENCE_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        self._platform = platform
        self._base_url = base_url
        self._silence_seconds = silence_seconds
        self._connect_seconds = connect_seconds
        self._client: AsyncAnthropic | None = None
        self._opening = asyncio.Lock()

    async def warm_up(self) -> None:
        """Import the SDK and make its client, in a thread, so that the first request need not.

        Raises InvalidRequest when the platform's packages are not installed, ModelRefusedRequest when the SDK finds
        no credential or no region.
        """
        await self._open()

    async def stream(self, request: ModelRequest) -> AsyncIterator[Chunk]:
        """See `ModelProvider.stream`. The last chunk is the ModelResponse; closing aborts the HTTP request."""
        client = self._client or await self._open()
        payload = self._payload(request)
        answer = Accumulator()
        try:
            events = await self._ask(client, payload)
            try:
                async for event in self._read(events):
                    chunk = answer.feed(event)
                    if chunk is not None:
                        yield chunk
            finally:
                await events.close()
        except Exception as error:
            if not answer.finished:  # else the connection broke after the last word
                trouble = translate(error, self._silence_seconds)
                trouble.args = (_hide_keys(str(trouble), client),)
                raise trouble from error
        try:
            whole = answer.response()
        except ValueError as error:
            raise translate(error) from error
        yield whole

    async def close(self) -> None:
        """Give back connections. The provider opens new ones if it is asked again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _payload(self, request: ModelRequest) -> dict[str, Any]:
        """The arguments of the SDK's `post` that carry the request.

        Encoded here for the plain API, as the SDK walks a body of dictionaries three times; the clouds' clients
        rewrite the body and so need it unencoded. A lone surrogate becomes "?": the API refuses a request that holds
        one, and would refuse the conversation for ever.
        """
        body = request_body(request)
        betas = body.pop("betas", ())
        headers = {"content-type": "application/json"}
        if betas:
            headers["anthropic-beta"] = ",".join(betas)
        if self._platform == "api":
            return {"content": _encoded(body).encode("utf-8", "replace"), "options": {"headers": headers}}
        return {"body": body, "options": {"headers": headers}}

    async def _ask(self, client: AsyncAnthropic, payload: dict[str, Any]) -> AsyncStream[Any]:
        """Send the request and wait for the head of the answer. Bounded here: aiohttp's own clock starts only when all
        was sent."""
        from anthropic import AsyncStream

        seconds = self._silence_seconds + len(payload.get("content", b"")) / SLOWEST_UPLOAD
        async with asyncio.timeout(seconds):
            return await client.post(
                "/v1/messages", cast_to=object, stream=True, stream_cls=AsyncStream[Any], **payload
            )

    async def _read(self, events: AsyncStream[Any]) -> AsyncIterator[Mapping[str, Any]]:
        """The events of an answer. Bedrock frames them in a way of its own, which the SDK reads."""
        if self._platform == "bedrock":
            async for event in events:
                yield event
            return
        decoder, clock = Decoder(), asyncio.get_running_loop().time
        heard, patience = clock(), self._silence_seconds * ONLY_PINGS
        async for portion in events.response.aiter_bytes():
            for event in decoder.feed(portion):
                if event.get("type") == "error":
                    raise status_error(200, event, events.response.headers, "")
                if event.get("type") != "ping":
                    heard = clock()
                yield event
            if clock() - heard > patience:
                raise ModelUnavailable(f"The provider sent nothing of the answer for {patience:g} s.")

    async def _open(self) -> AsyncAnthropic:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._make_client)
            return self._client

    def _make_client(self) -> AsyncAnthropic:
        module, name, needs, requirement = _CLIENTS[self._platform]
        try:
            for wanted in (needs, "anthropic.resources.messages", module):
                importlib.import_module(wanted)
        except ImportError as error:
            raise InvalidRequest(
                f"The model platform {self._platform!r} needs packages that are not installed ({error}). "
                f"Install them with: pip install '{requirement}'"
            ) from error
        try:
            return self._construct(getattr(sys.modules[module], name))
        except Exception as error:
            raise ModelRefusedRequest(redact(f"The model client cannot be set up: {error}")) from error

    def _construct(self, make: Callable[..., AsyncAnthropic]) -> AsyncAnthropic:
        from anthropic import Timeout

        where = {"base_url": self._base_url} if self._base_url else {}
        timeout = Timeout(self._silence_seconds, connect=self._connect_seconds, pool=self._connect_seconds)
        return make(max_retries=0, timeout=timeout, http_client=self._transport(), **where)

    def _transport(self) -> DefaultAioHttpClient | None:
        """What carries the requests; None is the SDK's default. That stays with the clouds, whose clients were not
        tried with another, and with SOCKS proxies, which aiohttp does not speak."""
        from anthropic import DefaultAioHttpClient

        if self._platform != "api" or any(proxy.lower().startswith("socks") for proxy in getproxies().values()):
            return None
        # It says so of each over a megabyte. The longest that the API takes keeps the loop for ten milliseconds.
        warnings.filterwarnings("ignore", "Sending a large body directly", ResourceWarning)
        return DefaultAioHttpClient()


def request_body(request: ModelRequest) -> dict[str, Any]:
    """The Messages API body of a request; absent parts are left out, nothing is added."""
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": request.messages,
        "stream": True,
    }
    if request.system:
        body["system"] = request.system
    if request.tools:
        body["tools"] = request.tools
    body.update(request.options)
    return body


def _encoded(body: Mapping[str, Any]) -> str:
    """The body's JSON, without encoding again what was sent before."""
    lists = {name: body[name] for name in ("system", "tools", "messages") if name in body}
    rest = encode({key: value for key, value in body.items() if key not in lists})
    said = ",".join([f'"{name}":[{_listed(items)}]' for name, items in lists.items()])
    return f"{rest[:-1]},{said}}}"


def _listed(items: Sequence[Mapping[str, Any]]) -> str:
    return ",".join([item.json if isinstance(item, Said) else encode(item) for item in items])


# --- errors ----------------------------------------------------------------------------------------------------------


def _hide_keys(text: str, client: AsyncAnthropic) -> str:
    """The text without the client's own credentials, whatever they look like (a gateway's key may look like a word)."""
    for name in ("api_key", "auth_token"):
        secret = getattr(client, name, None)  # the clouds' clients have one of them, or neither
        if isinstance(secret, str) and len(secret) >= 8:
            text = text.replace(secret, "[redacted]")
    return text


def translate(error: Exception, silence_seconds: float = SILENCE_SECONDS) -> ModelError:
    """The one place where the SDK's and its transport's errors become ours."""
    import aiohttp
    import httpx2
    from anthropic import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, ModelError):
        return error
    if isinstance(error, APIStatusError):
        return status_error(error.status_code, error.body, error.response.headers, error.message)
    if isinstance(error, APITimeoutError | httpx2.TimeoutException | TimeoutError):
        return ModelUnavailable(f"The provider said nothing for {silence_seconds:g} s, or could not be reached.")
    if isinstance(error, APIConnectionError | httpx2.HTTPError | aiohttp.ClientError | ConnectionError | ssl.SSLError):
        cause = error.__cause__ or error
        return ModelUnavailable(redact(f"The connection to the provider failed: {cause or type(cause).__name__}"))
    if "resolve authentication" in str(error) or type(error).__name__ in {"CredentialsError", "IdentityTokenFileError"}:
        return ModelRefusedRequest("No credential for the model. Set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN.")
    if isinstance(error, ValueError | KeyError | TypeError | IndexError | AttributeError):
        return ModelUnavailable(redact(f"The provider's stream could not be read: {type(error).__name__}: {error}"))
    return ModelRefusedRequest(redact(f"The model request failed: {type(error).__name__}: {error}"))


# --- server tools ----------------------------------------------------------------------------------------------------

_SERVER_TOOLS = {
    "web_search": ("web_search_20260318", {"allowed_domains", "blocked_domains", "max_uses", "user_location"}),
    "web_fetch": (
        "web_fetch_20260318",
        {"allowed_domains", "blocked_domains", "max_uses", "max_content_tokens", "citations", "use_cache"},
    ),
}
"""By name: the newest type of the SDK, and the fields that a direct use may set."""


def server_tool(name: Literal["web_search", "web_fetch"], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The definition of a tool that the provider itself runs, for direct use by the model.

    These types may also be called from the provider's code execution, which nobody here offers: callers are restricted
    to `direct`, or the model would be told of a way that does not exist. None values of `config` are left out.

    Raises InvalidRequest for a field that the tool does not have, and for both domain lists at once.
    """
    kind, fields = _SERVER_TOOLS[name]
    given = {key: value for key, value in (config or {}).items() if value is not None}
    unknown = sorted(set(given) - fields)
    if unknown:
        raise InvalidRequest(f"{name} has no setting {', '.join(unknown)}; it has: {', '.join(sorted(fields))}.")
    if given.get("allowed_domains") and given.get("blocked_domains"):
        raise InvalidRequest(f"{name}: give allowed_domains or blocked_domains, not both.")
    return {"type": kind, "name": name, "allowed_callers": ["direct"], **given}
