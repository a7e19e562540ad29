"""The ways to think with a schema, by the protocols of Anthropic and Gemini."""

import asyncio
import re
import sys
from typing import Any

import pytest

from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig, find_thinking_habit
from core.plugins import FOLDER
from core.sample import Message
from plugins.hosted.tests.support.anthropic_server import AnthropicServer
from plugins.hosted.tests.support.gemini_server import GeminiServer
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.openai_chat import think_and_answer
from teachers.providers import find_teacher_problems, open_teacher
from tests.support.http_serving import serve
from tests.support.strict_server import ServedReply

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="Add 2 and 3.")], contract="Sum", json_schema=SCHEMA, temperature=0, top_p=1,
    max_tokens=1124, seed=1, reasoning="low",
)  # fmt: skip
KEY = "canary-1"


@pytest.mark.parametrize("thinking", ["native", "tagged"])
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
    assert reply.usage.calls == len(server.requests) == 1


@pytest.mark.parametrize(
    ("row", "models"),
    [
        ("Claude 4.6 to 4.8", ["claude-opus-4-6", "claude-sonnet-4-8"]),
        (
            "Claude 5 and later, Fable, Mythos",
            ["claude-sonnet-5", "claude-fable-5", "claude-opus-5-5", "claude-mythos-5"],
        ),
        ("Gemini 2.5", ["gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"]),
        ("Gemini 3 and later", ["gemini-3-pro", "gemini-3.5-flash"]),
    ],
)
def test_the_table_of_hosted_models_says_which_think_unasked(row: str, models: list[str]) -> None:
    page = (FOLDER / "hosted/README.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)$", page, re.MULTILINE)
    words = {"asked": "", "default": "on by default", "always": "always on"}
    found = {find_thinking_habit("gemini" if "gemini" in model else "anthropic", model) for model in models}
    assert {habit for habit, said in words.items() if said and said in line} == found - {"asked"}


@pytest.mark.parametrize(("provider", "library"), [("anthropic", "anthropic"), ("gemini", "google.genai")])
def test_a_missing_extra_is_named_before_the_run(provider: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "seeds": {"path": "x"}, "teachers": {"main": {"model": f"{provider}/m"}}}
    )
    assert find_teacher_problems(recipe) == []
    monkeypatch.setitem(sys.modules, library, None)
    (problem,) = find_teacher_problems(recipe)
    assert str(problem).startswith(
        "teachers.main.model: its client library is not installed: run `make install-all`, or "
    )
