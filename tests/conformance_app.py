"""Our MCP server with the fixtures of the official conformance suite: same server object, extension and transport, no
token. `python -m tests.conformance_app` serves it; `scripts/conformance.sh` runs the suite against it.

The fixtures' names and texts are the suite's. Its task fixtures wait for input and fail on purpose, which turns never
do, so the tasks here are kept in memory: another `TaskStore` behind the same extension.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import itertools
import json
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import uvicorn
from mcp import MCPDeprecationWarning, MCPError
from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.server import require_client_extension
from mcp.server.mcpserver.tools import Tool
from mcp.types import (
    INTERNAL_ERROR,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolRequestParams,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

from server.doors.http import PATH, application, listen
from server.doors.mcp.server import assemble
from server.doors.mcp.tasks import TASKS, Task, UnknownTask
from server.ids import now

warnings.simplefilter("ignore", MCPDeprecationWarning)  # the suite asks for logging and sampling too

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SILENCE = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
TASK_TOOLS = frozenset(
    ("slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input", "test_tool_with_task")
)
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


# --- tasks in memory -------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """A tool call that goes on beside its request."""

    task: Task
    work: asyncio.Task[HandlerResult] | None = None
    waiting: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def change(self, **fields: Any) -> None:
        self.task = replace(self.task, updated_at=now(), **fields)

    async def ask(self, *requests: ElicitRequest) -> list[Any]:
        """Park until every request is answered by tasks/update."""
        keys = [f"input-{next(self.numbers)}" for _ in requests]
        shown = [request.model_dump(by_alias=True, mode="json", exclude_none=True) for request in requests]
        self.waiting |= {key: asyncio.get_running_loop().create_future() for key in keys}
        self.change(status="input_required", inputs=dict(zip(keys, shown, strict=True)))
        futures = [self.waiting[key] for key in keys]
        return [await future for future in futures]

    def answer(self, responses: Mapping[str, Any]) -> None:
        for key in self.waiting.keys() & responses.keys():
            self.waiting.pop(key).set_result(responses[key])
        left = {key: value for key, value in (self.task.inputs or {}).items() if key in self.waiting}
        if self.task.status == "input_required":
            self.change(status="input_required" if left else "working", inputs=left or None)

    def finish(self, work: asyncio.Task[HandlerResult]) -> None:
        if work.cancelled():
            self.change(status="cancelled", inputs=None)
        elif (error := work.exception()) is not None:
            code = error.error.code if isinstance(error, MCPError) else INTERNAL_ERROR
            self.change(status="failed", inputs=None, error={"code": code, "message": str(error)})
        else:
            self.change(status="completed", inputs=None, result=_as_json(work.result()))


current: contextvars.ContextVar[Job | None] = contextvars.ContextVar("job", default=None)


class MemoryTasks:
    """A `TaskStore` for tools that are not turns."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    async def call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult | Task:
        if params.name not in TASK_TOOLS:
            return await call_next(ctx)
        job = Job(Task(f"task-{secrets.token_urlsafe(16)}", "working", at := now(), at))

        async def run() -> HandlerResult:
            current.set(job)
            return await call_next(ctx)

        job.work = asyncio.create_task(run())
        await asyncio.wait({job.work}, timeout=0.05)  # a question of the first round is answered inline
        if job.work.done():
            return job.work.result()
        job.work.add_done_callback(job.finish)
        self._jobs[job.task.id] = job
        return job.task

    async def look(self, task_id: str) -> Task:
        return self._find(task_id).task

    async def cancel(self, task_id: str) -> None:
        work = self._find(task_id).work
        if work is not None:
            work.cancel()

    async def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        self._find(task_id).answer(responses)

    def _find(self, task_id: str) -> Job:
        if task_id not in self._jobs:
            raise UnknownTask(task_id)
        return self._jobs[task_id]


def _as_json(result: HandlerResult) -> Mapping[str, Any]:
    if isinstance(result, BaseModel):
        return result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return dict(result or {})


# --- fixtures --------------------------------------------------------------------------------------------------------


def build() -> MCPServer[Any]:
    """Our server with the suite's fixtures."""
    mcp = assemble(MemoryTasks(), [_schema_tool()])
    for add in (_content_tools, _asking_tools, _round_trip_tools, _task_tools, _resources, _prompts, _handlers):
        add(mcp)
    return mcp


