"""A strict local server with the Gemini API's generateContent (https://ai.google.dev/api/generate-content, v1beta)."""

import base64
import binascii
import json
import re
from typing import Any, Literal, NamedTuple

from pydantic import Field

from tests.support.strict_server import (
    RecordedRequest,
    Rejection,
    ServedReply,
    StrictModel,
    StrictServer,
    validate_body,
)


class ServedModel(NamedTuple):
    budgets: range | None = None
    """Allowed budgets of thinking in tokens; -1 is allowed too, and 0 is off."""
    levels: frozenset[str] = frozenset()
    off_by_default: bool = False


MODELS = {
    "gemini-2.0-flash": ServedModel(),
    "gemini-2.5-flash-lite": ServedModel(range(512, 24_577), off_by_default=True),
    "gemini-2.5-flash": ServedModel(range(1, 24_577)),
    "gemini-2.5-pro": ServedModel(range(128, 32_769)),
    "gemini-3.5-flash": ServedModel(levels=frozenset({"MINIMAL", "LOW", "MEDIUM", "HIGH"})),
    "gemini-3.1-pro-preview": ServedModel(levels=frozenset({"LOW", "MEDIUM", "HIGH"})),
    "gemini-3.8-flash": ServedModel(levels=frozenset({"LOW", "MEDIUM", "HIGH"})),
}
NO_ZERO_BUDGET = {"gemini-2.5-pro"}
SCHEMA_KEYWORDS = {
    "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems", "minItems",
    "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required", "propertyOrdering",
}  # fmt: skip
STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL", 503: "UNAVAILABLE",
}  # fmt: skip

FREE_FORM = {"responseJsonSchema", "parametersJsonSchema", "args", "response"}
"""Fields whose keys are the user's."""


def normalize_names(value: Any) -> Any:
    """A request with all names in camel case: the protocol takes `include_thoughts` for `includeThoughts` (proto3's JSON)."""
    if isinstance(value, list):
        return [normalize_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {re.sub(r"_([a-z])", lambda letter: letter[1].upper(), key): inner for key, inner in value.items()}
    return {key: inner if key in FREE_FORM else normalize_names(inner) for key, inner in named.items()}


class Blob(StrictModel):
    mimeType: Literal["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"]
    data: str


class FileData(StrictModel):
    mimeType: str
    fileUri: str = Field(pattern="^(https|gs)://")


class FunctionCall(StrictModel):
    name: str
    args: dict[str, Any]


class FunctionResponse(StrictModel):
    name: str = Field(min_length=1)
    response: dict[str, Any]


class Part(StrictModel):
    text: str | None = Field(None, min_length=1)
    inlineData: Blob | None = None
    fileData: FileData | None = None
    functionCall: FunctionCall | None = None
    functionResponse: FunctionResponse | None = None


class Content(StrictModel):
    role: Literal["user", "model"] | None = None
    parts: list[Part] = Field(min_length=1)


class ThinkingConfig(StrictModel):
    thinkingBudget: int | None = None
    thinkingLevel: Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"] | None = None
    includeThoughts: bool = False


class GenerationConfig(StrictModel):
    temperature: float | None = Field(None, ge=0, le=2)
    topP: float | None = Field(None, gt=0, le=1)
    topK: float | None = Field(None, ge=1)  # proto3's JSON takes 4.0 for 4
    maxOutputTokens: int | None = Field(None, ge=1, le=65_536)
    seed: int | None = Field(None, ge=-(2**31), lt=2**31)
    candidateCount: Literal[1] | None = None
    stopSequences: list[str] | None = Field(None, max_length=5)
    responseMimeType: Literal["text/plain", "application/json"] | None = None
    responseJsonSchema: dict[str, Any] | None = None
    thinkingConfig: ThinkingConfig | None = None


class FunctionDeclaration(StrictModel):
    name: str = Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_.-]{0,63}$")
    description: str
    parametersJsonSchema: dict[str, Any] | None = None


