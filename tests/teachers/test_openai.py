"""OpenAI's own endpoint: request bodies by model family, and a strict local server."""

import asyncio
from typing import Any

import pytest

from core.config.agents import ReasoningEffort
from core.config.teachers import TeacherConfig
from core.sample import Message, ToolCall
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.providers import open_teacher
from tests.support.http_serving import serve
from tests.support.openai_server import OpenAIServer
from tests.support.strict_server import ServedReply, StrictServer

KEY = "sk-test-canary-1"
SCHEMA = {"title": "Draft", "type": "object", "properties": {"answer": {"type": "string", "maxLength": 9}}}
MESSAGES = [Message(role="system", content="Be brief."), Message(role="user", content="hi")]
PLAIN = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    "max_completion_tokens": 5000,
    "response_format": {"type": "json_schema", "json_schema": {"name": "Draft", "schema": SCHEMA}},
}
SAMPLING = {"temperature": 0.5, "top_p": 0.75, "seed": 3, "logprobs": True}


def build_question(reasoning: ReasoningEffort | int | None = None, **changes: Any) -> TeacherQuestion:
    plain = TeacherQuestion(
        messages=MESSAGES, contract="Draft", json_schema=SCHEMA, temperature=0.5, top_p=0.75, max_tokens=5000, seed=3,
        reasoning=reasoning,
    )  # fmt: skip
    return plain.model_copy(update=changes)


def ask(server: StrictServer, question: TeacherQuestion, model: str, **changes: object) -> TeacherReply | BaseException:
    """As if the server were api.openai.com."""

    async def run() -> list[TeacherReply | BaseException]:
        table = {"model": f"openai/{model}", "base_url": server.url, "dialect": "openai", "max_retries": 1, **changes}
        async with open_teacher(TeacherConfig.model_validate(table)) as teacher:
            return await asyncio.gather(teacher.reply(question, 0, UnlimitedAccount()), return_exceptions=True)

    return asyncio.run(run())[0]


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
        reply = ask(server, build_question(reasoning), model)
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
        reply = ask(server, build_question(messages=messages, json_schema=None), "gpt-4o")
        assert isinstance(reply, TeacherReply), reply
        assert (reply.text, reply.finished) == ("I cannot.", True)
        server.answer = lambda _: ServedReply('{"answer": "x"}')
        reply = ask(server, build_question(), "gpt-5", structured="tool")
        assert isinstance(reply, TeacherReply), reply
        assert reply.text == '{"answer": "x"}'
