"""A strict local server with api.openai.com's chat completions (https://platform.openai.com/docs/api-reference/chat/create)."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from core.sample import show_images
from tests.support.strict_server import (
    RecordedRequest,
    Rejection,
    ServedReply,
    StrictModel,
    StrictServer,
    validate_body,
)


class ServedModel(NamedTuple):
    efforts: frozenset[str] = frozenset()
    """Allowed values of `reasoning_effort`; none for a model that does not think."""
    default_effort: str = "none"


GPT_5 = frozenset({"minimal", "low", "medium", "high"})
MODELS = {
    "gpt-4o": ServedModel(),
    "gpt-4.1-mini": ServedModel(),
    "gpt-5-chat-latest": ServedModel(),
    "o3": ServedModel(frozenset({"low", "medium", "high"}), "medium"),
    "o4-mini": ServedModel(frozenset({"low", "medium", "high"}), "medium"),
    "gpt-5": ServedModel(GPT_5, "medium"),
    "gpt-5-mini": ServedModel(GPT_5, "medium"),
    "gpt-5.2": ServedModel(frozenset({"none", "low", "medium", "high", "xhigh"})),
}
SAMPLING = ("temperature", "top_p", "logprobs", "top_logprobs", "seed", "presence_penalty", "frequency_penalty")
ERROR_TYPES = {401: "invalid_request_error", 429: "rate_limit_exceeded", 500: "server_error"}


class TextPart(StrictModel):
    type: Literal["text"]
    text: str


class ImageUrl(StrictModel):
    url: str = Field(pattern="^(https://|data:image/(png|jpeg|gif|webp);base64,)")
    detail: Literal["low", "high", "auto"] = "auto"


class ImagePart(StrictModel):
    type: Literal["image_url"]
    image_url: ImageUrl


class CalledFunction(StrictModel):
    name: str
    arguments: str


class CallOfTool(StrictModel):
    id: str
    type: Literal["function"]
    function: CalledFunction


class SystemTurn(StrictModel):
    role: Literal["system", "developer"]
    content: str | list[TextPart]


class UserTurn(StrictModel):
    role: Literal["user"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class AssistantTurn(StrictModel):
    role: Literal["assistant"]
    content: str | list[TextPart] | None = None
    tool_calls: list[CallOfTool] | None = Field(None, min_length=1)


class ToolTurn(StrictModel):
    role: Literal["tool"]
    content: str | list[TextPart]
    tool_call_id: str


class SchemaForm(StrictModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] = Field(alias="schema")
    description: str = ""
    strict: bool = False


class ResponseFormat(StrictModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaForm | None = None


class Function(StrictModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    parameters: dict[str, Any]
    description: str = ""
    strict: bool = False


class FunctionTool(StrictModel):
    type: Literal["function"]
    function: Function


class NamedFunction(StrictModel):
    name: str


class ChosenTool(StrictModel):
    type: Literal["function"]
    function: NamedFunction


class ChatCompletionRequest(StrictModel):
    model: str
    messages: list[Annotated[SystemTurn | UserTurn | AssistantTurn | ToolTurn, Field(discriminator="role")]] = Field(
        min_length=1
    )
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    response_format: ResponseFormat | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    store: bool | None = None
    stream: Literal[False] = False


class OpenAIServer(StrictServer):
    default_path = "/v1"

    def respond(self, request: RecordedRequest) -> Any:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            raise Rejection(
                401, "Incorrect API key provided. You can find your API key at https://platform.openai.com."
            )
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            raise Rejection(404, f"Invalid URL ({request.method} {request.path})")
        return self.build_completion(request.body)

    def build_error(self, rejection: Rejection) -> Any:
        kind = ERROR_TYPES.get(rejection.status, "invalid_request_error")
        return {"error": {"message": str(rejection), "type": kind, "param": None, "code": rejection.kind or None}}

    def build_completion(self, body: Any) -> dict[str, Any]:
        """The completion for a request's body, also one of a batch. Raises Rejection."""
        request = validate_body(ChatCompletionRequest, body)
        check_completion_request(request)
        form = request.response_format.json_schema if request.response_format else None
        tool = request.tools[0].function if request.tools and isinstance(request.tool_choice, ChosenTool) else None
        schema = form.schema_ if form else tool.parameters if tool else None
        turns = [(turn.role, _join_parts(turn.content)) for turn in request.messages if not isinstance(turn, ToolTurn)]
        most = request.max_completion_tokens or request.max_tokens or 10_000
        question = self.build_question(turns, schema, most, (form or tool).name if form or tool else "")
        shown = [_list_images(turn.content) for turn in request.messages if not isinstance(turn, ToolTurn)]
        messages = [show_images([turn], urls)[0] for turn, urls in zip(question.messages, shown, strict=True)]
        return _write_completion(request, self.answer(question.model_copy(update={"messages": messages})), tool)


