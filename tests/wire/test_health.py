"""What watchers ask of a real server: whether it lives, whether it can work, and its figures."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.engine.lock import EngineLock
from server.errors import InvalidRequest
from server.telemetry import exported
from tests.support.cast import TOOLSET, Cast
from tests.support.scenario import MODEL, bash, call, eventually
from tests.support.served import Site, served


async def ready(site: Site) -> bool:
    with site.http(authorization="") as http:
        return bool((await asyncio.to_thread(http.get, "/readyz")).status_code == 200)


def test_probes_need_no_key_and_any_host(site: Site) -> None:
    asyncio.run(eventually(lambda: ready(site), "readiness"))
    with site.http(authorization="", anthropic_beta="", anthropic_version="", host="10.0.0.7:8400") as http:
        for path in ("/healthz", "/readyz"):
            answer = http.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_server_without_an_engine_lives_and_is_ready_when_there_is_one() -> None:
    with served() as site:
        site.stop()
        held = EngineLock(site.machine.folder / "engine.lock")  # as a process does that hangs
        assert held.try_take()
        site.restart()
        with site.http(authorization="") as http:
            assert http.get("/healthz").status_code == 200
            answer = http.get("/readyz")
            assert answer.status_code == 503
            assert answer.json() == {"status": "unavailable", "reason": "No process drives the sessions."}
        held.release()
        asyncio.run(eventually(lambda: ready(site), "readiness"))


def test_a_terminated_server_closes_everything_and_ends_well() -> None:
    with served() as site:
        site.stop()
        assert site.process.returncode == 0, site.said


def test_a_collector_without_an_exporter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidRequest, match=r"pip install skiff-agents\[otel\]"), exported():
        pass


def test_figures_need_the_key_and_count_requests_by_route(site: Site) -> None:
    with site.http(authorization="") as http:
        assert http.get("/metrics").status_code == 401
    with site.http() as http:
        http.get("/v1/agents/agent_counted")
        http.get("/v1/strange/path")
        answer = http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    found = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}
    labels = (("method", "GET"), ("route", "/v1/agents/{agent_id}"), ("status", "404"))
    assert found["skiff_http_requests_total", *labels] >= 1
    assert found["skiff_http_request_seconds_count", *labels[:2]] >= 1
    assert found["skiff_sessions_at_work",] >= 0 and found["skiff_sandboxes",] >= 0 and ("skiff_engine",) in found
    assert "agent_counted" not in answer.text and "strange" not in answer.text


def test_figures_tell_what_models_were_asked_and_what_it_cost(site: Site) -> None:
    with site.client() as client:
        before = figures(site)
        Cast(client).rested({"say": "ok"})
        Cast(client).rested({"say": "ok"}, agent=client.beta.agents.create(name="unpriced", model="invented").id)
    added = {key: value - before.get(key, 0) for key, value in figures(site).items()}
    assert added["skiff_model_requests_total", ("model", MODEL), ("outcome", "answered")] == 1
    assert added["skiff_model_tokens_total", ("kind", "output"), ("model", MODEL)] > 0
    assert {dict(labels)["kind"] for name, *labels in added if name == "skiff_model_tokens_total"} == {
        "input", "output", "cache_read", "cache_write",
    }  # fmt: skip
    prompt, cached = (
        added[f"skiff_model_prompt_{kind}_total", ("model", MODEL)] for kind in ("tokens", "cached_tokens")
    )
    assert prompt > 0 and cached >= 0
    assert added["skiff_model_cost_usd_total", ("model", MODEL)] > 0
    assert ("skiff_model_cost_usd_total", ("model", "invented")) not in added


def figures(site: Site) -> dict[tuple[Any, ...], float]:
    """What /metrics says, by name and labels."""
    with site.http() as http:
        text = http.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes], threading.Event]]:
    """An OTLP collector that keeps what it gets."""
    got: list[bytes] = []
    came = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            came.set()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got, came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_span_a_request_goes_to_the_collector_that_the_environment_names() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with collector() as (url, got, came), served(environment={"OTEL_EXPORTER_OTLP_ENDPOINT": url}) as site:
        with site.http() as http:
            http.get("/v1/agents/agent_traced", headers={"traceparent": parent})
        site.stop()
        assert came.wait(30)
    sent = b"".join(got)
    assert b"GET /v1/agents/{agent_id}" in sent and b"http.route" in sent
    assert bytes.fromhex("0af7651916cd43dd8448eb211c80319c") in sent
    assert not re.search(rb"agent_traced", sent)


def test_an_agents_work_is_traced_by_the_conventions_and_what_was_said_is_in_no_span() -> None:
    with collector() as (url, got, came), served(environment={"OTEL_EXPORTER_OTLP_ENDPOINT": url}) as site:
        with site.client() as client:
            session = Cast(client, tools=[TOOLSET]).rested(call(bash("echo a secret word")), {"say": "Said."})
        site.stop()
        assert came.wait(30)
    sent = b"".join(got)
    for name in ("invoke_agent ", "chat ", "execute_tool bash", "gen_ai.usage.output_tokens", "gen_ai.tool.call.id"):
        assert name.encode() in sent
    assert session.id.encode() in sent
    assert b"secret word" not in sent
