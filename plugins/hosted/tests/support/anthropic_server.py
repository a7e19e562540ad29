"""A strict local server with Anthropic's API (https://platform.claude.com/docs/en/api/messages, version 2026-10-21)."""

import base64
import binascii
import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field

from tests.support.strict_server import (
    RecordedRequest,
    Rejection,
    ServedReply,
    StrictModel,
    StrictServer,
    validate_body,
)

VERSION = "2026-10-21"
THINKING_TYPES: dict[str, set[str]] = {
    "claude-haiku-4-5": {"enabled", "disabled"},
    "claude-sonnet-4-5": {"enabled", "disabled"},
    "claude-opus-4-5": {"enabled", "disabled"},
    "claude-sonnet-4-6": {"enabled", "adaptive", "disabled"},
    "claude-opus-4-8": {"adaptive"},
    "claude-opus-5": {"adaptive", "disabled"},
    "claude-sonnet-5": {"adaptive", "disabled"},
    "claude-opus-5-5": {"adaptive"},
    "claude-sonnet-5-5": {"adaptive", "between_tools"},
    "claude-haiku-5-5": {"adaptive", "disabled"},
    "claude-fable-5-1": {"adaptive"},
}
"""The models that are served, and the types of `thinking` that each accepts; every other type is an error."""
DEFAULT_THINKING = {
    "claude-opus-5", "claude-sonnet-5", "claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-1"
}  # fmt: skip
NO_FORCED_TOOLS = {"claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-1"}
NO_EFFORT = {"claude-haiku-4-5", "claude-sonnet-4-5"}
SCHEMA_KEYWORDS = {
    "type", "enum", "const", "anyOf", "allOf", "$ref", "$defs", "properties", "required", "additionalProperties", "items",
    "minItems", "format", "description", "title",
}  # fmt: skip
ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 529: "overloaded_error",
}  # fmt: skip


class CacheControl(StrictModel):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class TextBlock(StrictModel):
    type: Literal["text"]
    text: str = Field(min_length=1)
    cache_control: CacheControl | None = None


class Base64Source(StrictModel):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class UrlSource(StrictModel):
    type: Literal["url"]
    url: str = Field(pattern="^https://")


class ImageBlock(StrictModel):
    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]
    cache_control: CacheControl | None = None


class ToolUseBlock(StrictModel):
    type: Literal["tool_use"]
    id: str = Field(pattern=r"^[a-zA-Z0-9_-]+$")
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class ToolResultBlock(StrictModel):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock]
    is_error: bool = False
    cache_control: CacheControl | None = None


UserBlock = Annotated[TextBlock | ImageBlock | ToolResultBlock, Field(discriminator="type")]
AssistantBlock = Annotated[TextBlock | ToolUseBlock, Field(discriminator="type")]


class UserMessage(StrictModel):
    role: Literal["user"]
    content: str | list[UserBlock]


class AssistantMessage(StrictModel):
    role: Literal["assistant"]
    content: str | list[AssistantBlock]