def _schema_tool() -> Tool:
    """A tool whose input schema uses what JSON Schema 2020-12 has."""

    async def json_schema_2020_12_tool() -> str:
        """Tool with JSON Schema 2020-12 features"""
        return "done"

    tool = Tool.from_function(json_schema_2020_12_tool)
    text = {"type": "string"}
    address = {"$anchor": "addressDef", "type": "object", "properties": {"street": text, "city": text}}
    tool.parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": address},
        "properties": {
            "name": text,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": text,
            "email": text,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }
    return tool


def _image() -> ImageContent:
    return ImageContent(type="image", data=PIXEL, mime_type="image/png")


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def _content_tools(mcp: MCPServer[Any]) -> None:
    @mcp.tool()
    async def test_simple_text() -> str:
        """Text."""
        return "This is a simple text response for testing."

    @mcp.tool()
    async def test_image_content() -> list[ImageContent]:
        """An image."""
        return [_image()]

    @mcp.tool()
    async def test_audio_content() -> list[AudioContent]:
        """Audio."""
        return [AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")]

    @mcp.tool()
    async def test_embedded_resource() -> list[EmbeddedResource]:
        """An embedded resource."""
        return [_embedded("test://embedded-resource", "This is an embedded resource content.")]

    @mcp.tool()
    async def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
        """Text, image and resource."""
        data = _embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
        return [TextContent(type="text", text="Multiple content types test:"), _image(), data]

    @mcp.tool()
    async def test_error_handling() -> str:
        """An error."""
        raise ToolError("This tool intentionally returns an error for testing")

    @mcp.tool()
    async def test_tool_with_logging(ctx: Context) -> str:
        """Log messages."""
        for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.info(message)
        return "Tool with logging executed successfully"

    @mcp.tool()
    async def test_tool_with_progress(ctx: Context) -> str:
        """Progress notifications."""
        for progress in (0, 50, 100):
            await ctx.report_progress(progress, 100, f"Completed step {progress} of 100")
        return "done"

    @mcp.tool()
    async def test_reconnection(ctx: Context) -> str:
        """Closes its stream, where the transport can resume one."""
        await ctx.close_sse_stream()
        return "Reconnection test completed"

    @mcp.tool()
    async def test_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "",
    ) -> str:
        """An argument that is mirrored in a header."""
        return region


class Response(BaseModel):
    """The form of the first elicitation fixture."""

    response: str = Field(description="User's response")


class Defaults(BaseModel):
    """Defaults of every primitive type (SEP-1034)."""

    name: str = Field("John Doe", description="User name")
    age: int = Field(30, description="User age")
    score: float = Field(95.5, description="User score")
    status: str = Field("active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(True, description="Verification status")


def _titled(*pairs: tuple[str, str]) -> list[Any]:
    return [{"const": const, "title": title} for const, title in pairs]


LEVELS = _titled(("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option"))
OPTIONS: list[Any] = ["option1", "option2", "option3"]
LEGACY: list[Any] = ["opt1", "opt2", "opt3"]


class Enums(BaseModel):
    """The five shapes of enumerations (SEP-1330)."""

    untitledSingle: str = Field(json_schema_extra={"enum": OPTIONS})
    titledSingle: str = Field(json_schema_extra={"oneOf": LEVELS})
    legacyEnum: str = Field(json_schema_extra={"enum": LEGACY, "enumNames": ["One", "Two", "Three"]})
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": OPTIONS}})
    titledMulti: list[str] = Field(json_schema_extra={"items": {"anyOf": LEVELS}})


def _asking_tools(mcp: MCPServer[Any]) -> None:
    async def ask(ctx: Context, message: str, form: type[BaseModel]) -> str:
        result = await ctx.elicit(message, form)
        content = result.data.model_dump_json() if result.action == "accept" else "{}"
        return f"User response: action={result.action}, content={content}"

    @mcp.tool()
    async def test_sampling(prompt: str, ctx: Context) -> str:
        """Asks the client's model."""
        question = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
        result = await ctx.session.create_message(messages=[question], max_tokens=100)
        return f"LLM response: {getattr(result.content, 'text', 'none')}"

    @mcp.tool()
    async def test_elicitation(message: str, ctx: Context) -> str:
        """Asks the person."""
        return await ask(ctx, message, Response)

    @mcp.tool()
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        """A form with defaults."""
        return await ask(ctx, "Please provide user information", Defaults)

    @mcp.tool()
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        """A form with enumerations."""
        return await ask(ctx, "Please select values", Enums)


def _form(message: str, schema: dict[str, Any] = NAME) -> ElicitRequest:
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _field_form(message: str, name: str, kind: str) -> ElicitRequest:
    return _form(message, {"type": "object", "properties": {name: {"type": kind}}, "required": [name]})


def _sample(text: str, max_tokens: int) -> CreateMessageRequest:
    question = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[question], max_tokens=max_tokens))


