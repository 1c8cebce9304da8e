"""Figures for Prometheus, in a registry of their own.

Above: `http`. Below: prometheus-client, and what `telemetry` has counted. It knows requests as they were noted, and
numbers that it is given by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from server import telemetry
from server.doors.observe import Seen

CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS")
"""Others are counted as one: a client may invent methods, and each label value is kept for ever."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
"""Seconds: a read takes a few milliseconds, a wait over MCP up to minutes."""
GAUGES = {
    "sessions_at_work": "Sessions that have something to do.",
    "sandboxes": "Sandboxes that exist, or are being made or removed.",
    "archives": "Sandboxes that were put away.",
    "archive_bytes": "Bytes of their archives, all together.",
    "disk_free_bytes": "What is free on the disk of the data folder.",
    "disk_nearly_full": "Whether so little is free that new work is refused (1).",
    "tasks": "Tasks of this process: a few, and some for each session at work, request and live sandbox.",
    "engine": "Whether this process drives the sessions (1) or asks one that does (0).",
}


class _Models(Collector):
    """What models were asked: counted where it happens, and read here when somebody looks."""

    def collect(self) -> Iterator[Metric]:
        spent = telemetry.spent
        requests = CounterMetricFamily(
            "skiff_model_requests", "Model requests of this process, by what came of them.", labels=("model", "outcome")
        )
        for (model, outcome), count in spent.requests.items():
            requests.add_metric((model, outcome), count)
        tokens = CounterMetricFamily("skiff_model_tokens", "Their tokens, each counted once.", labels=("model", "kind"))
        for (model, kind), count in spent.tokens.items():
            tokens.add_metric((model, kind), count)
        prompt = CounterMetricFamily("skiff_model_prompt_tokens", "Tokens of their prompts.", labels=("model",))
        cached = CounterMetricFamily(
            "skiff_model_prompt_cached_tokens", "Those of them that the provider's cache held.", labels=("model",)
        )
        for model in sorted({model for model, _ in spent.tokens}):
            held = spent.tokens[model, "cache_read"]
            prompt.add_metric((model,), held + spent.tokens[model, "input"] + spent.tokens[model, "cache_write"])
            cached.add_metric((model,), held)
        usd = CounterMetricFamily("skiff_model_cost_usd", "Their cost by the price list.", labels=("model",))
        for model, amount in spent.usd.items():
            usd.add_metric((model,), float(amount))
        yield from (requests, tokens, prompt, cached, usd)


class Metrics:
    """The figures of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Models())
        self._requests = Counter(
            "skiff_http_requests", "Requests answered.", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "skiff_http_request_seconds",
            "Seconds until an answer began.",
            ("route", "method"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._gauges = {name: Gauge(f"skiff_{name}", says, registry=self._registry) for name, says in GAUGES.items()}

    def count(self, notes: Seen) -> None:
        """Take a request into account. One whose path is unknown has no route, so that strange paths cost nothing."""
        method = notes.method if notes.method in METHODS else "OTHER"
        self._requests.labels(notes.route, method, str(notes.status)).inc()
        self._seconds.labels(notes.route, method).observe(notes.began)

    def text(self, figures: Mapping[str, float]) -> bytes:
        """Everything in Prometheus' format, with the gauges at these figures."""
        for name, value in figures.items():
            self._gauges[name].set(value)
        return generate_latest(self._registry)
