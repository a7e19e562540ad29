import json

import pytest

from agents.teachers.base import Question
from agents.teachers.wire import NotACompletion, first_object, read_completion, request_body
from core.recipe import TeacherConfig
from core.sample import Message

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}
QUESTION = Question(
    messages=[Message(role="system", content="Be brief."), Message(role="user", content="hi")], contract="Draft",
    json_schema=SCHEMA, temperature=0.5, top_p=0.9, max_tokens=9, seed=3,
)  # fmt: skip


BILLED = '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -100000}}'


def config(**changes: object) -> TeacherConfig:
    return TeacherConfig.model_validate({"model": "openai/m", **changes})


def completion(**message: object) -> str:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})


def test_each_way_asks_for_the_contract() -> None:
    schema = request_body(QUESTION, "m", config())["response_format"]["json_schema"]
    assert schema == {"name": "Draft", "schema": SCHEMA}
    tool = request_body(QUESTION, "m", config(structured="tool"))
    assert tool["tools"][0]["function"] == {"name": "Draft", "parameters": SCHEMA}
    assert tool["tool_choice"]["function"]["name"] == "Draft"
    plain = request_body(QUESTION, "m", config(structured="plain"))
    assert "response_format" not in plain
    assert plain["messages"][0]["content"].startswith("Be brief.\n\nReply with one JSON object")
    assert '"answer"' in plain["messages"][0]["content"]


def test_sampling_goes_along_and_what_an_endpoint_refuses_is_left_out() -> None:
    body = request_body(QUESTION, "m", config(sampling={"top_k": 40, "min_p": 0.05}, seeded=False, logprobs=False))
    assert (body["top_k"], body["min_p"]) == (40, 0.05)
    assert not {"seed", "logprobs"} & body.keys()


def test_each_way_reads_the_reply() -> None:
    call = {"function": {"name": "Draft", "arguments": '{"answer": "x"}'}}
    assert read_completion(completion(tool_calls=[call]), config(structured="tool")).text == '{"answer": "x"}'
    fenced = 'Sure! Here it is:\n```json\n{"answer": "a {brace}"}\n```\nAnything else?'
    assert read_completion(completion(content=fenced), config(structured="plain")).text == '{"answer": "a {brace}"}'
    assert read_completion(completion(content=None, refusal="I cannot."), config()).text == "I cannot."
    assert read_completion(completion(content=None), config()).text == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no object", "no object"),
        ("{broken", "{broken"),
        ("{a} {}", "{}"),
        ('{"a": 1} {"b": 2}', '{"a": 1}'),
        ("", ""),
        ('{"a":' * 3000, '{"a":' * 3000),
    ],
)
def test_plain_words_give_their_first_object_or_themselves(text: str, found: str) -> None:
    assert first_object(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": null}]}', "1e999", "[" * 100_000, BILLED],
)
def test_what_is_no_completion_is_told_apart(text: str) -> None:
    with pytest.raises(NotACompletion, match="not a chat completion"):
        read_completion(text, config())


def test_invalid_unicode_goes_no_further() -> None:
    text = '{"choices": [{"message": {"content": "a\\ud800b"}}]}'
    assert read_completion(text, config()).text.encode() == b"a?b"
