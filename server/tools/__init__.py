"""What the model is offered. One tool a file: its name, description, input schema, and how a call becomes an operation.

Above: `sessions` (which tools an agent has) and `sessions.loop` (which runs them). Below: `sandbox.wire`, whose
operations the runner does inside the sandbox. Input names are those of the wire toolset `agent_toolset_20260401`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.wire import Operation


class BadArguments(Exception):
    """The model called a tool with input that its schema does not allow; the text tells the model what to change."""


@dataclass(frozen=True)
class Offered:
    """What the model is told of a tool, and held to."""

    name: str
    description: str
    properties: Mapping[str, Any]
    required: tuple[str, ...]

    def definition(self) -> dict[str, Any]:
        """The tool as the Messages API takes it."""
        schema = {
            "type": "object",
            "properties": dict(self.properties),
            "required": list(self.required),
            "additionalProperties": False,
        }
        return {"name": self.name, "description": self.description, "input_schema": schema}

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Hold a call's input to the schema. Raises BadArguments."""
        for name in self.required:
            if name not in arguments:
                raise BadArguments(f"{self.name}: `{name}` is missing. {self._usage()}")
        for name, value in arguments.items():
            if name not in self.properties:
                raise BadArguments(f"{self.name}: there is no input `{name}`. {self._usage()}")
            if not _fits(value, self.properties[name]):
                raise BadArguments(
                    f"{self.name}: `{name}` must be {_expected(self.properties[name])}, not {value!r:.80}."
                )

    def _usage(self) -> str:
        names = (name if name in self.required else f"{name} (optional)" for name in self.properties)
        return f"Inputs: {', '.join(names)}."


@dataclass(frozen=True)
class Tool(Offered):
    """A builtin tool that the runner does inside the sandbox."""

    operation: Callable[[Mapping[str, Any]], tuple[Operation, bytes]]
    """Checked arguments to an operation and its payload."""

    def prepare(self, arguments: Mapping[str, Any]) -> tuple[Operation, bytes]:
        """The operation for this call. Raises BadArguments."""
        self.check(arguments)
        return self.operation(arguments)


_TYPES: Mapping[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "boolean": (bool,), "array": (list,)}


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, bool):
        return bool(schema["type"] == "boolean")
    if not isinstance(value, _TYPES[schema["type"]]):
        return False
    if isinstance(value, list):
        inside = len(value) >= schema.get("minItems", 0) and len(value) <= schema.get("maxItems", len(value))
        return inside and all(_fits(item, schema["items"]) for item in value)
    if isinstance(value, int):
        return bool(value >= schema.get("minimum", value))
    return True


def _expected(schema: Mapping[str, Any]) -> str:
    kind = str(schema["type"])
    if kind == "array":
        return f"a list of {schema.get('minItems', 0)} to {schema.get('maxItems', 'many')} {schema['items']['type']}s"
    least = f" of at least {schema['minimum']}" if "minimum" in schema else ""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}{least}"
