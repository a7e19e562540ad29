"""Anthropic's Messages protocol: request parameters by model family, replies, and a strict local server."""

import json
import os
from functools import partial
from typing import Any

import pytest

from core.config.agents import ReasoningEffort
from core.config.teachers import TeacherConfig
from core.sample import Message, TokenUsage, ToolCall
from plugins.hosted.anthropic_teacher import build_anthropic_params, read_anthropic_message
from plugins.hosted.tests.support.anthropic_server import AnthropicServer
from teachers.base import CallFailed, TeacherReply
from teachers.openai_chat import InvalidCompletion
from tests.support.http_serving import serve
from tests.support.strict_server import ServedReply, ask_strict, build_strict_question

KEY = "sk-ant-test-canary-1"
SCHEMA = {
    "title": "Draft",
    "type": "object",
    "properties": {
        "answer": {"type": "string", "maxLength": 200},
        "level": {"type": "integer", "minimum": 1},
        "score": {"type": "integer", "minimum": 1, "maximum": 3},
    },
    "required": ["answer"],
    "additionalProperties": False,
}
FITTED = {
    "title": "Draft",
    "type": "object",
    "properties": {
        "answer": {"type": "string", "description": "(maxLength: 200)"},
        "level": {"type": "integer", "description": "(minimum: 1)"},
        "score": {"type": "integer", "enum": [1, 2, 3]},
    },
    "required": ["answer"],
    "additionalProperties": False,
}
EXAMPLES = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="hi"),
    Message(role="assistant", content='{"answer": "ho"}'),
    Message(role="user", content="hey"),
]
CACHED = {"cache_control": {"type": "ephemeral"}}
SYSTEM = [{"type": "text", "text": "Be brief."}]
TURNS = [
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": [{"type": "text", "text": '{"answer": "ho"}', **CACHED}]},
    {"role": "user", "content": [{"type": "text", "text": "hey"}]},
]
FORMAT = {"format": {"type": "json_schema", "schema": FITTED}}
MODELS = {
    "budget": "claude-haiku-4-5-20251001", "both": "claude-sonnet-4-6", "adaptive": "claude-opus-4-8", "default": "claude-opus-5",
    "always": "claude-opus-5-5", "between": "claude-sonnet-5-5", "small": "claude-haiku-5-5", "fable": "claude-fable-5-1",
}  # fmt: skip


build_question = partial(build_strict_question, messages=EXAMPLES, schema=SCHEMA)


def build_config(model: str = "claude-opus-5-5", **changes: object) -> TeacherConfig:
    return TeacherConfig.model_validate(
        {"model": f"anthropic/{model}", "max_retries": 1, "outage_seconds": 1, **changes}
    )


@pytest.mark.parametrize(
    ("family", "reasoning", "thinking", "effort"),
    [
        ("budget", None, None, None),
        ("budget", "off", None, None),
        ("budget", "low", {"type": "enabled", "budget_tokens": 1024}, None),
        ("budget", 1500, {"type": "enabled", "budget_tokens": 1500}, None),
        ("both", "medium", {"type": "adaptive", "display": "summarized"}, "medium"),
        ("adaptive", "off", None, None),
        ("adaptive", "high", {"type": "adaptive", "display": "summarized"}, "high"),
        ("default", None, None, None),
        ("default", "off", {"type": "disabled"}, None),
        ("default", 1500, {"type": "adaptive", "display": "summarized"}, "medium"),
        ("always", "off", None, "low"),
        ("always", "low", {"type": "adaptive", "display": "summarized"}, "low"),
        ("between", "off", {"type": "between_tools"}, None),
        ("small", "off", {"type": "disabled"}, None),
        ("fable", 100_000, {"type": "adaptive", "display": "summarized"}, "high"),
    ],
)
def test_each_family_of_models_gets_its_own_thinking(
    family: str, reasoning: ReasoningEffort | int | None, thinking: dict[str, Any] | None, effort: str | None
) -> None:
    """Whole bodies, which the strict server accepts, and with another family's thinking does not."""
    model = MODELS[family]
    body = build_anthropic_params(build_question(reasoning), model, build_config(model))
    assert body == {
        "model": model, "max_tokens": 5000, "system": SYSTEM, "messages": TURNS,
        "output_config": {**({"effort": effort} if effort else {}), **FORMAT},
        **({"thinking": thinking} if thinking else {}),
    }  # fmt: skip
    with serve(AnthropicServer(KEY)) as server:
        server.answer = lambda _: ServedReply('{"answer": "x"}', thinking="hm")
        message = server.build_message(body)
    reply = read_anthropic_message(message, build_question(reasoning), build_config(model))
    assert reply.text == '{"answer": "x"}'
    assert reply.reasoning == ("hm" if thinking and thinking["type"] in ("enabled", "adaptive") else "")


