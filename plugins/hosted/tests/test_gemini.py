"""Gemini's generateContent protocol: request bodies by model family, replies, and a strict local server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from core.config.agents import ReasoningEffort
from core.config.teachers import TeacherConfig
from core.sample import Message, TokenUsage, ToolCall
from plugins.hosted.gemini_teacher import parse_gemini_response
from plugins.hosted.tests.support.gemini_server import GeminiServer, normalize_names
from teachers.base import CallCharge, CallFailed, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.openai_chat import InvalidCompletion
from teachers.providers import open_teacher
from tests.support.http_serving import serve
from tests.support.strict_server import ServedFault, ServedReply, ask_strict, build_strict_question
from tests.support.waiting import wait_until_so

KEY = "AIza-test-canary-1"
MODEL = "gemini/gemini-2.5-flash"
SCHEMA = {
    "title": "Draft",
    "type": "object",
    "properties": {
        "answer": {"type": "string", "maxLength": 200},
        "level": {"type": "integer", "minimum": 1},
        "kind": {"const": "a", "type": "string"},
        "more": {"additionalProperties": {"type": "integer"}, "type": "object"},
    },
    "required": ["answer"],
    "additionalProperties": False,
}
FITTED = {
    **SCHEMA,
    "properties": {
        "answer": {"type": "string", "description": "(maxLength: 200)"},
        "level": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["a"], "type": "string"},
        "more": {"additionalProperties": {"type": "integer"}, "type": "object"},
    },
}
MESSAGES = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="hi"),
    Message(role="assistant", content='{"answer": "ho"}'),
    Message(role="user", content="hey"),
]
CONTENTS = [
    {"role": "user", "parts": [{"text": "hi"}]},
    {"role": "model", "parts": [{"text": '{"answer": "ho"}'}]},
    {"role": "user", "parts": [{"text": "hey"}]},
]
SAMPLING = {"temperature": 0.5, "topP": 0.75, "maxOutputTokens": 5000, "seed": 3}


build_question = partial(build_strict_question, messages=MESSAGES, schema=SCHEMA)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


@pytest.mark.parametrize(
    ("model", "reasoning", "thinking"),
    [
        ("gemini-2.0-flash", None, None),
        ("gemini-2.0-flash", "low", None),
        ("gemini-2.5-flash", None, None),
        ("gemini-2.5-flash", "off", {"thinkingBudget": 0, "includeThoughts": False}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 2048, "includeThoughts": True}),
        ("gemini-2.5-flash-lite", 1500, {"thinkingBudget": 1500, "includeThoughts": True}),
        ("gemini-2.5-pro", "off", {"thinkingBudget": 128, "includeThoughts": False}),
        ("gemini-3.5-flash", "off", {"thinkingLevel": "MINIMAL", "includeThoughts": False}),
        ("gemini-3.5-flash", 1500, {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", "off", {"thinkingLevel": "LOW", "includeThoughts": False}),
        ("gemini-3.8-flash", "high", {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ],
)
def test_each_family_of_models_gets_its_own_thinking(
    model: str, reasoning: ReasoningEffort | int | None, thinking: dict[str, Any] | None
) -> None:
    """The whole body as it arrives, which the client library must not change."""
    generation = {**SAMPLING, "responseMimeType": "application/json", "responseJsonSchema": FITTED}
    with serve(GeminiServer(KEY)) as server:
        server.answer = lambda _: ServedReply('{"answer": "x"}', thinking="hm")
        reply = ask_strict(server, f"gemini/{model}", build_question(reasoning))
    assert isinstance(reply, TeacherReply), reply
    assert normalize_names(server.requests[0].body) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": CONTENTS,
        "generationConfig": {**generation, **({"thinkingConfig": thinking} if thinking else {})},
    }
    assert (reply.text, reply.reasoning) == (
        '{"answer": "x"}',
        "hm" if thinking and thinking["includeThoughts"] else "",
    )


def test_a_function_is_forced_and_its_arguments_are_the_reply() -> None:
    with serve(GeminiServer(KEY)) as server:
        server.answer = lambda _: ServedReply('{"answer": "é"}')
        reply = ask_strict(server, MODEL, build_question(), structured="tool")
    assert isinstance(reply, TeacherReply), reply
    assert reply.text == '{"answer": "é"}'
    body = normalize_names(server.requests[0].body)
    [declaration] = body["tools"][0]["functionDeclarations"]
    assert (declaration["name"], declaration["parametersJsonSchema"]) == ("Draft", FITTED)
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["Draft"]}}
    assert "responseMimeType" not in body["generationConfig"]


def test_images_and_tool_turns_arrive_in_the_protocols_form() -> None:
    messages = [
        Message(role="user", content="What is it?", images=("data:image/png;base64,QUI=", "https://example.org/a.png")),
        Message(role="assistant", content="", tool_calls=(ToolCall(name="look", arguments={"x": 1}),) * 2),
        Message(role="tool", name="look", content="a cat"),
        Message(role="tool", name="look", content="a dog"),
    ]
    with serve(GeminiServer(KEY)) as server:
        reply = ask_strict(server, MODEL, build_question(messages=messages, schema=None))
    assert isinstance(reply, TeacherReply), reply
    results = [{"functionResponse": {"name": "look", "response": {"result": text}}} for text in ("a cat", "a dog")]
    assert normalize_names(server.requests[0].body)["contents"] == [
        {
            "role": "user",
            "parts": [
                {"text": "What is it?"},
                {"inlineData": {"mimeType": "image/png", "data": "QUI="}},
                {"fileData": {"mimeType": "image/png", "fileUri": "https://example.org/a.png"}},
            ],
        },
        {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"x": 1}}}] * 2},
        {"role": "user", "parts": results},
    ]


def test_thinking_is_completion_and_cached_tokens_are_part_of_the_prompt() -> None:
    usage = {
        "promptTokenCount": 740,
        "cachedContentTokenCount": 700,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 40,
    }
    with serve(GeminiServer(KEY)) as server:
        server.answer = lambda _: ServedReply("{}", usage=usage)
        reply = ask_strict(server, MODEL, build_question())
    assert isinstance(reply, TeacherReply)
    assert reply.usage == TokenUsage(
        calls=1, prompt_tokens=740, completion_tokens=50, cached_tokens=700, reasoning_tokens=40
    )


@pytest.mark.parametrize(
    ("stop", "text", "finished"),
    [
        ("MAX_TOKENS", '{"answer": {"a": 1', False),
        ("SAFETY", "The reply was blocked: SAFETY.", True),
        ("RECITATION", "The reply was blocked: RECITATION.", True),
        ("blocked:PROHIBITED_CONTENT", "The prompt was blocked: PROHIBITED_CONTENT.", True),
    ],
)
def test_finish_reasons(stop: str, text: str, finished: bool) -> None:
    with serve(GeminiServer(KEY)) as server:
        server.answer = lambda _: ServedReply('{"answer": {"a": 1', stop=stop)
        reply = ask_strict(server, MODEL, build_question())
    assert isinstance(reply, TeacherReply)
    assert (reply.text, reply.finished) == (text, finished)


@pytest.mark.parametrize(
    "answer",
    ["", "[]", "{}", '{"candidates": []}', '{"candidates": [{"finishReason": "OTHER"}]}', '{"candidates": [{"content": 1}]}',
     '{"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": -1}}'],
)  # fmt: skip
def test_what_is_no_content_is_rejected(answer: str) -> None:
    with pytest.raises(InvalidCompletion, match=r"not generated content|no reply"):
        parse_gemini_response(answer, build_question(), TeacherConfig(model="gemini/gemini-2.5-flash"))


def test_unknown_keys_go_through_and_the_servers_reason_comes_back() -> None:
    unsafe = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]
    with serve(GeminiServer(KEY)) as server:
        error = ask_strict(server, MODEL, build_question(), extra={"generationConfig": {"newKey": 1}, "other": 2})
        assert isinstance(error, CallFailed)
        assert "Extra inputs are not permitted" in str(error)
        body = normalize_names(server.requests[0].body)
        assert (body["generationConfig"]["newKey"], body["other"]) == (1, 2)
        assert len(server.requests) == 1, "a rejected request is not sent again"
        extra = {"generationConfig": {"topK": 4}, "safetySettings": unsafe}
        reply = ask_strict(server, MODEL, build_question(), extra=extra, drop=["temperature", "topP", "seed"])
        assert isinstance(reply, TeacherReply), reply
        body = normalize_names(server.requests[-1].body)
        assert body["safetySettings"] == unsafe
        assert body["generationConfig"].keys() == {"maxOutputTokens", "topK", "responseMimeType", "responseJsonSchema"}


def test_the_environment_chooses_no_endpoint_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GOOGLE_API_KEY": "AIza-other",
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_GENAI_USE_ENTERPRISE": "true",
        "GOOGLE_CLOUD_PROJECT": "mine",
        "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9",
        "GOOGLE_GENAI_API_VERSION": "v9",
        "GOOGLE_GENAI_CLIENT_MODE": "replay",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    with serve(GeminiServer(KEY)) as server:
        reply = ask_strict(server, MODEL, build_question())
    assert isinstance(reply, TeacherReply), reply
    assert len(server.requests) == 1


def test_the_time_to_wait_is_read_from_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    class Account(UnlimitedAccount):
        async def wait(self, seconds: float) -> None:
            waits.append(seconds)

    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    text = json.dumps({"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [detail]}})
    with serve(GeminiServer(KEY)) as server:
        server.fault = lambda number: None if number else ServedFault(429, text)

        async def run() -> TeacherReply:
            async with open_teacher(TeacherConfig(model="gemini/gemini-2.5-flash", base_url=server.url)) as teacher:
                call = asyncio.ensure_future(teacher.reply(build_question(), 0, Account()))
                await wait_until_so(lambda: waits or call.done())
                teacher.release()  # the rate limiter waits too
                return await call

        assert asyncio.run(run()).text
    assert waits == [34.5]


def test_a_request_that_the_library_rejects_is_not_charged() -> None:
    charges = []

    class Account(UnlimitedAccount):
        @asynccontextmanager
        async def charge(self, question: TeacherQuestion, name: str | None = None) -> AsyncIterator[CallCharge]:
            charge = CallCharge()
            yield charge
            charges.append(charge.usage)

    broken = [Message(role="user", content="hi", images=("data:image/png;base64,abc",))]
    with serve(GeminiServer(KEY)) as server:

        async def run() -> None:
            async with open_teacher(TeacherConfig(model="gemini/gemini-2.5-flash", base_url=server.url)) as teacher:
                with pytest.raises(CallFailed, match="Incorrect padding"):
                    await teacher.reply(build_question(messages=broken), 0, Account())

        asyncio.run(run())
    assert (charges, server.requests) == ([TokenUsage(calls=0)], [])