class GeminiTool(StrictModel):
    functionDeclarations: list[FunctionDeclaration]


class FunctionCallingConfig(StrictModel):
    mode: Literal["AUTO", "ANY", "NONE"]
    allowedFunctionNames: list[str] | None = None


class ToolConfig(StrictModel):
    functionCallingConfig: FunctionCallingConfig


class SafetySetting(StrictModel):
    category: str = Field(pattern="^HARM_CATEGORY_")
    threshold: Literal["BLOCK_NONE", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE", "OFF"]


class ContentRequest(StrictModel):
    contents: list[Content] = Field(min_length=1)
    systemInstruction: Content | None = None
    generationConfig: GenerationConfig | None = None
    tools: list[GeminiTool] | None = None
    toolConfig: ToolConfig | None = None
    safetySettings: list[SafetySetting] | None = None


class GeminiServer(StrictServer):
    def respond(self, request: RecordedRequest) -> Any:
        path = re.fullmatch(r"/v1beta/models/([\w.-]+):generateContent", request.path)
        if request.method != "POST" or not path:
            raise Rejection(404, f"Not found: {request.method} {request.path}")
        if "x-goog-api-key" not in request.headers:
            raise Rejection(403, "Method doesn't allow unregistered callers (callers without established identity).")
        if request.headers["x-goog-api-key"] != self.key:
            raise Rejection(400, "API key not valid. Please pass a valid API key.", "API_KEY_INVALID")
        return self.build_content(path[1], request.body)

    def build_error(self, rejection: Rejection) -> Any:
        details = [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": rejection.kind, "domain": "googleapis.com"}
        ]
        error = {"code": rejection.status, "message": str(rejection), "status": STATUSES[rejection.status]}
        return {"error": {**error, **({"details": details} if rejection.kind else {})}}

    def build_content(self, model: str, body: Any) -> dict[str, Any]:
        """The response to a request. Raises Rejection."""
        if model not in MODELS:
            raise Rejection(
                404, f"models/{model} is not found for API version v1beta, or is not supported for generateContent."
            )
        request = validate_body(ContentRequest, normalize_names(body))
        config = request.generationConfig or GenerationConfig()
        _check_thinking(config.thinkingConfig, model, MODELS[model])
        _check_contents(request)
        tool = request.tools[0].functionDeclarations[0] if request.tools else None
        forced = request.toolConfig.functionCallingConfig if request.toolConfig else None
        if forced and (not tool or forced.allowedFunctionNames not in (None, [tool.name])):
            raise Rejection(400, "allowed_function_names is not a subset of the declared functions.")
        schema = config.responseJsonSchema or (tool.parametersJsonSchema if tool else None)
        if config.responseJsonSchema is not None and config.responseMimeType != "application/json":
            raise Rejection(400, "response_json_schema requires response_mime_type application/json.")
        if schema is not None:
            check_response_schema(schema, schema)
        turns = [("system", _join_parts(request.systemInstruction))] if request.systemInstruction else []
        turns += [("assistant" if c.role == "model" else "user", _join_parts(c)) for c in request.contents]
        question = self.build_question(turns, schema, config.maxOutputTokens or 8192, tool.name if tool else "")
        return _write_content(model, request, self.answer(question), tool)


def _check_thinking(thinking: ThinkingConfig | None, name: str, model: ServedModel) -> None:
    if thinking is None:
        return
    if thinking.thinkingBudget is not None and thinking.thinkingLevel is not None:
        raise Rejection(400, "You can only set only one of thinking budget and thinking level.")
    if thinking.thinkingLevel and thinking.thinkingLevel not in model.levels:
        raise Rejection(400, f"Thinking level {thinking.thinkingLevel} is not supported for this model.")
    if thinking.thinkingBudget is not None:
        if model.budgets is None:
            raise Rejection(400, "Thinking is not enabled for this model.")
        off = thinking.thinkingBudget == 0 and name not in NO_ZERO_BUDGET
        if not off and thinking.thinkingBudget != -1 and thinking.thinkingBudget not in model.budgets:
            raise Rejection(
                400, f"The thinking budget {thinking.thinkingBudget} is invalid. Please choose another value."
            )
        if off and thinking.includeThoughts:
            raise Rejection(400, "Include_thoughts is only enabled when thinking is enabled.")


def _check_contents(request: ContentRequest) -> None:
    for content in [*request.contents, *([request.systemInstruction] if request.systemInstruction else [])]:
        for part in content.parts:
            if len(part.model_fields_set) != 1:
                raise Rejection(400, "contents.parts: required oneof field 'data' must have one initialized field")
            if part.inlineData:
                try:
                    base64.b64decode(part.inlineData.data, altchars=b"-_", validate=True)
                except binascii.Error:
                    raise Rejection(400, "Base64 decoding failed for inline_data") from None
    if request.contents[-1].role == "model":
        raise Rejection(400, "Please ensure that single turn requests end with a user role.")
    for before, after in zip(request.contents, [*request.contents[1:], None], strict=True):
        calls = [part.functionCall.name for part in before.parts if part.functionCall]
        responses = [part.functionResponse.name for part in after.parts if part.functionResponse] if after else []
        if calls != responses:
            raise Rejection(
                400, "Please ensure that the number of function response parts is equal to the number of calls."
            )


def check_response_schema(part: Any, root: dict[str, Any]) -> None:
    """The documented subset of JSON Schema. Raises Rejection."""
    if not isinstance(part, dict):
        raise Rejection(400, "response_json_schema: a schema must be an object")
    if unknown := part.keys() - SCHEMA_KEYWORDS:
        raise Rejection(
            400, f"Unknown name {min(unknown)!r} at 'generation_config.response_json_schema': Cannot find field."
        )
    if "$ref" in part and any(not key.startswith("$") for key in part):
        raise Rejection(400, "response_json_schema: only keys that start with $ may be next to $ref")
    if not all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in part.get("enum", ())):
        raise Rejection(400, "response_json_schema: enum is for strings and numbers")
    others = part.get("additionalProperties")
    inner = [*part.get("properties", {}).values(), *part.get("anyOf", ()), *part.get("$defs", {}).values()]
    inner += [part["items"]] if "items" in part else []
    for below in [*inner, *([others] if isinstance(others, dict) else [])]:
        check_response_schema(below, root)