@pytest.mark.parametrize(
    ("family", "reasoning", "choice"),
    [
        ("budget", None, "tool"),
        ("budget", "low", "auto"),
        ("adaptive", None, "tool"),
        ("default", None, "auto"),
        ("default", "off", "tool"),
        ("always", "off", "auto"),
        ("small", "off", "auto"),
    ],
)
def test_a_tool_is_forced_where_the_model_allows_it_and_does_not_think(
    family: str, reasoning: ReasoningEffort | None, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    model = MODELS[family]
    config = build_config(model, structured="tool")
    body = build_anthropic_params(build_question(reasoning), model, config)
    assert body["tools"] == [{"name": "Draft", "description": "Takes the reply.", "input_schema": SCHEMA}]
    assert body["tool_choice"]["type"] == choice
    assert ("Give your reply by one call of the tool Draft." in json.dumps(body["system"])) == (choice == "auto")
    with serve(AnthropicServer(KEY)) as server:
        server.answer = lambda _: ServedReply('{"answer": "é"}')
        reply = ask_strict(server, f"anthropic/{model}", build_question(reasoning), structured="tool")
    assert isinstance(reply, TeacherReply)
    assert reply.text == '{"answer": "é"}'


@pytest.mark.parametrize(
    "schema",
    [
        {"title": "Draft", "type": "object", "additionalProperties": {"type": "integer"}},
        {"title": "Draft", "type": "object", "properties": {"any": {}}},
        {"title": "Draft", "$ref": "#/$defs/N", "$defs": {"N": {"properties": {"next": {"$ref": "#/$defs/N"}}}}},
        {"title": "Draft", "type": "object", "properties": {str(n): {"type": "string"} for n in range(25)}},
    ],
)
def test_a_schema_that_the_vendor_cannot_express_is_asked_for_in_words(schema: dict[str, Any]) -> None:
    body = build_anthropic_params(build_question(schema=schema), "claude-opus-5-5", build_config())
    assert "output_config" not in body
    assert body["system"][-1]["text"].endswith(f"Its JSON schema: {json.dumps(schema)}")


def test_images_and_tool_turns_have_the_protocols_form() -> None:
    messages = [
        Message(role="user", content="What is it?", images=("data:image/png;base64,QUI=", "https://example.org/a.png")),
        Message(role="assistant", content="", tool_calls=(ToolCall(name="look", arguments={"x": 1}),) * 2),
        Message(role="tool", name="look", content="a cat"),
        Message(role="tool", name="look", content="a dog"),
        Message(role="user", content="Well?"),
    ]
    question = build_question(messages=messages, schema=None)
    body = build_anthropic_params(question, "claude-opus-5-5", build_config(drop=["cache_control"]))
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUI="}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "call_1_0", "name": "look", "input": {"x": 1}},
                {"type": "tool_use", "id": "call_1_1", "name": "look", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1_0", "content": "a cat"},
                {"type": "tool_result", "tool_use_id": "call_1_1", "content": "a dog"},
            ],
        },
        {"role": "user", "content": [{"type": "text", "text": "Well?"}]},
    ]
    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object"}}]
    with serve(AnthropicServer(KEY)) as server:
        assert server.build_message(body)["content"][-1]["type"] == "text"


