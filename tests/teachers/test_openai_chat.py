import json
from typing import Any

import pytest
from pydantic import ValidationError

from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig
from core.errors import RecipeError
from core.sample import Message
from teachers.base import TeacherQuestion
from teachers.openai_chat import InvalidCompletion, build_request_body, find_json_object, parse_completion
from tests.support.scripted_teacher import build_test_plan

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}
QUESTION = TeacherQuestion(
    messages=[Message(role="system", content="Be brief."), Message(role="user", content="hi")], contract="Draft",
    json_schema=SCHEMA, temperature=0.5, top_p=0.9, max_tokens=9, seed=3,
)  # fmt: skip

SAMPLING = {"temperature", "top_p", "seed", "logprobs"}
BILLED = '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -100000}}'


def config(**changes: object) -> TeacherConfig:
    return TeacherConfig.model_validate({"model": "openai/m", **changes})


def completion(**message: object) -> str:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})


def test_each_way_asks_for_the_contract() -> None:
    schema = build_request_body(QUESTION, "m", config())["response_format"]["json_schema"]
    assert schema == {"name": "Draft", "schema": SCHEMA}
    tool = build_request_body(QUESTION, "m", config(structured="tool"))
    assert tool["tools"][0]["function"] == {"name": "Draft", "parameters": SCHEMA}
    assert tool["tool_choice"]["function"]["name"] == "Draft"
    plain = build_request_body(QUESTION, "m", config(structured="plain"))
    assert "response_format" not in plain
    assert plain["messages"][0]["content"].startswith("Be brief.\n\nReply with one JSON object")
    assert '"answer"' in plain["messages"][0]["content"]


def test_sampling_goes_along_and_what_an_endpoint_refuses_is_left_out() -> None:
    body = build_request_body(QUESTION, "m", config(extra={"top_k": 40, "min_p": 0.05}, drop=["seed"], logprobs=False))
    assert (body["top_k"], body["min_p"]) == (40, 0.05)
    assert not {"seed", "logprobs"} & body.keys()


@pytest.mark.parametrize("model", ["gpt-5-mini", "gpt-5.2", "o3", "o4-mini-2025-04-16", "ft:o4-mini:org::1", "gpt-6"])
def test_reasoning_models_of_openai_get_no_sampling_parameters(model: str) -> None:
    body = build_request_body(QUESTION, model, config(model=f"openai/{model}"))
    assert body.keys() == {"model", "messages", "max_completion_tokens", "response_format"}
    elsewhere = build_request_body(
        QUESTION, model, config(model=f"openai/{model}", base_url="http://localhost:8000/v1")
    )
    assert elsewhere.keys() == {"model", "messages", "max_tokens", "response_format"} | SAMPLING


@pytest.mark.parametrize(
    ("table", "thinking"),
    [
        ({"model": "openai/gpt-5-mini"}, 2048),
        ({"model": "openai/openai/gpt-5-mini", "base_url": "https://openrouter.ai/api/v1"}, 2048),
        ({"model": "openai/gpt-5-mini", "base_url": "https://me.openai.azure.com/openai/v1"}, 2048),
        ({"model": "openai/deepseek-reasoner", "base_url": "https://api.deepseek.com"}, 2048),
        ({"model": "openai/deepseek-ai/DeepSeek-R1-0528", "base_url": "https://api.together.xyz/v1"}, 2048),
        ({"model": "openai/openai/gpt-oss-120b", "base_url": "http://localhost:8000/v1"}, 2048),
        ({"model": "openai/google/gemini-2.5-pro", "base_url": "https://openrouter.ai/api/v1"}, 2048),
        ({"model": "openai/anthropic/claude-opus-5.5", "base_url": "https://openrouter.ai/api/v1"}, 2048),
        ({"model": "openai/anthropic/claude-opus-4.5", "base_url": "https://openrouter.ai/api/v1"}, 0),
        ({"model": "openai/openai/gpt-4.1", "base_url": "https://openrouter.ai/api/v1"}, 0),
        ({"model": "openai/deepseek-chat", "base_url": "https://api.deepseek.com"}, 0),
    ],
)
def test_a_model_that_always_thinks_has_tokens_for_it_behind_every_gateway(
    table: dict[str, str], thinking: int
) -> None:
    assert TeacherConfig.model_validate(table).thinking_tokens(None) == thinking


def test_a_critic_by_confidence_is_refused_for_a_model_without_probabilities() -> None:
    recipe = {
        "name": "x", "family": "constrained_instructions", "seeds": {"path": "x"}, "agents": {"critic": {"type": "confidence"}},
        "verifiers": [{"type": "constraints"}],
    }  # fmt: skip
    for teacher in ({"model": "openai/gpt-5-mini"}, {"model": "openai/m", "logprobs": False}):
        with pytest.raises(RecipeError, match=r"agents\.critic\.type: openai/\S+ returns no token probabilities"):
            build_test_plan(Recipe.model_validate({**recipe, "teachers": {"main": teacher}}))