def _write_content(
    model: str, request: ContentRequest, reply: ServedReply, tool: FunctionDeclaration | None
) -> dict[str, Any]:
    config = request.generationConfig or GenerationConfig()
    parts: list[dict[str, Any]] = []
    if reply.thinking and config.thinkingConfig and config.thinkingConfig.includeThoughts:
        parts.append({"text": reply.thinking, "thought": True})
    if tool and reply.text.startswith("{"):
        parts.append({"functionCall": {"name": tool.name, "args": json.loads(reply.text)}})
    elif reply.text:
        parts.append({"text": reply.text, "thoughtSignature": "c2ln"})
    words, spoken, thought = len(str(request.contents).split()), len(reply.text.split()), len(reply.thinking.split())
    usage = {"promptTokenCount": words, "candidatesTokenCount": spoken, "totalTokenCount": words + spoken + thought}
    usage |= {"thoughtsTokenCount": thought} if thought else {}
    answer = {"usageMetadata": dict(reply.usage) if reply.usage else usage, "modelVersion": model, "responseId": "r1"}
    if reply.stop.startswith("blocked:"):
        return {**answer, "promptFeedback": {"blockReason": reply.stop.removeprefix("blocked:")}}
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reply.stop or "STOP", "index": 0}
    return {**answer, "candidates": [candidate]}


def _join_parts(content: Content | None) -> str:
    return "\n".join(part.text for part in content.parts if part.text) if content else ""