def _given(ctx: Context, key: str) -> Any:
    return (ctx.input_responses or {}).get(key)


Asked = str | InputRequiredResult


def _round_trip_tools(mcp: MCPServer[Any]) -> None:
    prefix = "test_input_required_result_"

    @mcp.tool(name=f"{prefix}elicitation")
    async def elicitation(ctx: Context) -> Asked:
        """One question."""
        answer = _given(ctx, "user_name")
        if answer is None or not (getattr(answer, "content", None) or {}).get("name"):
            return InputRequiredResult(input_requests={"user_name": _form("What is your name?")})
        return f"Hello, {answer.content['name']}!"

    @mcp.tool(name=f"{prefix}sampling")
    async def sampling(ctx: Context) -> Asked:
        """One question to the client's model."""
        answer = _given(ctx, "capital_question")
        if answer is None:
            return InputRequiredResult(
                input_requests={"capital_question": _sample("What is the capital of France?", 100)}
            )
        return str(getattr(answer.content, "text", answer.content))

    @mcp.tool(name=f"{prefix}list_roots")
    async def list_roots(ctx: Context) -> Asked:
        """The client's roots."""
        answer = _given(ctx, "client_roots")
        if answer is None:
            return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
        return "Roots: " + ", ".join(str(root.uri) for root in answer.roots)

    @mcp.tool(name=f"{prefix}request_state")
    async def request_state(ctx: Context) -> Asked:
        """A question with state."""
        if ctx.request_state != "confirming" or _given(ctx, "confirm") is None:
            question = _field_form("Please confirm", "ok", "boolean")
            return InputRequiredResult(input_requests={"confirm": question}, request_state="confirming")
        return "state-ok"

    @mcp.tool(name=f"{prefix}multiple_inputs")
    async def multiple_inputs(ctx: Context) -> Asked:
        """Three questions at once."""
        keys = ("user_name", "greeting", "client_roots")
        if any(_given(ctx, key) is None for key in keys):
            requests = (_form("What is your name?"), _sample("Generate a greeting", 50), ListRootsRequest())
            return InputRequiredResult(
                input_requests=dict(zip(keys, requests, strict=True)), request_state="three questions"
            )
        return "all there"

    @mcp.tool(name=f"{prefix}multi_round")
    async def multi_round(ctx: Context) -> Asked:
        """Two rounds."""
        if ctx.request_state == "round 2" and _given(ctx, "step2") is not None:
            return "both rounds done"
        if ctx.request_state == "round 1" and _given(ctx, "step1") is not None:
            question = _field_form("Step 2: What is your favorite color?", "color", "string")
            return InputRequiredResult(input_requests={"step2": question}, request_state="round 2")
        return InputRequiredResult(
            input_requests={"step1": _form("Step 1: What is your name?")}, request_state="round 1"
        )

    @mcp.tool(name=f"{prefix}tampered_state")
    async def tampered_state(ctx: Context) -> Asked:
        """State that the server must refuse when it was changed."""
        if ctx.request_state is None:
            question = _field_form("Please confirm", "ok", "boolean")
            return InputRequiredResult(input_requests={"confirm": question}, request_state="untouched")
        return "state-ok"

    @mcp.tool(name=f"{prefix}capabilities")
    async def capabilities(ctx: Context) -> Asked:
        """Asks only what the client can answer."""
        if ctx.input_responses:
            return "answered"
        can = ctx.client_capabilities
        requests: dict[str, Any] = {}
        if can is not None and can.elicitation is not None:
            requests["user_name"] = _form("What is your name?")
        if can is not None and can.sampling is not None:
            requests["greeting"] = _sample("Generate a greeting", 50)
        return InputRequiredResult(input_requests=requests) if requests else "nothing can be asked"

    @mcp.tool()
    async def test_missing_capability(ctx: Context) -> str:
        """Needs sampling."""
        can = ctx.client_capabilities
        if can is None or can.sampling is None:
            data: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "Sampling is needed", data)
        return "there"


def _job() -> Job:
    job = current.get()
    if job is None:
        raise ToolError("This tool can only ask as a task.")
    return job


