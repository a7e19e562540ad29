"""OpenAI's own endpoint: request bodies by model family, and a strict local server."""

from functools import partial
from typing import Any

import pytest

from core.config.agents import ReasoningEffort
from core.sample import Message, ToolCall
from teachers.base import TeacherReply
from tests.support.http_serving import serve
from tests.support.openai_server import OpenAIServer
from tests.support.strict_server import ServedReply, ask_strict, build_strict_question

KEY = "sk-test-canary-1"
SCHEMA = {"title": "Draft", "type": "object", "properties": {"answer": {"type": "string", "maxLength": 9}}}
MESSAGES = [Message(role="system", content="Be brief."), Message(role="user", content="hi")]
PLAIN = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    "max_completion_tokens": 5000,
    "response_format": {"type": "json_schema", "json_schema": {"name": "Draft", "schema": SCHEMA}},
}
SAMPLING = {"temperature": 0.5, "top_p": 0.75, "seed": 3, "logprobs": True}


build_question = partial(build_strict_question, messages=MESSAGES, schema=SCHEMA)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize(
    ("model", "reasoning", "keys"),
    [
        ("gpt-4o", None, SAMPLING),
        ("gpt-4.1-mini", "off", SAMPLING),
        ("gpt-5-chat-latest", None, SAMPLING),
        ("o3", None, {}),
        ("o4-mini", "off", {"reasoning_effort": "low"}),
        ("gpt-5-mini", None, {}),
        ("gpt-5-mini", "off", {"reasoning_effort": "minimal"}),
        ("gpt-5", "high", {"reasoning_effort": "high"}),
        ("gpt-5", 1500, {"reasoning_effort": "medium"}),
        ("gpt-5.2", "off", {"reasoning_effort": "none"}),
    ],
)
def test_each_family_of_models_gets_the_keys_that_it_accepts(
    model: str, reasoning: ReasoningEffort | int | None, keys: dict[str, Any]
) -> None:
    with serve(OpenAIServer(KEY)) as server:
        server.answer = lambda _: ServedReply('{"answer": "x"}', thinking="one two")
        reply = ask_strict(server, f"openai/{model}", build_question(reasoning), dialect="openai")
    assert isinstance(reply, TeacherReply), reply
    assert server.requests[0].body == {"model": model, **PLAIN, **keys}
    assert (reply.text, reply.usage.reasoning_tokens, reply.usage.completion_tokens) == ('{"answer": "x"}', 2, 4)


def test_images_tools_and_refusals() -> None:
    messages = [
        Message(role="user", content="What is it?", images=("data:image/png;base64,QUI=", "https://example.org/a.png")),
        Message(role="assistant", content="", tool_calls=(ToolCall(name="look", arguments={"x": 1}),) * 2),
        Message(role="tool", name="look", content="a cat"),
        Message(role="tool", name="look", content="a dog"),
    ]
    with serve(OpenAIServer(KEY)) as server:
        server.answer = lambda _: ServedReply("I cannot.", stop="refusal")
        reply = ask_strict(server, "openai/gpt-4o", build_question(messages=messages, schema=None), dialect="openai")
        assert isinstance(reply, TeacherReply), reply
        assert (reply.text, reply.finished) == ("I cannot.", True)
        server.answer = lambda _: ServedReply('{"answer": "x"}')
        reply = ask_strict(server, "openai/gpt-5", build_question(), dialect="openai", structured="tool")
        assert isinstance(reply, TeacherReply), reply
        assert reply.text == '{"answer": "x"}'
