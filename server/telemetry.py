"""Traces: spans through OpenTelemetry's API, which cost nothing until an exporter is set up; and what models cost.

Above: the HTTP application (a span a request) and whoever else has spans to give; `doors.metrics`, which shows `spent`.
Below: the API, and the SDK with its exporter where OTEL_EXPORTER_OTLP_ENDPOINT is set. It reads the variables of
OpenTelemetry and has none of its own.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from server.errors import InvalidRequest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

tracer = trace.get_tracer("skiff")
_exporting = False
"""Spans go somewhere. An agent's round of tools has three of them, which would cost it time for nothing."""


@dataclass
class Spent:
    """What this process asked of models since it began."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (model, outcome): `answered`, or the wire's type of the error."""
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (model, kind): input, output, cache_read, cache_write. No token is counted twice."""
    usd: dict[str, Decimal] = field(default_factory=dict)
    """By model; one without a price is not there."""

    def label(self, model: str) -> str:
        """The model's name in the figures: whoever makes agents invents models, and a figure is kept for ever."""
        known = {name for name, _ in self.requests}
        return model if model in known or len(known) < MOST_MODELS else "other"

    def answered(self, model: str, tokens: Mapping[str, int], usd: Decimal | None) -> None:
        """A request was answered."""
        model = self.label(model)
        self.requests[model, "answered"] += 1
        for kind, count in tokens.items():
            self.tokens[model, kind] += count
        if usd is not None:
            self.usd[model] = self.usd.get(model, Decimal(0)) + usd

    def failed(self, model: str, kind: str) -> None:
        """A request came to nothing, for this reason."""
        self.requests[self.label(model), kind] += 1


MOST_MODELS = 50
"""More than there are models at one time."""
spent = Spent()


class Work:
    """What an agent does, while it does it."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def say(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add what is known only now."""
        if self._span is not None:
            self._span.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        """It came to nothing, for this reason: a word, not a sentence."""
        if self._span is not None:
            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR))


_NOTHING = Work(None)


@contextmanager
def work(name: str, attributes: Mapping[str, AttributeValue]) -> Iterator[Work]:
    """A span around something that an agent does."""
    if not _exporting:
        yield _NOTHING
        return
    with tracer.start_as_current_span(name, kind=SpanKind.INTERNAL, attributes=attributes) as span:
        yield Work(span)


@contextmanager
def exported() -> Iterator[None]:
    """Export spans for as long as the block lasts, when the environment names a collector.

    Raises InvalidRequest when it does and the exporter is not installed: spans that go nowhere would be a setting that
    is ignored.
    """
    named = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if named is None:
        yield
        return
    global _exporting
    provider = _provider(named)
    trace.set_tracer_provider(provider)
    _exporting = True
    try:
        yield
    finally:
        _exporting = False
        provider.shutdown()  # sends what is left; OTEL_EXPORTER_OTLP_TIMEOUT bounds the wait for a dead collector


def _provider(named: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InvalidRequest(f"{named} is set, and the exporter is missing: pip install skiff-agents[otel].") from None
    resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "skiff")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


@contextmanager
def request(method: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """A span around one HTTP request, below the caller's when its headers name one."""
    with tracer.start_as_current_span(method, propagate.extract(headers), SpanKind.SERVER) as span:
        yield span


def answered(span: Span, method: str, route: str, status: int, request_id: str) -> None:
    """Say of a request's span how it went."""
    if not span.is_recording():
        return
    span.update_name(f"{method} {route}" if route else method)
    span.set_attributes({"http.request.method": method, "skiff.request_id": request_id})
    if route:
        span.set_attribute("http.route", route)
    if status:
        span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
