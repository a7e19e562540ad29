"""Gemini's generateContent protocol: a question as a request body, a response body as a reply. Sends nothing."""

import json
from mimetypes import guess_type
from typing import Any

from core.config.agents import find_effort, reasoning_tokens
from core.config.teachers import TeacherConfig, find_gemini_thinking
from core.sample import Message, TokenUsage
from core.secrets import redact_excerpt
from plugins.hosted.reply_parts import (
    build_hosted_reply,
    read_text,
    split_image_url,
)
from plugins.hosted.vendor_schemas import GEMINI_SCHEMAS, fit_schema
from teachers.base import TeacherQuestion, TeacherReply
from teachers.openai_chat import (
    MALFORMED,
    InvalidCompletion,
    check_token_count,
    describe_schema,
    merge_extra,
    parse_json_object,
)

CUT_OFF_REASONS = {"MAX_TOKENS", "CONTINUATION"}
BLOCKED_REASONS = {
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR", "ESCALATION",
    "PUP_LIMITED_DISABLED",
}  # fmt: skip
"""Reasons for which the same request would be blocked again."""


def build_gemini_request(question: TeacherQuestion, model: str, config: TeacherConfig) -> dict[str, Any]:
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
