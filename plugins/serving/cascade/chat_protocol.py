"""OpenAI's chat protocol, server side: reads and checks requests; writes completions, chunks and errors.

Knows no model and no socket. A student's request is built from checked values only: llama.cpp's server may hang or
break the connection on values outside the protocol.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.sample import Message, TokenUsage
from core.storage.image_files import UnreadableImage
from core.weights.gguf_files import ImageLimits
from flows.terminal.text_format import format_one_line
from teachers.grammar_bounds import GrammarTooLarge, check_grammar_bounds
from teachers.local_llama import CLIENT_PIXELS, fit_message_images
from teachers.openai_chat import build_messages, list_answer_tokens

TEACHER_ONLY_KEYS = (
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "audio",
    "modalities",
    "prediction",
    "web_search_options",
)
"""Keys that ask for more than text, which no student here is trained to give."""
PROTOCOL_KEYS = frozenset({
    "model", "messages", "stream", "stream_options", "n", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed",
    "stop", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice",
    "parallel_tool_calls",
})  # fmt: skip
"""The request keys forwarded to a model that this process started. Its server has more: grammars, other samplers, paths."""
MOST_STOPS = 16
MOST_PARTS = 10_000
"""Messages of a request and parts of their contents, together: reading 200,000 takes seconds in which nobody else is answered."""
MOST_IMAGES = 16
"""Of a request, decoded here: a kilobyte may be an image that takes 400 MB and half a second."""
TEXT_PARTS, IMAGE_PART = ("text", "refusal"), "image_url"
"""The types of parts of a content."""
MORE_THAN_TEXT = "messages with more than text"


class ChatError(Exception):
    """A refused request, in OpenAI's error format."""

    def __init__(
        self, message: str, status: int = 400, kind: str = "invalid_request_error", param: str | None = None,
        code: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _ContentPart(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_ContentPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text or "" for part in self.content if part.type != IMAGE_PART)
        return self.content or ""

    @property
    def is_plain_text(self) -> bool:
        """Whether the message is text only."""
        return self._has_only(TEXT_PARTS)

    @property
    def is_text_and_images(self) -> bool:
        """Whether the message is text, and in a user's turn images."""
        return self._has_only({*TEXT_PARTS, IMAGE_PART} if self.role == "user" else TEXT_PARTS)

    @property
    def image_urls(self) -> list[str]:
        parts = self.content if isinstance(self.content, list) else []
        named = [(part.model_extra or {}).get(IMAGE_PART) for part in parts if part.type == IMAGE_PART]
        return [str(one.get("url", "")) if isinstance(one, dict) else str(one) for one in named]

    @property
    def addresses(self) -> list[str]:
        """Of images, and of audio and video, which some servers read too."""
        parts = self.content if isinstance(self.content, list) else []
        named = [value for part in parts for key, value in (part.model_extra or {}).items() if key.endswith("_url")]
        return [str(one.get("url", "")) if isinstance(one, dict) else str(one) for one in named]

    def _has_only(self, types: Collection[str]) -> bool:
        parts = self.content if isinstance(self.content, list) else []
        more = (self.model_extra or {}).get("tool_calls")
        return self.role not in ("tool", "function") and not more and all(part.type in types for part in parts)


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


class _ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema"]


class ChatRequest(BaseModel):
    """The keys used here; all others go to the teacher unchanged."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Literal[1] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: _ResponseFormat | None = None
    include_reasoning: bool | None = None
    """OpenRouter's key: whether a student's thinking is returned, in `reasoning_content` of its message."""

    @property
    def question(self) -> str:
        """The text of all user messages."""
        return "\n".join(message.text for message in self.messages if message.role == "user")

    @property
    def plain_turns(self) -> list[Message]:
        """The messages as text, with a developer's as system prompts and those of tools without their names."""
        roles = {"developer": "system", "function": "tool"}
        return [Message(role=roles.get(one.role, one.role), content=one.text) for one in self.messages]

    @property
    def schemas(self) -> list[Any]:
        """Every schema that a server compiles to a grammar: the reply's, and those of tools."""
        form = self.response_format
        more = form.model_extra or {} if form else {}
        wrapped = more.get("json_schema")
        schemas = [more.get("schema"), wrapped.get("schema") if isinstance(wrapped, dict) else wrapped]
        tools = (self.model_extra or {}).get("tools")
        functions = (
            [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        )
        schemas += [function.get("parameters") for function in functions if isinstance(function, dict)]
        return [schema for schema in schemas if schema is not None]

    @property
    def schema_fault(self) -> str | None:
        """Why a schema exceeds the grammar bounds, in a sentence; None where all are within them."""
        if self.response_format and self.response_format.type == "json_schema" and self.reply_schema is None:
            return "response_format.json_schema.schema: is missing"
        try:
            for schema in self.schemas:
                check_grammar_bounds(schema)
        except GrammarTooLarge as error:
            return str(error)
        return None

    @property
    def reply_schema(self) -> Any:
        form = self.response_format
        more = form.model_extra or {} if form else {}
        wrapped = more.get("json_schema")
        return wrapped.get("schema") if isinstance(wrapped, dict) else more.get("schema")

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def teacher_only_part(self) -> str | None:
        """The part of the request that only the teacher can answer, or None."""
        extra = self.model_extra or {}
        key = next((key for key in TEACHER_ONLY_KEYS if extra.get(key)), None)
        if key is None and not all(message.is_plain_text for message in self.messages):
            return MORE_THAN_TEXT
        return key

    @property
    def asks_about_images(self) -> bool:
        """Whether a student that sees can read the messages: they are text and images of the user."""
        return self.has_images and all(message.is_text_and_images for message in self.messages)

    @property
    def has_images(self) -> bool:
        return any(message.image_urls for message in self.messages)

    def check_addresses(self) -> None:
        """Raises ChatError if an image, audio or video is not in the request: a server of this process would download it."""
        urls = [url for message in self.messages for url in message.addresses]
        if remote := next((url for url in urls if not url.startswith("data:")), None):
            raise ChatError(
                f"messages: a part is at {format_one_line(remote, 60)!r}; nothing is downloaded here, so send its bytes as a "
                "data: URL",
                param="messages",
            )


def read_chat_request(body: Any) -> ChatRequest:
    """Raises ChatError unless the body requests one chat completion."""
    if not isinstance(body, dict):
        raise ChatError("the body is not a JSON object")
    _check_message_count(body.get("messages"))
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        raise build_request_error(error) from None


def _check_message_count(messages: Any) -> None:
    """Raises ChatError before too many messages are validated."""
    turns = messages if isinstance(messages, list) else []
    parts = sum(
        len(turn["content"]) for turn in turns if isinstance(turn, dict) and isinstance(turn.get("content"), list)
    )
    if (number := len(turns) + parts) > MOST_PARTS:
        raise ChatError(
            f"messages: {number:,} messages and parts of messages; at most {MOST_PARTS:,} are read", param="messages"
        )


def build_request_error(error: ValidationError) -> ChatError:
    """The first fault of a request's body."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    got = "" if first["type"] == "missing" else f", not {format_one_line(repr(first['input']), 60)}"
    fault = f"{first['msg'][:1].lower()}{first['msg'][1:]}{got}"
    return ChatError(f"{where}: {fault}" if where else fault, param=where or None)


def build_student_request(
    request: ChatRequest, defaults: Mapping[str, Any], images: ImageLimits | None = None
) -> dict[str, Any]:
    """The request for the student: text and safe keys only, and fitted images for one that sees `images`. `defaults` fill in
    missing keys.

    Raises:
        ChatError: if an image is not in the request, or cannot be decoded.
    """
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_completion_tokens or request.max_tokens,
        "seed": request.seed,
        "stop": request.stop,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "response_format": _build_response_format(request),
    }
    messages = [turn.model_dump(include={"role", "content"}) for turn in request.plain_turns]
    if images and request.has_images:
        messages = build_pictured_messages(request, images)
    return {**defaults, **{key: value for key, value in given.items() if value is not None}, "messages": messages}


def build_pictured_messages(request: ChatRequest, limits: ImageLimits) -> list[dict[str, Any]]:
    """The messages as text and fitted images. Raises ChatError if there are too many images, or one is not in the request or
    cannot be decoded.
    """
    if (number := sum(len(message.image_urls) for message in request.messages)) > MOST_IMAGES:
        raise ChatError(f"messages: {number:,} images; at most {MOST_IMAGES} are read", param="messages")
    turns = []
    for plain, given in zip(request.plain_turns, request.messages, strict=True):
        pictured = plain.model_copy(update={"images": tuple(given.image_urls)})
        try:
            turns.append(fit_message_images(pictured, limits, CLIENT_PIXELS))
        except UnreadableImage as fault:
            raise ChatError(f"messages: an image {fault}", param="messages") from None
    return build_messages(turns, images_first=True)


def _build_response_format(request: ChatRequest) -> dict[str, Any] | None:
    """Rebuilt from checked values: servers read more keys than the protocol has."""
    if request.response_format is None or request.response_format.type == "text":
        return None
    if (schema := request.reply_schema) is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}


def build_protocol_request(request: ChatRequest, body: Mapping[str, Any]) -> dict[str, Any]:
    """The request for a teacher that this process started: only the keys of the protocol."""
    kept = {key: value for key, value in body.items() if key in PROTOCOL_KEYS}
    form = _build_response_format(request)
    return {
        **{key: value for key, value in kept.items() if key != "response_format"},
        **({"response_format": form} if form else {}),
    }


def read_completion_usage(completion: Mapping[str, Any]) -> TokenUsage:
    """The usage of one answer; zero tokens where the server counts none."""
    usage = completion.get("usage") or {}
    return TokenUsage(
        calls=1, prompt_tokens=usage.get("prompt_tokens") or 0, completion_tokens=usage.get("completion_tokens") or 0
    )


def build_usage_body(usage: TokenUsage) -> dict[str, int]:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def trim_logprobs(completion: Mapping[str, Any], request: ChatRequest) -> list[dict[str, Any]]:
    """The choices with only the requested token probabilities."""
    choices = []
    for choice in completion["choices"]:
        logprobs = choice.get("logprobs") if request.logprobs else None
        if logprobs:
            most = request.top_logprobs or 0
            content = [{**token, "top_logprobs": token["top_logprobs"][:most]} for token in logprobs["content"]]
            logprobs = {**logprobs, "content": content}
        choices.append({**choice, "logprobs": logprobs})
    return choices


def hide_thinking(completion: Mapping[str, Any]) -> dict[str, Any]:
    """A completion, or a chunk of one, without thinking and without the probabilities of its tokens."""
    choices = []
    for choice in completion["choices"]:
        part = "message" if "message" in choice else "delta"
        message = choice.get(part) or {}
        if thinking := message.get("reasoning_content"):
            message = {key: value for key, value in message.items() if key != "reasoning_content"}
            choice = {**choice, part: message}
            if choice.get("logprobs"):
                tokens = list_answer_tokens(choice, message.get("content") or "", thinking)
                choice["logprobs"] = {**choice["logprobs"], "content": tokens} if tokens else None
        choices.append(choice)
    return {**completion, "choices": choices}


def split_into_chunks(completion: Mapping[str, Any], *, usage: bool) -> Iterator[dict[str, Any]]:
    """A complete completion as stream chunks: the role with all of the text, the finish reason, and the usage."""
    head = {key: completion[key] for key in ("id", "created", "model", "system_fingerprint") if key in completion}
    head["object"] = "chat.completion.chunk"
    for choice in completion["choices"]:
        index = {"index": choice.get("index", 0)}
        message = {key: value for key in ("reasoning_content",) if (value := choice["message"].get(key))}
        delta = {**message, "content": choice["message"].get("content"), "role": "assistant"}
        yield {
            **head,
            "choices": [{**index, "delta": delta, "logprobs": choice.get("logprobs"), "finish_reason": None}],
        }
        yield {**head, "choices": [{**index, "delta": {}, "finish_reason": choice.get("finish_reason")}]}
    if usage:
        yield {**head, "choices": [], "usage": completion["usage"], "stillhouse": completion["stillhouse"]}
