"""Every reader of a hosted reply, given replies with parts of other types."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config.teachers import TeacherConfig
from teachers.openai_chat import parse_completion
from tests.support.odd_replies import (
    TestedReader,
    bind_reader,
    check_levels_and_digits,
    check_one_odd_part,
    check_several_odd_parts,
)

TEXT = '{"answer": "x"}'
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
READERS = {
    way: TestedReader(COMPLETION, bind_reader(parse_completion, "openai/m", way))
    for way in ("json_schema", "tool", "plain")
}


@pytest.mark.parametrize("name", READERS)
def test_a_reply_with_one_odd_part_is_read_or_rejected(name: str) -> None:
    check_one_odd_part(READERS[name])


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_reply_with_several_odd_parts_is_read_or_rejected(name: str, data: st.DataObject) -> None:
    check_several_odd_parts(READERS[name], data)


@pytest.mark.parametrize("name", READERS)
def test_a_reply_of_too_many_levels_or_digits_is_read_or_rejected(name: str) -> None:
    check_levels_and_digits(READERS[name])


def test_arguments_that_are_an_object_are_read_as_json() -> None:
    call = {"function": {"name": "Draft", "arguments": {"answer": "é"}}}
    text = json.dumps({"choices": [{"message": {"tool_calls": [call]}}]})
    assert parse_completion(text, TeacherConfig(model="openai/m", structured="tool")).text == '{"answer": "é"}'
