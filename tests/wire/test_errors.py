"""What goes wrong before a handler is asked, on a real port: one envelope for everything, with the right words."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest

from tests.support.scenario import eventually
from tests.support.served import BETA, TOKEN, VERSION, Site

AGENTS = "/v1/agents"


def refused(answer: httpx2.Response, status: int, kind: str) -> str:
    """That the answer is the envelope of such an error; gives its words."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"] == answer.headers["request-id"]
    assert "Traceback" not in answer.text
    return str(body["error"]["message"])


def test_unknown_paths_are_not_found_even_without_a_key(site: Site) -> None:
    with site.http(authorization="", anthropic_beta="", anthropic_version="") as http:
        for path in ("/", "/v1", "/v1/nothing", "/v1/agents/a/b/c", "/v1/agents/", "/mcp/x", "/docs", "/v1/%2e%2e/x"):
            assert refused(http.get(path), 404, "not_found_error") == "Not found"


def test_the_sdk_raises_its_own_classes(site: Site) -> None:
    client = site.client()
    with pytest.raises(anthropic.NotFoundError):
        client.beta.agents.retrieve("agent_nowhere")
    with pytest.raises(anthropic.BadRequestError, match="vaults: not supported"):
        client.beta.vaults.list()
    with pytest.raises(anthropic.BadRequestError, match="page cursor"):
        client.beta.agents.list(page="nonsense")


def test_a_missing_version_is_asked_for(site: Site) -> None:
    with site.http(anthropic_version="") as http:
        assert refused(http.get(AGENTS), 400, "invalid_request_error") == "anthropic-version: header is required"


def test_other_methods_are_answered_in_the_envelope(site: Site) -> None:
    with site.http() as http:
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = http.request(method, AGENTS)
            refused(answer, 405, "invalid_request_error")
            assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b'{"name": NaN}', b'{"name": "\xff"}', rb'{"name": "\ud800"}', b'{"a":' * 5000, b"[" * 99999],
)
def test_bodies_that_cannot_be_read_are_refused(site: Site, body: bytes) -> None:
    with site.http(content_type="application/json") as http:
        refused(http.post(AGENTS, content=body), 400, "invalid_request_error")


def test_a_form_is_no_json(site: Site) -> None:
    with site.http() as http:
        assert "Content-Type" in refused(http.post(AGENTS, data={"name": "x"}), 400, "invalid_request_error")


def test_a_body_over_its_bound_is_refused_by_its_length_alone(site: Site) -> None:
    host, _, port = site.url.removeprefix("http://").partition(":")
    head = (
        f"POST {AGENTS} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\nanthropic-beta: {BETA}\r\n"
        f"anthropic-version: {VERSION}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {(32 << 20) + 1}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode())
        with connection.makefile("rb") as said:
            answer = said.read().decode()
    assert answer.startswith("HTTP/1.1 413") and "request_too_large" in answer


def test_a_body_of_unknown_length_is_bounded_while_it_is_read(site: Site) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"name": "'
        for _ in range(33):
            yield b"x" * (1 << 20)

    with site.http(content_type="application/json") as http:
        refused(http.post(AGENTS, content=pieces()), 413, "request_too_large")


def test_strange_query_parameters_are_named(site: Site) -> None:
    with site.http() as http:
        assert "limti: unknown query parameter" in refused(http.get(f"{AGENTS}?limti=3"), 400, "invalid_request_error")
        refused(http.get(f"{AGENTS}?limit=%ff"), 400, "invalid_request_error")
        refused(http.get(f"{AGENTS}?limit=0"), 400, "invalid_request_error")


def test_strange_ids_are_not_found_and_nothing_worse(site: Site) -> None:
    with site.http() as http:
        for strange in ("%00", "%ff%fe", "a" * 4000, "%F0%9F%98%80", "'--", "%0A", "..%5c", "{}"):
            assert http.get(f"{AGENTS}/{strange}").status_code in (400, 404)


@pytest.mark.parametrize(
    "path",
    ["/v1/vaults", "/v1/memory_stores", "/v1/deployments", "/v1/dreams", "/v1/skills", "/v1/models", "/v1/messages"],
)
def test_what_is_not_there_yet_says_so_by_name(site: Site, path: str) -> None:
    with site.http() as http:
        words: Any = refused(http.get(path), 400, "invalid_request_error")
        assert "not supported by this version of Skiff" in words


def test_the_log_has_one_line_of_json_a_request(site: Site) -> None:
    with site.http() as http:
        request_id = http.get(f"{AGENTS}/agent_unknown").headers["request-id"]

    async def logged() -> list[dict[str, Any]]:
        return [json.loads(said) for said in site.said if request_id in said]

    (line,) = asyncio.run(eventually(logged, "the line"))
    assert (line["method"], line["route"], line["status"]) == ("GET", "/v1/agents/{agent_id}", 404)
    assert line["key"] == "owner" and line["ms"] >= 0
    assert TOKEN not in "".join(site.said)
