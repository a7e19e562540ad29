"""Every reader of a hosted reply, given replies with parts of other types: a reply, or InvalidCompletion and nothing else."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config.teachers import TeacherConfig
from core.sample import Message
from plugins.hosted.anthropic_messages import parse_anthropic_message, read_anthropic_message
from plugins.hosted.gemini_content import parse_gemini_response
from teachers.base import TeacherQuestion, TeacherReply
from teachers.openai_chat import InvalidCompletion, parse_completion

QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="hi")], contract="Draft", json_schema={"type": "object"}, temperature=0, top_p=1,
    max_tokens=99, seed=1,
)  # fmt: skip
TEXT = '{"answer": "x"}'
MESSAGE = {
    "content": [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": TEXT},
        {"type": "tool_use", "name": "Draft", "input": {"answer": "x"}},
    ],
    "stop_reason": "end_turn",
    "stop_details": {"explanation": "no"},
    "usage": {"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"thinking_tokens": 1}},
}
CONTENT = {
    "candidates": [
        {
            "content": {
                "parts": [{"text": "hm", "thought": True}, {"text": TEXT}, {"functionCall": {"args": {"answer": "x"}}}]
            },
            "finishReason": "STOP",
        }
    ],
    "promptFeedback": {"blockReason": ""},
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 1},
}
COMPLETION = {
    "choices": [
        {
            "message": {
                "content": [{"type": "thinking", "thinking": [{"text": "hm"}]}, {"type": "text", "text": TEXT}],
                "reasoning_details": [{"text": "hm"}],
                "tool_calls": [{"function": {"name": "Draft", "arguments": TEXT}}],
            },
            "finish_reason": "stop",
            "logprobs": {
                "content": [{"token": "x", "logprob": -0.1, "top_logprobs": [{"token": "x", "logprob": -0.1}]}]
            },
        }
    ],
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}


def read(parse: Callable[..., TeacherReply], model: str, structured: str, *size: Any) -> Callable[[str], TeacherReply]:
    table = {"model": model, "structured": structured}
    return lambda text: parse(text, *size, TeacherConfig.model_validate(table))


READERS = {
    **{f"openai-{way}": (COMPLETION, read(parse_completion, "openai/m", way)) for way in ("json_schema", "tool", "plain")},
    **{
        f"anthropic-{way}": (MESSAGE, read(parse_anthropic_message, "anthropic/claude-opus-5", way, QUESTION))
        for way in ("json_schema", "tool")
    },
    **{
        f"gemini-{way}": (CONTENT, read(parse_gemini_response, "gemini/gemini-2.5-flash", way, QUESTION))
        for way in ("json_schema", "tool")
    },
}  # fmt: skip
ODD = [None, True, 5, -1, 1e308, "", "refusal", "x", [], ["x"], {}, {"x": 1}, [[None]], "\ud800"]


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from list_paths(child, (*path, key))


def change(reply: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(reply)
    part = changed
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return changed


def check_reading(reader: Callable[[str], TeacherReply], text: str) -> None:
    try:
        reply = reader(text)
    except InvalidCompletion:
        return
    assert isinstance(reply, TeacherReply)
    reply.model_dump_json()


@pytest.mark.parametrize("name", READERS)
def test_a_reply_with_one_odd_part_is_read_or_rejected(name: str) -> None:
    recorded, reader = READERS[name]
    assert json.loads(reader(json.dumps(recorded)).text) == {"answer": "x"}
    for path in list_paths(recorded):
        for value in ODD:
            check_reading(reader, json.dumps(change(recorded, path, value)))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_reply_with_several_odd_parts_is_read_or_rejected(name: str, data: st.DataObject) -> None:
    reply, reader = READERS[name]
    for _ in range(data.draw(st.integers(1, 4))):
        reply = change(reply, data.draw(st.sampled_from(list(list_paths(reply)))), data.draw(st.sampled_from(ODD)))
    check_reading(reader, json.dumps(reply))


@pytest.mark.parametrize("name", READERS)
def test_a_reply_of_too_many_levels_or_digits_is_read_or_rejected(name: str) -> None:
    recorded, reader = READERS[name]
    for odd in ('{"a":' * 900 + "1" + "}" * 900, "[" * 5_000, "1e999", "1" * 5_000, "NaN"):
        for path in list_paths(recorded):
            check_reading(reader, json.dumps(change(recorded, path, "ODD")).replace('"ODD"', odd))


@pytest.mark.parametrize(
    "change",
    [
        {"content": [{"type": "thinking", "thinking": 5}]},
        {"content": [{"type": "text", "text": None}]},
        {"stop_reason": ["x"]},
        {"stop_reason": "refusal", "stop_details": {"explanation": {"x": 1}}},
    ],
)
def test_an_odd_message_of_a_batch_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidCompletion, match="not a message"):
        read_anthropic_message({**MESSAGE, **change}, QUESTION, TeacherConfig(model="anthropic/claude-opus-5"))


def test_arguments_that_are_an_object_are_read_as_json() -> None:
    call = {"function": {"name": "Draft", "arguments": {"answer": "é"}}}
    text = json.dumps({"choices": [{"message": {"tool_calls": [call]}}]})
    assert parse_completion(text, TeacherConfig(model="openai/m", structured="tool")).text == '{"answer": "é"}'
