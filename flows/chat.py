"""OpenAI's chat protocol from the server's side: requests read and checked, completions, chunks and errors written.

Knows no model and no socket. What a student in this process is asked is built from checked values only: llama.cpp's server
may hang or break the connection on what the protocol does not allow.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.sample import Usage
from flows.words import one_line

BEYOND = (
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


class ChatError(Exception):
    """A request that is not answered, as OpenAI tells it."""

    def __init__(
        self, message: str, status: int = 400, kind: str = "invalid_request_error", param: str | None = None,
        code: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text or "" for part in self.content)
        return self.content or ""

    @property
    def plain(self) -> bool:
        """Whether it is text and nothing else."""
        parts = self.content if isinstance(self.content, list) else []
        more = (self.model_extra or {}).get("tool_calls")
        return (
            self.role not in ("tool", "function")
            and not more
            and all(part.type in ("text", "refusal") for part in parts)
        )


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


class _ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["text", "json_object", "json_schema"]


class ChatRequest(BaseModel):
    """The keys that matter here; all others go to the teacher as they are."""

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
    stop: str | list[str] | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: _ResponseFormat | None = None

    @property
    def question(self) -> str:
        """All that the user says."""
        return "\n".join(message.text for message in self.messages if message.role == "user")

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def beyond_students(self) -> str | None:
        """What is in it that only the teacher can be asked, or None."""
        extra = self.model_extra or {}
        found = next((key for key in BEYOND if extra.get(key)), None)
        if found is None and not all(message.plain for message in self.messages):
            return "messages with more than text"
        return found


def read_request(body: Any) -> ChatRequest:
    """Raises ChatError where it is no request for one chat completion."""
    if not isinstance(body, dict):
        raise ChatError("the body is not a JSON object")
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        got = "" if first["type"] == "missing" else f", not {one_line(repr(first['input']), 60)}"
        raise ChatError(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}{got}", param=where) from None


def student_body(request: ChatRequest, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The request for the student: text, and keys that it can be trusted with. `defaults` stand where the request is silent."""
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_completion_tokens or request.max_tokens,
        "seed": request.seed,
        "stop": request.stop,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "response_format": request.response_format and request.response_format.model_dump(),
    }
    roles = {"developer": "system"}
    messages = [
        {"role": roles.get(message.role, message.role), "content": message.text} for message in request.messages
    ]
    return {**defaults, **{key: value for key, value in given.items() if value is not None}, "messages": messages}


def usage_of(completion: Mapping[str, Any]) -> Usage:
    """Of one answer; nothing where its server counts none."""
    told = completion.get("usage") or {}
    return Usage(
        calls=1, prompt_tokens=told.get("prompt_tokens") or 0, completion_tokens=told.get("completion_tokens") or 0
    )


def usage_body(usage: Usage) -> dict[str, int]:
    asked, said = usage.prompt_tokens, usage.completion_tokens
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def trimmed_logprobs(completion: Mapping[str, Any], request: ChatRequest) -> list[dict[str, Any]]:
    """The choices with no more token probabilities than were asked for."""
    choices = []
    for choice in completion["choices"]:
        told = choice.get("logprobs") if request.logprobs else None
        if told:
            most = request.top_logprobs or 0
            content = [{**token, "top_logprobs": token["top_logprobs"][:most]} for token in told["content"]]
            told = {**told, "content": content}
        choices.append({**choice, "logprobs": told})
    return choices


def as_chunks(completion: Mapping[str, Any], *, usage: bool) -> Iterator[dict[str, Any]]:
    """A whole completion as the chunks of a stream: who speaks, all of what is said, why it ended, and what it took."""
    head = {key: completion[key] for key in ("id", "created", "model", "system_fingerprint") if key in completion}
    head["object"] = "chat.completion.chunk"
    for choice in completion["choices"]:
        place = {"index": choice.get("index", 0)}
        said = {"content": choice["message"].get("content"), "role": "assistant"}
        yield {**head, "choices": [{**place, "delta": said, "logprobs": choice.get("logprobs"), "finish_reason": None}]}
        yield {**head, "choices": [{**place, "delta": {}, "finish_reason": choice.get("finish_reason")}]}
    if usage:
        yield {**head, "choices": [], "usage": completion["usage"], "stillhouse": completion["stillhouse"]}
