"""The OpenAPI document, and a real server held to it by requests that schemathesis makes up from it."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.doors.rest.app import endpoints
from server.doors.rest.endpoint import Endpoint
from server.doors.rest.idempotency import HEADER
from server.doors.rest.openapi import document
from tests.support.served import BETA, TOKEN, VERSION, Site

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 4
"""Of each operation and kind: some 280 requests, the same each time, so that a failure comes again."""
CREATE, SEND = "POST /v1/sessions", "POST /v1/sessions/{session_id}/events"
GOOD = {"authorization": f"Bearer {TOKEN}", "anthropic-beta": BETA, "anthropic-version": VERSION}
PLAIN = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(endpoints())


@pytest.fixture(scope="module")
def described(made: dict[str, Any]) -> Any:
    return schemathesis.openapi.from_dict(made)


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[anthropic.Anthropic]:
    with site.client() as made:
        yield made


@pytest.fixture(scope="module")
def connection() -> Iterator[requests.Session]:
    with requests.Session() as made:
        yield made


@pytest.fixture(scope="module")
def kept(client: anthropic.Anthropic) -> Mapping[str, str]:
    """Ids of things that are there, by the parameter that stands for them."""
    return things(client)


def things(client: anthropic.Anthropic) -> Mapping[str, str]:
    """Fresh ones, for requests that end them."""
    beta = client.beta
    agent = beta.agents.create(name="fuzzed", model="claude-sonnet-5-5")
    environment = beta.environments.create(name=f"fuzzed {secrets.token_hex(4)}")
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    (thread,) = beta.sessions.threads.list(session.id)
    uploaded = beta.files.upload(file=("fuzzed.txt", b"text"))
    return {
        "agent_id": agent.id,
        "environment_id": environment.id,
        "session_id": session.id,
        "thread_id": thread.id,
        "file_id": uploaded.id,
    }


def test_the_document_is_a_valid_one_and_the_command_prints_it(made: dict[str, Any]) -> None:
    said = subprocess.run([sys.executable, "-m", "server", "openapi"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    printed = json.loads(said.stdout)
    validate(printed)
    assert printed == made


def test_every_endpoint_is_described_with_what_it_takes_gives_and_needs(made: dict[str, Any]) -> None:
    for endpoint in endpoints():
        operation = made["paths"][endpoint.path][endpoint.method.lower()]
        assert operation["summary"] and set(operation["responses"]) >= {"200", "400", "401", "404"}
        assert ("requestBody" in operation) == bool(endpoint.takes or endpoint.raw)
        names = {each["name"] for each in operation["parameters"] if "name" in each}
        assert set(re.findall(r"{(\w+)}", endpoint.path)) | set(endpoint.query) <= names
        assert ("anthropic-beta" in names) == (endpoint.beta is not None)
    assert not {"betas", "workspace_id"} & set(made["components"]["schemas"]["AgentCreateParams"]["properties"])


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("endpoint", endpoints(), ids=named)
def test_the_server_keeps_to_its_document(
    site: Site,
    described: Any,
    client: anthropic.Anthropic,
    kept: Mapping[str, str],
    connection: requests.Session,
    endpoint: Endpoint,
    mode: GenerationMode,
) -> None:
    operation = described[endpoint.path][endpoint.method]
    ends = endpoint.media == "application/json"  # a stream of something that is there would go on
    last = endpoint.method == "DELETE" or endpoint.path.endswith("/archive")
    ids = things(client) if last else kept
    tried = iter(range(sys.maxsize))
    rare = mode is GenerationMode.POSITIVE and named(endpoint) in (CREATE, SEND)  # so much must be true for a success
    said = []

    @PLAIN
    @given(case=operation.as_strategy(mode))
    def fuzz(case: Any) -> None:
        case.headers.pop(HEADER, None)  # one of few, and mostly used before
        if ends and (next(tried) % 2 or rare):  # every other request is about something that is there
            case.path_parameters.update({name: ids[name] for name in case.path_parameters if name in ids})
            if mode is GenerationMode.POSITIVE:
                case.body = likely(endpoint, case.body, ids)
        answer = case.call(base_url=site.url, headers=GOOD, timeout=30, session=connection)
        case.validate_response(answer, checks=CHECKS)
        said.append((answer.status_code, answer.text[:200]))

    fuzz()
    assert not rare or [status for status, _ in said].count(200) >= EXAMPLES // 2, said


def likely(endpoint: Endpoint, body: Any, ids: Mapping[str, str]) -> Any:
    """The body that was made up, made true in what no schema knows: which ids there are, and which kinds are served."""
    if named(endpoint) == CREATE:
        kept = {"title": body["title"][:100]} if body.get("title") else {}
        begun = [told(event) for event in body.get("initial_events") or [] if event["type"] == "user.message"]
        return {**kept, "agent": ids["agent_id"], "environment_id": ids["environment_id"], "initial_events": begun}
    if named(endpoint) == SEND:
        events = [
            told(event) if event["type"] == "user.message" else {"type": "user.interrupt"} for event in body["events"]
        ]
        return {"events": events or [told({"content": []})]}
    return body


def told(event: Mapping[str, Any]) -> dict[str, Any]:
    """A message with the texts of the one that was made up."""
    texts = [block["text"] for block in event["content"] if block["type"] == "text" and block["text"].strip()]
    return {"type": "user.message", "content": [{"type": "text", "text": text} for text in texts or ["Go on."]]}
