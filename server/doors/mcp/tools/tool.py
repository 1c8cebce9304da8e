"""What all tools share: how they are described, and that everything wrong with a call is said in words.

Unknown arguments are refused by name (the SDK drops them), and no failure is masked: a refusal of the service comes
with its own text, anything unexpected with its type and what to do.
"""

from __future__ import annotations

import logging
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp.types import ToolAnnotations
from pydantic import ValidationError

from server.errors import SkiffError

logger = logging.getLogger(__name__)

Effect = Literal["reads", "works", "writes", "stops", "deletes"]
_EFFECTS: dict[Effect, ToolAnnotations] = {
    "reads": ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False),
    "works": ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True),
    "writes": ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False),
    "stops": ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False),
    "deletes": ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
    ),
}


class Arguments(FuncMetadata):
    """The SDK parses JSON in text arguments for hosts that send objects as text; text must stay text."""

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        fields = self.arg_model.model_fields
        plain = {name: value for name, value in data.items() if name in fields and _is_text(fields[name].annotation)}
        return super().pre_parse_json(data) | plain


class SkiffTool(Tool):
    """A tool whose every failure reaches the model in words."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        """See `Tool.run`; raises ToolError with the plain text of what is wrong."""
        self._refuse_unknown(arguments)
        try:
            return await super().run(arguments, context, convert_result)
        except UnexpectedToolError as error:
            raise _explained(self.name, error.__cause__ or error) from error.__cause__
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                raise ToolError(f"{self.name}: {_problems(cause)}") from cause
            raise ToolError(str(cause) if isinstance(cause, ToolError) else str(error)) from None

    def _refuse_unknown(self, arguments: dict[str, Any]) -> None:
        known = list(self.parameters.get("properties", {}))
        for name in arguments:
            if name in known:
                continue
            raise ToolError(f"{self.name}: there is no argument `{name}`. It takes {', '.join(known)}.")


def tool(function: Callable[..., Any], title: str, effect: Effect, *, core: bool = False) -> Tool:
    """A tool made of a function: its docstring is the description, its annotations are the schemas.

    `core` tools are marked to be loaded always: hosts with tool search hide the others until they are looked for.
    """
    made = SkiffTool.from_function(
        function,
        title=title,
        description=" ".join((function.__doc__ or "").split()),
        annotations=_EFFECTS[effect],
        meta={"anthropic/alwaysLoad": True} if core else None,
    )
    old = made.fn_metadata
    made.fn_metadata = Arguments(
        arg_model=old.arg_model,
        output_schema=old.output_schema,
        output_model=old.output_model,
        wrap_output=old.wrap_output,
    )
    made.parameters["additionalProperties"] = False
    return made


def _is_text(annotation: Any) -> bool:
    """Whether the annotation takes text or nothing, and no structure."""
    if get_origin(annotation) in (Union, types.UnionType):
        return all(part in (str, type(None)) for part in get_args(annotation))
    return annotation is str


def _explained(name: str, error: BaseException) -> ToolError:
    if isinstance(error, SkiffError):
        return ToolError(str(error))
    logger.error("tool %s failed", name, exc_info=error)
    what = f"{type(error).__name__}: {error}"[:500]
    return ToolError(f"Skiff failed internally ({what}); the session is unharmed; try again or look at the log.")


def _problems(error: ValidationError) -> str:
    """What is wrong with the arguments, one by one."""
    found = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        found.append(f"`{where}`: {item['msg']}" if where else item["msg"])
    return "; ".join(found) + "."
