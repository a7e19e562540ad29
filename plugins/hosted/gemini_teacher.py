"""A model behind Gemini's generateContent protocol as a teacher: a question as a request body, a response body as a reply,
sent by Google's client library.
"""

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from mimetypes import guess_type
from typing import TYPE_CHECKING, Any

import aiohttp

from core.config.agents import find_effort, reasoning_tokens
from core.config.teachers import TeacherConfig, find_gemini_thinking
from core.sample import Message, TokenUsage
from core.secrets import redact_excerpt, redact_text
from plugins.hosted.hosted_teacher import (
    HostedProtocol,
    HostedTeacher,
    RejectedRequest,
    build_hosted_reply,
    read_text,
    require_key,
    split_image_url,
)
from plugins.hosted.vendor_schemas import GEMINI_SCHEMAS, fit_schema
from teachers.base import TeacherQuestion, TeacherReply
from teachers.endpoint import read_response_text, translate_client_errors
from teachers.endpoint_calls import MAX_SHOWN_CHARACTERS, FailedTry, FailureCause
from teachers.openai_chat import (
    MALFORMED,
    InvalidCompletion,
    check_token_count,
    describe_schema,
    merge_extra,
    parse_json_object,
)

if TYPE_CHECKING:
    from google import genai

CUT_OFF_REASONS = {"MAX_TOKENS", "CONTINUATION"}
BLOCKED_REASONS = {
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR", "ESCALATION",
    "PUP_LIMITED_DISABLED",
}  # fmt: skip
"""Reasons for which the same request would be blocked again."""


def _build_gemini_request(question: TeacherQuestion, model: str, config: TeacherConfig) -> dict[str, Any]:
    """The body of `POST /v1beta/models/MODEL:generateContent`, with the model as its first key."""
    system = [message.content for message in question.messages if message.role == "system"]
    generation: dict[str, Any] = {
        "temperature": question.temperature,
        "topP": question.top_p,
        "maxOutputTokens": question.max_tokens,
        "seed": question.seed,
    }
    if thinking := _build_thinking(question, model):
        generation["thinkingConfig"] = thinking
    body: dict[str, Any] = {"model": model}
    schema = fit_schema(question.json_schema, GEMINI_SCHEMAS) if question.json_schema is not None else None
    if question.json_schema is None:
        pass  # any text
    elif schema is None or config.structured == "plain":
        system.append(describe_schema(question.json_schema))
    elif config.structured == "tool":
        tool = {"name": question.contract, "description": "Takes the reply.", "parametersJsonSchema": schema}
        body["tools"] = [{"functionDeclarations": [tool]}]
        body["toolConfig"] = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [question.contract]}}
    else:
        generation |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
    if any(system):
        body["systemInstruction"] = {"parts": [{"text": text} for text in system if text]}
    body["contents"] = _build_contents([message for message in question.messages if message.role != "system"])
    body["generationConfig"] = {key: value for key, value in generation.items() if key not in config.drop}
    return merge_extra(body, config)


def _build_thinking(question: TeacherQuestion, model: str) -> dict[str, Any]:
    thinking, reasoning = find_gemini_thinking(model), question.reasoning
    if reasoning is None or thinking is None:
        return {}
    if isinstance(thinking.lowest, int):
        tokens = max(thinking.lowest, reasoning_tokens(reasoning))
        return {"thinkingBudget": tokens, "includeThoughts": tokens > thinking.lowest}
    level = thinking.lowest if reasoning == "off" else find_effort(reasoning).upper()
    return {"thinkingLevel": level, "includeThoughts": reasoning != "off"}


def _build_contents(messages: list[Message]) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    for message in messages:
        role = "model" if message.role == "assistant" else "user"
        parts: list[dict[str, Any]]
        if message.role == "tool":
            parts = [{"functionResponse": {"name": message.name or "", "response": {"result": message.content}}}]
        else:
            parts = [{"text": message.content}] if message.content else []
            parts += [{"functionCall": {"name": c.name, "args": c.arguments}} for c in message.tool_calls]
            parts += [_build_image_part(url) for url in message.images]
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts  # the results of one turn's calls must be in one content
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _build_image_part(url: str) -> dict[str, Any]:
    media_type, data = split_image_url(url)
    if data:
        return {"inlineData": {"mimeType": media_type, "data": data}}
    return {"fileData": {"mimeType": guess_type(url)[0] or "image/jpeg", "fileUri": url}}


def parse_gemini_response(text: str, question: TeacherQuestion, config: TeacherConfig) -> TeacherReply:
    """A response body as a reply. A blocked prompt or reply is a refusal.

    Raises:
        InvalidCompletion: if it has no reply: another request may.
    """
    answer = parse_json_object(text, "generated content")
    try:
        return _read_content(answer, question, config)
    except MALFORMED:
        raise InvalidCompletion(f"not generated content: {redact_excerpt(text, 200)!r}") from None


def _read_content(answer: dict[str, Any], question: TeacherQuestion, config: TeacherConfig) -> TeacherReply:
    usage = _read_usage(answer.get("usageMetadata") or {})
    if blocked := (answer.get("promptFeedback") or {}).get("blockReason"):
        fault = f"The prompt was blocked: {read_text(blocked)}."
        return build_hosted_reply(fault, "", usage, question, finished=True, refused=True)
    candidate = answer["candidates"][0]
    reason = read_text(candidate.get("finishReason", ""))
    parts = (candidate.get("content") or {}).get("parts") or []
    content = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
    thoughts = "\n\n".join(part["text"] for part in parts if "text" in part and part.get("thought"))
    called = next((part["functionCall"].get("args") or {} for part in parts if "functionCall" in part), None)
    if reason in BLOCKED_REASONS:
        fault = f"The reply was blocked: {reason}."
        return build_hosted_reply(fault, thoughts, usage, question, finished=True, refused=True)
    if reason != "STOP" and reason not in CUT_OFF_REASONS:
        raise InvalidCompletion(f"no reply: finishReason {reason[:60]!r}")
    if called is not None and config.structured == "tool":
        content = json.dumps(called, ensure_ascii=False)
    return build_hosted_reply(content, thoughts, usage, question, finished=reason not in CUT_OFF_REASONS, refused=False)


