"""Thinking: the request keys of each dialect, its place in a reply, and the ways to think with a schema."""

import asyncio
import json
from typing import Any, get_args

import pytest

from core.config.teachers import ChatDialect, TeacherConfig
from core.sample import Message, TokenUsage
from core.thinking import split_thinking
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.openai_chat import InvalidCompletion, parse_completion, think_and_answer
from teachers.providers import open_teacher
from teachers.thinking_keys import build_thinking_keys
from tests.support.thinking_endpoint import THOUGHT, ThinkingServer, serve_thinking

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="Add 2 and 3.")], contract="Sum", json_schema=SCHEMA, temperature=0, top_p=1,
    max_tokens=1124, seed=1, reasoning="low",
)  # fmt: skip
ON = {"enable_thinking": True, "thinking": True}
OFF = {"enable_thinking": False, "thinking": False}


@pytest.mark.parametrize(
    ("dialect", "model", "reasoning", "keys"),
    [
        ("openai", "gpt-5.2", "high", {"reasoning_effort": "high"}),
        ("openai", "gpt-5.2", "off", {"reasoning_effort": "none"}),
        ("openai", "gpt-5-mini", "off", {"reasoning_effort": "minimal"}),
        ("openai", "gpt-5-2025-08-07", "off", {"reasoning_effort": "minimal"}),
        ("openai", "o4-mini", "off", {"reasoning_effort": "low"}),
        ("openai", "gpt-4.1", "off", {}),
        ("openai", "o3", 2000, {"reasoning_effort": "medium"}),
        ("openai", "o3", 1_000_000, {"reasoning_effort": "high"}),
        ("openrouter", "qwen/qwen3-8b", "low", {"reasoning": {"effort": "low"}}),
        ("openrouter", "qwen/qwen3-8b", 3000, {"reasoning": {"max_tokens": 3000}}),
        ("openrouter", "qwen/qwen3-8b", "off", {"reasoning": {"effort": "none"}}),
        ("deepseek", "deepseek-flash", "off", {"thinking": {"type": "disabled"}}),
        ("deepseek", "deepseek-flash", "low", {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        ("vllm", "Qwen/Qwen3-8B", "off", {"chat_template_kwargs": OFF}),
        (
            "vllm",
            "Qwen/Qwen3-8B",
            "low",
            {"chat_template_kwargs": ON | {"reasoning_effort": "low"}, "reasoning_effort": "low"},
        ),
        (
            "vllm",
            "openai/gpt-oss-20b",
            "off",
            {"chat_template_kwargs": OFF | {"reasoning_effort": "low"}, "reasoning_effort": "low"},
        ),
        ("llama.cpp", "m.gguf", "off", {"chat_template_kwargs": OFF, "thinking_budget_tokens": 0}),
        (
            "llama.cpp",
            "m.gguf",
            1500,
            {"chat_template_kwargs": ON | {"reasoning_effort": "medium"}, "thinking_budget_tokens": 1500},
        ),
        ("generic", "m", "off", {"reasoning_effort": "none"}),
        ("generic", "m", "medium", {"reasoning_effort": "medium"}),
        *((dialect, "gpt-5", None, {}) for dialect in get_args(ChatDialect)),
    ],
)
def test_each_dialect_has_its_own_keys(dialect: str, model: str, reasoning: Any, keys: dict[str, Any]) -> None:
    assert build_thinking_keys(reasoning, dialect, model) == keys


@pytest.mark.parametrize(
    ("text", "reasoning", "answer", "closed"),
    [
        ("<think>\na\n</think>\n\n{}", "a", "{}", True),
        ("<thinking>a</thinking> b", "a", "b", True),
        ("[THINK]a[/THINK]b", "a", "b", True),
        ("<think>\n\n</think>\n\nb", "", "b", True),
        ("a\n</think>\nb", "a", "b", True),
        ("  <think>a", "a", "", False),
        ("<think>a </thinking> b</think> c", "a </thinking> b", "c", True),
        ("Use <think> and </thinks>.", "", "Use <think> and </thinks>.", True),
        ("<thought>a</thought>b", "a", "b", True),
        ("a </reasoning>\nb </think>\nc", "a", "b </think>\nc", True),
        ("a\n```\nx\n```\n</think>\nb", "a\n```\nx\n```", "b", True),
        *(
            (text, "", text, True)
            for text in (
                '{"tag": "</think>"}',
                '{"tag": "a</think>\nb"}',
                "Use the tag </think> to end.",
                "The tag is </think>\n",
                "The tags <think> and </think>\nenclose it.",
                '```json\n{"a": "write </think> here"}\n```',
                "So:\n```html\n</think>\n```\nIt ends.",
            )
        ),
        ("no thought", "", "no thought", True),
        ("", "", "", True),
        ("<think>" * 100_000, "<think>" * 99_999, "", False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_thinking_between_tags_is_split_from_the_answer(text: str, reasoning: str, answer: str, closed: bool) -> None:
    assert split_thinking(text) == (reasoning, answer, closed)


def completion(finish: str = "stop", usage: dict[str, Any] | None = None, **message: object) -> str:
    choice = {"message": message, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage or {}})


def parse(text: str, max_tokens: int = 1000, **config: object) -> TeacherReply:
    return parse_completion(text, TeacherConfig.model_validate({"model": "openai/m", **config}), max_tokens)


@pytest.mark.parametrize(
    "message",
    [
        {"content": "b", "reasoning_content": "a"},
        {"content": "b", "reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]},
        {"content": "b", "reasoning_details": [{"type": "reasoning.summary", "summary": "a"}, {"type": "reasoning.encrypted"}]},
        {"content": "<think>a</think>b", "reasoning_content": "a"},
        {"content": "<think>\na\n</think>\nb"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}, {"type": "text", "text": "b"}]},
    ],
    ids=lambda message: "+".join(message),
)  # fmt: skip
def test_every_servers_field_is_read_as_reasoning(message: dict[str, Any]) -> None:
    reply = parse(completion(**message))
    assert (reply.reasoning, reply.text, reply.finished) == ("a", "b", True)


@pytest.mark.parametrize(
    ("finish", "message"),
    [
        ("length", {"content": None, "reasoning": "a"}),
        ("length", {"content": "<think>\na"}),
        ("stop", {"content": "<think>\na"}),
    ],
)
def test_a_thought_without_an_end_is_a_reply_that_is_cut_off(finish: str, message: dict[str, Any]) -> None:
    reply = parse(completion(finish, **message))
    assert (reply.reasoning, reply.text, reply.finished) == ("a", "", False)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 50, "completion_tokens": 30,
                "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 5},
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            TokenUsage(
                calls=1, prompt_tokens=50, completion_tokens=30, cached_tokens=40, cache_write_tokens=5, reasoning_tokens=20
            ),
        ),
        (
            {"prompt_tokens": 50, "completion_tokens": 1, "prompt_cache_hit_tokens": 30, "prompt_cache_miss_tokens": 20},
            TokenUsage(calls=1, prompt_tokens=50, completion_tokens=1, cached_tokens=30),
        ),
        (
            {
                "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 27,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            TokenUsage(calls=1, prompt_tokens=5, completion_tokens=22, reasoning_tokens=20),
        ),
        (
            {
                "prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 9},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            TokenUsage(calls=1, prompt_tokens=5, completion_tokens=2, cached_tokens=5, reasoning_tokens=2),
        ),
    ],
    ids=["openai", "deepseek", "xai", "more than all"],
)  # fmt: skip
def test_cached_and_thinking_tokens_are_parts_of_the_counts(usage: dict[str, Any], expected: TokenUsage) -> None:
    assert parse(completion(usage=usage, content="b")).usage == expected


def ask(server: ThinkingServer, question: TeacherQuestion = QUESTION, thinking: Any = "native") -> TeacherReply:
    async def run() -> TeacherReply:
        config = TeacherConfig(
            model="openai/m",
            base_url=server.url,
            dialect=server.dialect,
            logprobs=False,
            max_retries=0,
            thinking=thinking,
        )
        async with open_teacher(config) as teacher:
            return await think_and_answer(lambda part: teacher.reply(part, 0, UnlimitedAccount()), question, config)

    return asyncio.run(run())


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openrouter"])
@pytest.mark.parametrize("reasoning", [None, "low", 1024, "off"])
def test_a_teacher_thinks_unless_a_request_disables_it(dialect: Any, reasoning: Any) -> None:
    with serve_thinking(ThinkingServer(dialect)) as server:
        reply = ask(server, QUESTION.model_copy(update={"reasoning": reasoning}))
    assert "sum" in json.loads(reply.text)
    assert reply.reasoning == ("" if reasoning == "off" else THOUGHT)
    assert bool(reply.usage.reasoning_tokens) == (reasoning != "off")


@pytest.mark.parametrize("output", ["reasoning", "reasoning_content", "inline", "closing_only"])
@pytest.mark.parametrize("thinking", ["native", "tagged"])
def test_thoughts_and_answer_are_separated_whatever_the_server_does(output: Any, thinking: str) -> None:
    with serve_thinking(ThinkingServer(output=output)) as server:
        reply = ask(server, thinking=thinking)
    assert (reply.reasoning, reply.finished) == (THOUGHT, True)
    assert "sum" in json.loads(reply.text)


@pytest.mark.parametrize("schema", ["no_thinking", "null_content"])
def test_a_schema_that_prevents_thinking_is_sent_in_words_or_not_at_all(schema: Any) -> None:
    for thinking, thought, calls in [("native", "", 1), ("tagged", THOUGHT, 1)]:
        with serve_thinking(ThinkingServer(schema=schema)) as server:
            reply = ask(server, thinking=thinking)
        assert (reply.reasoning, len(server.bodies), reply.usage.calls) == (thought, calls, calls)
        assert "sum" in json.loads(reply.text)
        assert reply.usage.prompt_tokens + reply.usage.completion_tokens == server.spent
        assert reply.usage.reasoning_tokens == len(thought.split())


@pytest.mark.parametrize("thinking", ["native", "tagged"])
def test_a_thought_that_needs_all_tokens_is_a_reply_that_is_cut_off(thinking: str) -> None:
    with serve_thinking(ThinkingServer(thoughts="hm " * 2000)) as server:
        reply = ask(server, thinking=thinking)
    assert (reply.text, reply.finished, len(server.bodies)) == ("", False, 1)


def test_an_impossible_count_of_thinking_tokens_is_rejected() -> None:
    with pytest.raises(InvalidCompletion):
        parse(completion(usage={"completion_tokens_details": {"reasoning_tokens": -5}}, content="b"))