class Tool(StrictModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")
    input_schema: dict[str, Any]
    description: str = ""
    strict: bool = False
    cache_control: CacheControl | None = None


class ToolChoice(StrictModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(StrictModel):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: int | None = Field(None, ge=1024)
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(StrictModel):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(StrictModel):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class MessageRequest(StrictModel):
    """The parameters of a message; also those of one request of a batch."""

    model: str
    max_tokens: int = Field(ge=1, le=128_000)
    messages: list[Annotated[UserMessage | AssistantMessage, Field(discriminator="role")]] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    tools: tuple[Tool, ...] = Field((), strict=False)
    tool_choice: ToolChoice | None = None
    stop_sequences: list[str] | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "standard_only"] = "auto"
    stream: Literal[False] = False


class AnthropicServer(StrictServer):
    def respond(self, request: RecordedRequest) -> Any:
        self.check_headers(request)
        if (request.method, request.path) != ("POST", "/v1/messages"):
            raise Rejection(404, f"Not found: {request.method} {request.path}")
        return self.build_message(request.body)

    def check_headers(self, request: RecordedRequest) -> None:
        headers = request.headers
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if key != self.key:
            raise Rejection(401, "invalid x-api-key")
        if headers.get("anthropic-version") != VERSION:
            raise Rejection(400, "anthropic-version: header is required")
        if request.method == "POST" and headers.get("content-type") != "application/json":
            raise Rejection(400, "content-type: must be application/json")

    def build_error(self, rejection: Rejection) -> Any:
        kind = ERROR_TYPES.get(rejection.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": str(rejection)}, "request_id": "req_1"}

    def build_message(self, body: Any) -> dict[str, Any]:
        """The message for a request's parameters. Raises Rejection."""
        request = validate_body(MessageRequest, body)
        check_message_request(request)
        form = request.output_config.format if request.output_config else None
        reply_tool = request.tools[0] if request.tools and request.tool_choice else None
        schema = form.schema_ if form else reply_tool.input_schema if reply_tool else None
        turns = [("system", _join_text(request.system))] if request.system else []
        turns += [(message.role, _join_text(message.content)) for message in request.messages]
        contract = reply_tool.name if reply_tool else ""
        reply = self.answer(self.build_question(turns, schema, request.max_tokens, contract))
        return self._write_message(request, reply, reply_tool)

    def _write_message(self, request: MessageRequest, reply: ServedReply, reply_tool: Tool | None) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        thinks = (
            request.thinking.type in ("enabled", "adaptive") if request.thinking else request.model in DEFAULT_THINKING
        )
        if thinks:
            shown = reply.thinking if request.thinking and request.thinking.display != "omitted" else ""
            content.append({"type": "thinking", "thinking": shown, "signature": "c2ln"})
        stop = reply.stop or "end_turn"
        if reply_tool and reply.text.startswith("{"):
            stop = reply.stop or "tool_use"
            content.append(
                {"type": "tool_use", "id": "toolu_1", "name": reply_tool.name, "input": json.loads(reply.text)}
            )
        elif reply.text:
            content.append({"type": "text", "text": reply.text, "citations": None})
        words = len(str(request.messages).split())
        usage = {
            "input_tokens": words, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": len(reply.text.split()) + len(reply.thinking.split()), "service_tier": "standard",
        }  # fmt: skip
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": request.model, "content": content,
            "stop_reason": stop, "stop_sequence": None, "usage": dict(reply.usage) if reply.usage else usage,
            **({"stop_details": {"type": "refusal", "category": "bio", "explanation": reply.text}} if stop == "refusal" else {}),
        }  # fmt: skip


def check_message_request(request: MessageRequest) -> None:
    """The rules beyond the form of a request. Raises Rejection."""
    model = re.sub(r"-\d{8}$", "", request.model)
    if model not in THINKING_TYPES:
        raise Rejection(404, f"model: {request.model}")
    thinking, output = request.thinking, request.output_config
    if thinking:
        _check_thinking(thinking, model, request.max_tokens)
    if output and output.effort and model in NO_EFFORT:
        raise Rejection(400, "This model does not support the effort parameter.")
    if output and output.format:
        check_output_schema(output.format.schema_, output.format.schema_)
    thinks = thinking.type in ("enabled", "adaptive") if thinking else model in DEFAULT_THINKING
    if request.tool_choice and request.tool_choice.type in ("any", "tool"):
        if not request.tools:
            raise Rejection(400, "tool_choice: may only be specified while providing tools")
        if model in NO_FORCED_TOOLS:
            raise Rejection(400, "tool_choice: forced tool use is not supported for this model.")
        if thinks:
            raise Rejection(400, "Thinking may not be enabled when tool_choice forces tool use.")
        if request.tool_choice.type == "tool" and request.tool_choice.name not in {tool.name for tool in request.tools}:
            raise Rejection(400, f"tool_choice.name: tool {request.tool_choice.name!r} not found in tools")
    _check_turns(request)


def _check_thinking(thinking: Thinking, model: str, max_tokens: int) -> None:
    if thinking.type not in THINKING_TYPES[model]:
        raise Rejection(
            400,
            f'"thinking.type.{thinking.type}" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort" to control thinking behavior.',
        )
    if (thinking.type == "enabled") != (thinking.budget_tokens is not None):
        raise Rejection(400, "thinking.budget_tokens: required for enabled thinking only")
    if thinking.budget_tokens is not None and thinking.budget_tokens >= max_tokens:
        raise Rejection(400, "`max_tokens` must be greater than `thinking.budget_tokens`.")
    if thinking.display and thinking.type not in ("enabled", "adaptive"):
        raise Rejection(400, "thinking.display: Extra inputs are not permitted")


def _check_turns(request: MessageRequest) -> None:
    blocks = [block for message in request.messages if isinstance(message.content, list) for block in message.content]
    marked = [*blocks, *request.tools, *(request.system if isinstance(request.system, list) else ())]
    if sum(block.cache_control is not None for block in marked) > 4:
        raise Rejection(400, "A maximum of 4 blocks with cache_control may be provided.")
    if request.messages[0].role != "user":
        raise Rejection(400, "messages: first message must use the user role")
    if request.messages[-1].role == "assistant":
        raise Rejection(400, "This model does not support assistant message prefill.")
    if any(isinstance(block, ToolUseBlock | ToolResultBlock) for block in blocks) and not request.tools:
        raise Rejection(400, "Requests which have `tool_use` or `tool_result` blocks in messages must define tools.")
    for block in blocks:
        if isinstance(block, ImageBlock) and isinstance(block.source, Base64Source):
            try:
                base64.b64decode(block.source.data, validate=True)
            except binascii.Error:
                raise Rejection(400, "messages: image source.base64.data: invalid base64 data") from None
    for before, after in zip(request.messages, [*request.messages[1:], None], strict=True):
        used = (
            {b.id for b in before.content if isinstance(b, ToolUseBlock)} if isinstance(before.content, list) else set()
        )
        content = after.content if after and isinstance(after.content, list) else []
        answered = {block.tool_use_id for block in content if isinstance(block, ToolResultBlock)}
        if used != answered:
            raise Rejection(400, "messages: each `tool_use` block must have its `tool_result` in the next message.")


def check_output_schema(part: Any, root: dict[str, Any], inside: tuple[str, ...] = ()) -> None:
    """The limits of structured outputs. Raises Rejection."""
    if not isinstance(part, dict) or not part:
        raise Rejection(400, "output_config.format.schema: a schema must have a type")
    if unknown := part.keys() - SCHEMA_KEYWORDS:
        raise Rejection(
            400, f"output_config.format.schema: For '{part.get('type')}' type, property {unknown} is not supported"
        )
    if "$ref" in part:
        name = part["$ref"].removeprefix("#/$defs/")
        if name in inside:
            raise Rejection(400, "output_config.format.schema: Circular reference detected in schema definitions")
        check_output_schema(root["$defs"][name], root, (*inside, name))
        return
    if part.get("type") == "object" and part.get("additionalProperties") is not False:
        raise Rejection(
            400,
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
        )
    if part.get("minItems", 0) not in (0, 1):
        raise Rejection(
            400, "output_config.format.schema: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
        )
    inner = [*part.get("properties", {}).values(), *part.get("anyOf", ()), *part.get("allOf", ())]
    for below in [*inner, *([part["items"]] if "items" in part else [])]:
        check_output_schema(below, root, inside)


def _join_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.text for block in content if isinstance(block, TextBlock))