def _read_usage(usage: dict[str, Any]) -> TokenUsage:
    """Gemini counts thinking separately from the reply; here it is part of the reply's tokens."""
    prompt = check_token_count(usage.get("promptTokenCount")) + check_token_count(usage.get("toolUsePromptTokenCount"))
    thought = check_token_count(usage.get("thoughtsTokenCount"))
    return TokenUsage(
        calls=1,
        prompt_tokens=prompt,
        completion_tokens=check_token_count(usage.get("candidatesTokenCount")) + thought,
        cached_tokens=min(prompt, check_token_count(usage.get("cachedContentTokenCount"))),
        reasoning_tokens=thought,
    )


API_VERSION = "v1beta"
ENDPOINT_KEYS = {"model", "contents", "generationConfig"}
RETRY_DELAY = re.compile(r'"retryDelay": ?"([\d.]+)s"')
"""How long to wait after too many requests: Google says it in the body."""
WRONG_KEY = "API_KEY_INVALID"
"""Google's reason in an answer with status 400 for a key that it does not know."""


class _BoundedResponse(aiohttp.ClientResponse):
    async def text(self, encoding: str | None = None, errors: str = "replace") -> str:
        """Raises InvalidCompletion if it is too long. Invalid bytes are replaced."""
        try:
            return await read_response_text(self)
        except BaseException:  # a connection that stays open would take the place of another call
            self.close()
            raise


@asynccontextmanager
async def open_gemini_teacher(config: TeacherConfig) -> AsyncIterator[HostedTeacher]:
    """Raises ProviderError if there is no key."""
    from google import genai
    from google.genai.client import DebugConfig

    key = require_key(config)
    connector = aiohttp.TCPConnector(limit=config.max_concurrent)
    async with aiohttp.ClientSession(
        connector=connector, raise_for_status=_reject_status, response_class=_BoundedResponse
    ) as session:
        options: Any = {
            "base_url": config.endpoint.removesuffix(f"/{API_VERSION}"),
            "api_version": API_VERSION,
            "aiohttp_client": session,
            # It would send the key along to where a redirect leads.
            "async_client_args": {"allow_redirects": False},
            # Without this, it sends a request again after a broken connection.
            "retry_options": {"attempts": 1},
        }
        # Else GOOGLE_GENAI_CLIENT_MODE replaces the endpoint by a folder of recorded replies.
        sends = DebugConfig(client_mode=None, replays_directory=None, replay_id=None)
        client = genai.Client(api_key=key, vertexai=False, http_options=options, debug_config=sends)
        protocol = HostedProtocol(
            _build_gemini_request, parse_gemini_response, partial(_generate_content, client, config.timeout_seconds)
        )
        yield HostedTeacher(config, protocol)


@cache
def _config_keys() -> frozenset[str]:
    """The keys of a request that the library has a setting for, in the protocol's spelling."""
    from google.genai import types

    fields = types.GenerateContentConfig.model_fields
    return frozenset(field.alias or name for name, field in fields.items()) - {"httpOptions"}


async def _generate_content(client: "genai.Client", seconds: float, request: dict[str, Any]) -> str:
    generation: dict[str, Any] = request.get("generationConfig", {})
    settings = {**generation, **{key: value for key, value in request.items() if key not in ENDPOINT_KEYS}}
    config: Any = {key: value for key, value in settings.items() if key in _config_keys()}
    others = {key: value for key, value in request.items() if key not in {*config, *ENDPOINT_KEYS}}
    if unknown := {key: value for key, value in generation.items() if key not in config}:
        others["generationConfig"] = unknown
    if others:
        config["httpOptions"] = {"extraBody": others}
    # A continuation and a call of a function would be requests by the library itself, which no budget counts.
    config |= {"automaticContinuation": False, "automaticFunctionCalling": {"disable": True}}
    config["shouldReturnHttpResponse"] = True
    try:
        contents: Any = _decode_images(request["contents"])
        with translate_client_errors(seconds):
            response = await client.aio.models.generate_content(
                model=request["model"], contents=contents, config=config
            )
    except ValueError as error:  # a request that the library rejects
        raise FailedTry(
            redact_text(f"{type(error).__name__}: {error}")[:MAX_SHOWN_CHARACTERS], FailureCause.request
        ) from None
    body = response.sdk_http_response.body if response.sdk_http_response else None
    return body or ""


def _decode_images(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Images as bytes, which the library encodes itself."""

    def decode(part: dict[str, Any]) -> dict[str, Any]:
        if "inlineData" not in part:
            return part
        image = part["inlineData"]
        return {"inlineData": {**image, "data": base64.b64decode(image["data"])}}

    return [{**content, "parts": [decode(part) for part in content["parts"]]} for content in contents]


async def _reject_status(response: aiohttp.ClientResponse) -> None:
    """Raise RejectedRequest for another status than 200, before the library reads the body, which may not be JSON."""
    if response.status == 200:
        return
    text = await response.text()
    headers = response.headers.copy()
    if delay := RETRY_DELAY.search(text):
        headers.setdefault("Retry-After", delay[1])
    raise RejectedRequest(401 if response.status == 400 and WRONG_KEY in text else response.status, headers, text)
