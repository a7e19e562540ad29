"""Thinking in the real llama.cpp: with a chat template that thinks, and with the packaged model, whose template does not."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from agents.studies.teacher_probe import ThinkingAbility, probe_thinking
from core.config.teachers import TeacherConfig
from core.sample import Message
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.providers import open_teacher
from tests.support.thinking_model import write_thinking_model

pytestmark = pytest.mark.slow
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="What is two plus three?")], contract="Sum", json_schema=None, temperature=0,
    top_p=1, max_tokens=72, seed=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "thinking.gguf"
    write_thinking_model(path)
    return f"local/{path}"


def configure(model: str) -> TeacherConfig:
    return TeacherConfig(model=model, max_concurrent=4, slot_tokens=2048, timeout_seconds=300)


def ask(model: str, changes: Sequence[dict[str, Any]]) -> list[TeacherReply]:
    async def run() -> list[TeacherReply]:
        async with open_teacher(configure(model)) as teacher:
            questions = [QUESTION.model_copy(update=change) for change in changes]
            return await asyncio.gather(*(teacher.reply(question, 0, UnlimitedAccount()) for question in questions))

    return asyncio.run(run())


def test_the_server_separates_limits_and_switches_off_thinking(model: str) -> None:
    limited, off, default, schema, cut = ask(
        model,
        [
            {"reasoning": 16},
            {"reasoning": "off"},
            {},
            {"reasoning": 16, "json_schema": SCHEMA},
            {"reasoning": 400, "max_tokens": 20},
        ],
    )
    assert limited.reasoning
    assert limited.text
    assert len(limited.reasoning.split()) <= 16
    assert (off.reasoning, bool(off.text), off.finished) == ("", True, True)
    assert "think" not in f"{limited.text} {off.text}"
    assert off.usage.completion_tokens < 30
    for reply in (default, cut):
        assert (bool(reply.reasoning), reply.text, reply.finished) == (True, "", False)
    assert schema.reasoning == limited.reasoning
    assert isinstance(json.loads(schema.text)["sum"], int)


def probe(model: str) -> ThinkingAbility:
    async def run() -> ThinkingAbility:
        config = configure(model)
        async with open_teacher(config) as teacher:
            return await probe_thinking(teacher, config, 24, 1)

    return asyncio.run(run())


def test_the_probe_finds_that_the_server_thinks_and_keeps_to_a_schema(model: str) -> None:
    ability = probe(model)
    assert [(trial.way, trial.works, trial.counts) for trial in ability.trials] == [("native", True, False)]
    assert ability.switches_off
