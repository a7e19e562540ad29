"""Every reader of a hosted reply, given replies with parts of other types."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config.teachers import TeacherConfig
from core.sample import Message
from plugins.hosted.anthropic_teacher import parse_anthropic_message, read_anthropic_message
from plugins.hosted.gemini_teacher import parse_gemini_response
from teachers.base import TeacherQuestion
from teachers.openai_chat import InvalidCompletion
from tests.support.odd_replies import (
    TestedReader,
    bind_reader,
    check_levels_and_digits,
    check_one_odd_part,
    check_several_odd_parts,
)

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
READERS = {
    **{
        f"anthropic-{way}": TestedReader(
            MESSAGE, bind_reader(parse_anthropic_message, "anthropic/claude-opus-5", way, QUESTION)
        )
        for way in ("json_schema", "tool")
    },
    **{
        f"gemini-{way}": TestedReader(
            CONTENT, bind_reader(parse_gemini_response, "gemini/gemini-2.5-flash", way, QUESTION)
        )
        for way in ("json_schema", "tool")
    },
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
