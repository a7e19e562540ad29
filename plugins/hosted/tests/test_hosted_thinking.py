"""The ways to think with a schema, by the protocols of Anthropic and Gemini."""

import asyncio
from typing import Any

import pytest

from core.config.teachers import TeacherConfig
from core.sample import Message
from plugins.hosted.tests.support.anthropic_server import AnthropicServer
from plugins.hosted.tests.support.gemini_server import GeminiServer
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.providers import open_teacher
from teachers.thinking.schema_thinking import think_and_answer
from tests.support.http_serving import serve
from tests.support.strict_server import ServedReply

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="Add 2 and 3.")], contract="Sum", json_schema=SCHEMA, temperature=0, top_p=1,
    max_tokens=1124, seed=1, reasoning="low",
)  # fmt: skip
KEY = "canary-1"


@pytest.mark.parametrize("thinking", ["native", "tagged", "two_step"])
@pytest.mark.parametrize(
    ("served", "model"),
    [
        (AnthropicServer, "anthropic/claude-haiku-4-5"),
        (AnthropicServer, "anthropic/claude-opus-5-5"),
        (GeminiServer, "gemini/gemini-2.5-flash"),
    ],
)
def test_every_way_is_accepted_by_the_protocols_of_hosted_models(
    served: Any, model: str, thinking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(variable, KEY)

    def answer(question: TeacherQuestion) -> ServedReply:
        wants_object = question.json_schema is not None or "JSON schema" in str(question.messages)
        return ServedReply(
            '{"sum": 5}' if wants_object else "Two and three.", "" if question.reasoning == "off" else "I add."
        )

    async def run(url: str) -> TeacherReply:
        config = TeacherConfig(model=model, base_url=url, max_retries=0, outage_seconds=0, thinking=thinking)
        question = QUESTION.model_copy(update={"max_tokens": 100 + config.thinking_tokens("low")})
        async with open_teacher(config) as teacher:
            return await think_and_answer(lambda part: teacher.reply(part, 0, UnlimitedAccount()), question, config)

    with serve(served(KEY)) as server:
        server.answer = answer
        reply = asyncio.run(run(server.url))
    assert (reply.reasoning, reply.text) == ("I add.", '{"sum": 5}')
    assert reply.usage.calls == len(server.requests) == (2 if thinking == "two_step" else 1)
