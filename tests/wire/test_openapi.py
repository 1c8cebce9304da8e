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
EXAMPLES = 6
"""Of each operation and kind: some 400 requests in half a minute, the same each time, so that a failure comes again."""
GOOD = {"authorization": f"Bearer {TOKEN}", "anthropic-beta": BETA, "anthropic-version": VERSION}
PLAIN = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture(scope="module")
def described() -> Any:
    return schemathesis.openapi.from_dict(document(endpoints()))


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[anthropic.Anthropic]:
    with site.client() as made:
        yield made


@pytest.fixture
def things(client: anthropic.Anthropic) -> Mapping[str, str]:
    """Ids of things that are there, by the parameter that stands for them; fresh ones, for some requests end them."""
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


def test_the_document_is_a_valid_one_and_the_command_prints_it() -> None:
    said = subprocess.run([sys.executable, "-m", "server", "openapi"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    printed = json.loads(said.stdout)
    validate(printed)
    assert printed == document(endpoints())


def test_every_endpoint_is_described_with_what_it_takes_gives_and_needs() -> None:
    made = document(endpoints())
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
    site: Site, described: Any, things: Mapping[str, str], endpoint: Endpoint, mode: GenerationMode
) -> None:
    operation = described[endpoint.path][endpoint.method]
    ends = endpoint.media == "application/json"  # a stream of something that is there would go on
    made = iter(range(sys.maxsize))

    @PLAIN
    @given(case=operation.as_strategy(mode))
    def fuzz(case: Any) -> None:
        case.headers.pop(HEADER, None)  # one of few, and mostly used before
        if ends and case.path_parameters and next(made) % 2:  # every other request is about something that is there
            case.path_parameters.update({name: things[name] for name in case.path_parameters if name in things})
        answer = case.call(base_url=site.url, headers=GOOD, timeout=30)
        case.validate_response(answer, checks=CHECKS)

    fuzz()