def test_what_a_call_has_alone_is_not_stored_in_the_prompt_cache() -> None:
    """A reply to repair, and no cache at all for a request without examples."""
    config = build_config()
    repaired = [*EXAMPLES, Message(role="assistant", content="{"), Message(role="user", content="Repair it.")]
    question = build_question(messages=repaired, own_messages=3)
    turns = build_anthropic_params(question, "claude-opus-5", config)["messages"]
    assert len(turns) == 5
    assert [number for number, turn in enumerate(turns) if "cache_control" in turn["content"][-1]] == [1]
    alone = build_question(messages=[EXAMPLES[0], *repaired[-3:]], own_messages=3)
    body = build_anthropic_params(alone, "claude-opus-5", config)
    assert "cache_control" not in json.dumps(body["messages"])
    assert body["system"][-1]["cache_control"] == CACHED["cache_control"]
    assert build_question(own_messages=3).canonical == build_question().canonical, "replies are shared"


def test_cached_and_written_tokens_are_prompt_tokens_and_thinking_is_completion() -> None:
    usage = {
        "input_tokens": 10, "cache_read_input_tokens": 700, "cache_creation_input_tokens": 30, "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 40},
    }  # fmt: skip
    message = {"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn", "usage": usage}
    assert read_anthropic_message(message, build_question(), build_config()).usage == TokenUsage(
        calls=1, prompt_tokens=740, completion_tokens=50, cached_tokens=700, cache_write_tokens=30, reasoning_tokens=40
    )


@pytest.mark.parametrize(
    ("stop", "text", "finished"),
    [
        ("max_tokens", '{"answer": {"a": 1', False),
        ("model_context_window_exceeded", "{", False),
        ("refusal", "Not allowed.", True),
        ("stop_sequence", "{}", True),
    ],
)
def test_stop_reasons(stop: str, text: str, finished: bool) -> None:
    with serve(AnthropicServer(KEY)) as server:
        server.answer = lambda _: ServedReply(text, stop=stop)
        message = server.build_message(build_anthropic_params(build_question(), "claude-opus-4-8", build_config()))
    reply = read_anthropic_message(message, build_question(), build_config())
    assert (reply.text, reply.finished) == (text, finished)


@pytest.mark.parametrize(
    "change", [{"content": None}, {"content": [{}]}, {"usage": {}}, {"usage": {"input_tokens": -1, "output_tokens": 1}}]
)
def test_what_is_no_message_is_rejected(change: dict[str, Any]) -> None:
    message = {"content": [], "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}, **change}
    with pytest.raises(InvalidCompletion, match="not a message"):
        read_anthropic_message(message, build_question(), build_config())


def test_unknown_keys_go_through_and_the_servers_reason_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with serve(AnthropicServer(KEY)) as server:
        error = ask_strict(server, "anthropic/claude-opus-5-5", build_question(), extra={"temperature": 0.5})
        assert isinstance(error, CallFailed)
        assert "temperature: Extra inputs are not permitted" in str(error)
        assert len(server.requests) == 1, "a rejected request is not sent again"
        reply = ask_strict(
            server,
            "anthropic/claude-opus-5-5",
            build_question(),
            extra={"output_config": {"effort": "max"}, "service_tier": "auto"},
        )
        assert isinstance(reply, TeacherReply), reply
        assert server.requests[-1].body["output_config"]["effort"] == "max"


def test_the_environment_adds_no_header_and_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_CUSTOM_HEADERS": "X-Corp-Secret: corp-canary-77\nanthropic-beta: foo-2026",
        "ANTHROPIC_AUTH_TOKEN": "token-canary",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    with serve(AnthropicServer(KEY)) as server:
        reply = ask_strict(server, "anthropic/claude-opus-5-5", build_question())
    assert isinstance(reply, TeacherReply), reply
    [request] = server.requests
    assert not {"x-corp-secret", "anthropic-beta"} & request.headers.keys()
    assert "token-canary" not in str(request.headers)
    assert "corp-canary-77" in os.environ["ANTHROPIC_CUSTOM_HEADERS"], "other programs need it"