def _task_tools(mcp: MCPServer[Any]) -> None:
    @mcp.tool()
    async def greet(name: str = "world") -> str:
        """Never a task."""
        return f"Hello, {name}!"

    @mcp.tool()
    async def slow_compute(seconds: float = 2.0) -> str:
        """Takes its time."""
        await asyncio.sleep(seconds)
        return f"computed for {seconds} s"

    @mcp.tool()
    async def failing_job(ctx: Context) -> str:
        """Fails as a tool; only ever a task."""
        require_client_extension(ctx.request_context, TASKS)
        await asyncio.sleep(0.3)
        raise ToolError("job failed on purpose")

    @mcp.tool()
    async def protocol_error_job() -> str:
        """Fails as a request."""
        await asyncio.sleep(0.3)
        raise MCPError(INTERNAL_ERROR, "protocol error on purpose")

    @mcp.tool()
    async def confirm_delete(filename: str = "file") -> str:
        """Asks in the middle."""
        (answer,) = await _job().ask(_field_form(f"Delete {filename}?", "confirm", "boolean"))
        return f"answer: {json.dumps(answer)}"

    @mcp.tool()
    async def multi_input() -> str:
        """Asks twice at once."""
        answers = await _job().ask(_form("name?"), _field_form("colour?", "colour", "string"))
        return json.dumps(answers)

    @mcp.tool()
    async def test_tool_with_task(ctx: Context) -> Asked:
        """Asks first, then becomes a task; nothing else will do."""
        require_client_extension(ctx.request_context, TASKS)
        answer = _given(ctx, "user_name")
        if answer is None:
            return InputRequiredResult(input_requests={"user_name": _form("Your name?")}, request_state="asked")
        await asyncio.sleep(0.5)
        return f"hello {answer.content}"


def _resources(mcp: MCPServer[Any]) -> None:
    @mcp.resource("test://static-text", mime_type="text/plain")
    async def static_text() -> str:
        return "This is the content of the static text resource."

    @mcp.resource("test://static-binary", mime_type="image/png")
    async def static_binary() -> bytes:
        return base64.b64decode(PIXEL)

    @mcp.resource("test://template/{id}/data", mime_type="application/json")
    async def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @mcp.resource("test://watched-resource", mime_type="text/plain")
    async def watched() -> str:
        return "Watched resource content"


def _prompts(mcp: MCPServer[Any]) -> None:
    def user(*contents: TextContent | ImageContent | EmbeddedResource) -> list[dict[str, Any]]:
        return [{"role": "user", "content": content.model_dump(by_alias=True, mode="json")} for content in contents]

    def text(value: str) -> TextContent:
        return TextContent(type="text", text=value)

    @mcp.prompt(description="A fixture")
    async def test_simple_prompt() -> list[dict[str, Any]]:
        return user(text("This is a simple prompt for testing."))

    @mcp.prompt(description="A fixture")
    async def test_prompt_with_arguments(arg1: str, arg2: str) -> list[dict[str, Any]]:
        return user(text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))

    @mcp.prompt(description="A fixture")
    async def test_prompt_with_embedded_resource(resourceUri: str) -> list[dict[str, Any]]:
        data = _embedded(resourceUri, "Embedded resource content for testing.")
        return user(data, text("Please process the embedded resource above."))

    @mcp.prompt(description="A fixture")
    async def test_prompt_with_image() -> list[dict[str, Any]]:
        return user(_image(), text("Please analyze the image above."))

    @mcp.prompt(description="A fixture")
    async def test_input_required_result_prompt(ctx: Context) -> Any:
        answer = _given(ctx, "user_context")
        if answer is None:
            question = _field_form("What context should the prompt use?", "context", "string")
            return InputRequiredResult(input_requests={"user_context": question})
        return user(text(f"Context: {answer.content}"))


def _handlers(mcp: MCPServer[Any]) -> None:
    async def complete(ctx: Any, params: Any) -> CompleteResult:
        return CompleteResult(completion=Completion(values=[], total=0, has_more=False))

    async def done(ctx: Any, params: Any) -> EmptyResult:
        return EmptyResult()

    for method, params in (
        ("logging/setLevel", SetLevelRequestParams),
        ("resources/subscribe", SubscribeRequestParams),
        ("resources/unsubscribe", UnsubscribeRequestParams),
    ):
        mcp._lowlevel_server.add_request_handler(method, params, done)
    mcp._lowlevel_server.add_request_handler("completion/complete", CompleteRequestParams, complete)


async def serve() -> None:
    """Serve on a free port of this machine; the address is the first line of standard output."""
    with listen("127.0.0.1", 0) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}", flush=True)
        config = uvicorn.Config(application(build(), None), log_level="warning", timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve())
