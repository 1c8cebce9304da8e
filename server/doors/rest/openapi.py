"""The OpenAPI 3.1 document of what is served, made from the endpoints and from the SDK's types that they name.

Above: `skiff openapi`, and the tests that check the server against it. Below: the endpoints. The SDK's types are
imported when a document is asked for, and never by a server: its requests are read by the use-cases, whose rules are
narrower than types (a tool that is not supported is well typed).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from server.doors.rest.app import BETA, VERSION
from server.doors.rest.endpoint import Endpoint
from server.doors.rest.idempotency import HEADER

Schema = dict[str, Any]

REF = "#/components/schemas/{model}"
HEADERS_OF_THE_SDK = ("betas", "workspace_id")
"""Parameters of the SDK's methods that travel as headers."""
ERRORS = {
    "400": "The request is wrong, asks for what is not supported, or for what the object's state forbids.",
    "401": "No key, or a wrong one.",
    "403": "The Origin header is that of a strange web page.",
    "404": "There is no such object, or the beta is not named.",
    "408": "The body stopped coming.",
    "409": "Another change came first, or the Idempotency-Key was used for another request; `x-should-retry` says"
    " whether the same request may succeed later.",
    "413": "The body is too large.",
    "421": "The Host header names another server.",
    "500": "Something went wrong inside; the log has the request id.",
}
_KINDS = (
    "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large",
    "timeout_error", "api_error",
)  # fmt: skip
_ENVELOPE: Schema = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"enum": list(_KINDS)},
                "message": {"type": "string"},
                "details": {"type": "object", "properties": {"error_code": {"type": "string"}}},
            },
        },
        "request_id": {"type": "string", "pattern": "^req_"},
    },
}
_REQUEST_ID: Schema = {"description": "The request's id, the same as in an error.", "schema": {"type": "string"}}
_PARAMETERS: Mapping[str, Schema] = {
    "version": {
        "name": VERSION, "in": "header", "required": True,
        "schema": {"type": "string", "pattern": r"^20\d\d-[01]\d-[0-3]\d$"}, "example": "2023-06-01",
    },
    "workspace": {"name": "anthropic-workspace-id", "in": "header", "schema": {"type": "string"}},
    "key": {
        "name": HEADER, "in": "header", "description": "The same key again gives the same answer, for a day.",
        "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
    },
}  # fmt: skip


def document(endpoints: Sequence[Endpoint]) -> Schema:
    """The whole document."""
    types = Types(endpoints)
    operations: dict[str, Schema] = {}
    for endpoint in endpoints:
        operations.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, types)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Skiff",
            "version": version("skiff-agents"),
            "description": "Sandboxed Claude sub-agents over the wire API of Claude Managed Agents.",
        },
        "security": [{"bearer": []}, {"key": []}],
        "paths": operations,
        "components": {
            "schemas": {**types.schemas, "Error": _ENVELOPE},
            "parameters": _PARAMETERS,
            "responses": {status: _error(words) for status, words in ERRORS.items()},
            "headers": {"request-id": _REQUEST_ID},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


class Types:
    """The schemas of the SDK's types that endpoints name, in one namespace."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        taken = {endpoint.takes for endpoint in endpoints if endpoint.takes and not endpoint.raw}
        given = {endpoint.gives for endpoint in endpoints if endpoint.gives}
        asked = [(name, "validation", TypeAdapter(_type(name))) for name in sorted(taken)]
        asked += [(name, "serialization", TypeAdapter(_type(name))) for name in sorted(given)]
        made, common = TypeAdapter.json_schemas(asked, ref_template=REF)  # type: ignore[arg-type]
        self._made = {name: schema for (name, _), schema in made.items()}
        self.schemas: Schema = common.get("$defs", {})
        for schema in self.schemas.values():
            _drop(schema, HEADERS_OF_THE_SDK)
        _sort(common)
        _sort(self._made)

    def of(self, name: str) -> Schema:
        """The schema of a type: mostly a reference to it."""
        return self._made[name]

    def body(self, endpoint: Endpoint) -> Schema:
        """What an endpoint takes, without what travels in its path."""
        schema = self._made[endpoint.takes]
        parameters = _parameters(endpoint.path)
        named = schema.get("$ref", "").rpartition("/")[2]
        _drop(self.schemas.get(named, schema), (*HEADERS_OF_THE_SDK, *parameters))
        return schema


def _type(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def _sort(value: Any) -> None:
    """Put every enumeration in order: that of a Literal depends on which equal one was made first in the process."""
    if isinstance(value, dict):
        if isinstance(value.get("enum"), list):
            value["enum"] = sorted(value["enum"], key=str)
        for item in value.values():
            _sort(item)
    elif isinstance(value, list):
        for item in value:
            _sort(item)


def _drop(schema: Schema, names: Sequence[str]) -> None:
    """Take properties out of an object's schema."""
    for name in names:
        schema.get("properties", {}).pop(name, None)
    required = [name for name in schema.pop("required", []) if name not in names]
    if required:
        schema["required"] = required


def _operation(endpoint: Endpoint, types: Types) -> Schema:
    operation: Schema = {
        "summary": endpoint.summary,
        "operationId": _operation_id(endpoint),
        "tags": [endpoint.path.split("/")[2]],
        "parameters": list(_all_parameters(endpoint)),
        "responses": {"200": _answer(endpoint, types), **{s: {"$ref": f"#/components/responses/{s}"} for s in ERRORS}},
    }
    if endpoint.takes or (endpoint.raw and endpoint.method == "POST"):
        operation["requestBody"] = _body(endpoint, types)
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"[a-z_]+", endpoint.path.removeprefix("/v1/"))
    return "_".join([endpoint.method.lower(), *words])


def _all_parameters(endpoint: Endpoint) -> Iterator[Schema]:
    yield {"$ref": "#/components/parameters/version"}
    yield {"$ref": "#/components/parameters/workspace"}
    if endpoint.beta:
        yield {
            "name": BETA,
            "in": "header",
            "required": True,
            "description": f"A comma-separated list with {endpoint.beta} in it.",
            "schema": {"type": "string", "pattern": re.escape(endpoint.beta).replace(r"\-", "-")},
            "example": endpoint.beta,
        }
    if endpoint.method == "POST":
        yield {"$ref": "#/components/parameters/key"}
    for name in _parameters(endpoint.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name, schema in endpoint.query.items():
        yield {"name": name, "in": "query", "schema": dict(schema)}


def _parameters(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _body(endpoint: Endpoint, types: Types) -> Schema:
    if endpoint.raw:
        part = {"type": "string", "contentMediaType": "application/octet-stream"}
        form: Schema = {"type": "object", "required": ["file"], "properties": {"file": part}}
        return {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return {"required": True, "content": {"application/json": {"schema": types.body(endpoint)}}}


def _answer(endpoint: Endpoint, types: Types) -> Schema:
    schema: Schema = types.of(endpoint.gives) if endpoint.gives else {}
    if endpoint.many:
        schema = {
            "type": "object",
            "required": ["data"],
            "properties": {"data": {"type": "array", "items": schema}, "next_page": {"type": ["string", "null"]}},
        }
    if endpoint.media != "application/json":
        schema = {"type": "string"}
    headers = {"request-id": {"$ref": "#/components/headers/request-id"}}
    return {"description": endpoint.summary, "headers": headers, "content": {endpoint.media: {"schema": schema}}}


def _error(words: str) -> Schema:
    headers = {"request-id": {"$ref": "#/components/headers/request-id"}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": words, "headers": headers, "content": content}