def check_completion_request(request: ChatCompletionRequest) -> None:
    """The rules beyond the form of a request. Raises Rejection."""
    model = MODELS.get(request.model)
    if model is None:
        raise Rejection(
            404, f"The model `{request.model}` does not exist or you do not have access to it.", "model_not_found"
        )
    effort = request.reasoning_effort
    if effort and effort not in model.efforts:
        raise Rejection(400, f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model.")
    if model.efforts:
        if request.max_tokens is not None:
            raise Rejection(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            )
        for name in SAMPLING:
            if getattr(request, name) is not None:
                raise Rejection(
                    400, f"Unsupported parameter: '{name}' is not supported with this model.", "unsupported_parameter"
                )
    if request.top_logprobs is not None and not request.logprobs:
        raise Rejection(400, "top_logprobs requires logprobs to be true.")
    if request.response_format and (request.response_format.type == "json_schema") != bool(
        request.response_format.json_schema
    ):
        raise Rejection(400, "Missing required parameter: 'response_format.json_schema'.")
    _check_tool_turns(request)


def _check_tool_turns(request: ChatCompletionRequest) -> None:
    open_calls: set[str] = set()
    for turn in request.messages:
        if isinstance(turn, ToolTurn):
            if turn.tool_call_id not in open_calls:
                raise Rejection(
                    400, "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                )
            open_calls.remove(turn.tool_call_id)
            continue
        if open_calls:
            raise Rejection(400, "An assistant message with 'tool_calls' must be followed by tool messages.")
        open_calls = {call.id for call in turn.tool_calls or ()} if isinstance(turn, AssistantTurn) else set()


def _write_completion(request: ChatCompletionRequest, reply: ServedReply, tool: Function | None) -> dict[str, Any]:
    words, spoken, thought = len(str(request.messages).split()), len(reply.text.split()), len(reply.thinking.split())
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    if tool:
        call = {"id": "call_1", "type": "function", "function": {"name": tool.name, "arguments": reply.text}}
        message |= {"content": None, "tool_calls": [call]}
    if reply.stop == "refusal":
        message |= {"content": None, "refusal": reply.text}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None}
    choice["finish_reason"] = "stop" if reply.stop in ("", "refusal") else reply.stop
    if request.logprobs:
        choice["logprobs"] = {
            "content": [{"token": w, "logprob": -0.1, "top_logprobs": []} for w in reply.text.split()]
        }
    usage = {
        "prompt_tokens": words, "completion_tokens": spoken + thought, "total_tokens": words + spoken + thought,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0},
    }  # fmt: skip
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request.model, "choices": [choice],
        "usage": dict(reply.usage) if reply.usage else usage,
    }  # fmt: skip


def _list_images(content: Any) -> list[str]:
    return [part.image_url.url for part in content if isinstance(part, ImagePart)] if isinstance(content, list) else []


def _join_parts(content: Any) -> str:
    if not isinstance(content, list):
        return content or ""
    return "\n".join(part.text for part in content if isinstance(part, TextPart))