def test_extra_keys_may_be_nested_and_dropped_keys_are_not_sent() -> None:
    nested = {"provider": {"order": ["a"]}, "response_format": {"strict": True}}
    body = build_request_body(QUESTION, "m", config(extra=nested, drop=["temperature", "top_p"]))
    assert body["provider"] == {"order": ["a"]}
    assert body["response_format"] == {
        "type": "json_schema", "json_schema": {"name": "Draft", "schema": SCHEMA}, "strict": True
    }  # fmt: skip
    assert not {"temperature", "top_p"} & body.keys()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"extra": {"max_tokens": 4000}}, "max_tokens is fixed, .*; remove it, and set agents.ROLE.max_tokens"),
        ({"extra": {"max_completion_tokens": 9}}, "max_completion_tokens is fixed"),
        ({"model": "local/x.gguf", "extra": {"n_predict": -1}}, "n_predict is fixed"),
        ({"extra": {"n": 4}}, "n is fixed, since a budget depends on it; remove it, and set `samples` instead"),
        ({"extra": {"model": "gpt-5-pro"}}, "model is fixed, .* set the teacher's own `model` instead"),
        ({"extra": {"stream": True}}, "stream is fixed"),
        ({"drop": ["top_p", "max_tokens"]}, "max_tokens is fixed"),
        ({"model": "anthropic/claude-sonnet-4-5", "drop": ["max_tokens"]}, "max_tokens is fixed"),
        ({"model": "anthropic/claude-sonnet-4-5", "extra": {"system": "x"}}, "system is fixed"),
        ({"model": "gemini/gemini-2.5-flash", "extra": {"maxOutputTokens": 9}}, "maxOutputTokens is fixed"),
        ({"model": "gemini/gemini-2.5-flash", "extra": {"contents": []}}, "contents is fixed"),
        (
            {"model": "gemini/gemini-2.5-flash", "extra": {"generationConfig": {"candidateCount": 4}}},
            "generationConfig.candidateCount is fixed",
        ),
        (
            {"model": "gemini/gemini-2.5-flash", "extra": {"generation_config": {"max_output_tokens": 9}}},
            "generation_config.max_output_tokens is fixed",
        ),
        ({"model": "gemini/gemini-2.5-flash", "extra": {"generationConfig": 5}}, "generationConfig must be a table, not 5"),
        ({"model": "gemini/gemini-2.5-flash", "drop": ["generationConfig"]}, "generationConfig has the length of a reply"),
    ],
)  # fmt: skip
def test_what_a_budget_depends_on_cannot_be_changed_by_extra_or_drop(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        config(**table)


@pytest.mark.attack(
    "an endpoint ignores `max_tokens`, or repeats half JSON objects",
    "cut at 32 characters per token; linear-time search",
)
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no object", "no object"),
        ("{broken", "{broken"),
        ("{a} {}", "{}"),
        ('{"a": 1} {"b": 2}', '{"a": 1}'),
        ("", ""),
        ('{"a":' * 3000, '{"a":' * 3000),
        ('{"a":' * 100_000, '{"a":' * 100_000),
        ('{"a":1 ' * 100_000, '{"a":1 ' * 100_000),
        ('{"a":["{",":["' + ',"{",":["' * 100_000, '{"a":["{",":["' + ',"{",":["' * 100_000),
        ("{" * 200_000 + "}", "{}"),
        ('{"a": {"b": 1} and {"c": 2}', '{"c": 2}'),
        ('{"a": ' + "1" * 5_000 + "}", '{"a": ' + "1" * 5_000 + "}"),
    ],
    ids=lambda text: text[:20],
)
def test_plain_words_give_their_first_object_or_themselves_in_linear_time(text: str, found: str) -> None:
    assert find_json_object(text) == found


@pytest.mark.parametrize("structured", ["json_schema", "plain"])
def test_a_reply_longer_than_its_tokens_can_be_is_cut_and_counts_as_cut_off(structured: str) -> None:
    answer = '{"answer": "' + "x" * 300 + '"}'
    whole = parse_completion(completion(content=answer), config(structured=structured), 10)
    cut = parse_completion(completion(content=answer), config(structured=structured), 9)
    assert (whole.text, whole.finished) == (answer, True)
    assert (cut.text, cut.finished) == (answer[:288], False)


@pytest.mark.parametrize(
    "text",
    ["", "<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": null}]}', "1e999", "[" * 100_000, BILLED],
)
def test_what_is_no_completion_is_rejected(text: str) -> None:
    with pytest.raises(InvalidCompletion, match="not a chat completion"):
        parse_completion(text, config())


def test_invalid_unicode_goes_no_further() -> None:
    text = '{"choices": [{"message": {"content": "a\\ud800b"}}]}'
    assert parse_completion(text, config()).text.encode() == b"a?b"
