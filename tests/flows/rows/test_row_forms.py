"""The columns and roles of other programs, each next to the same conversation as messages."""

import json
from typing import Any

import pytest

from flows.rows.row_forms import build_row_document, read_row_conversation

CALLED = [
    {"role": "user", "content": "Warm?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}],
    },
    {"role": "tool", "name": "weather", "content": "21"},
    {"role": "assistant", "content": "Yes."},
]
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
OLD_CALL = {"name": "weather", "arguments": '{"city": "Oslo"}'}


@pytest.mark.parametrize(
    "turns",
    [
        [
            CALLED[0], {"role": "assistant", "content": None, "function_call": OLD_CALL},
            {**CALLED[2], "role": "function"}, CALLED[3],
        ],
        [CALLED[0], {**CALLED[1], "content": None}, CALLED[2], CALLED[3]],
        [
            {"role": "human", "content": "Warm?"}, {"role": "function_call", "content": json.dumps(CALL)},
            {"role": "observation", "content": "21"}, {"role": "gpt", "content": "Yes."},
        ],
        [
            {"from": "human", "value": "Warm?"}, {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "function", "value": "21"}, {"from": "gpt", "value": "Yes."},
        ],
    ],
)  # fmt: skip
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_calls_of_functions_are_calls_of_tools(turns: list[dict[str, Any]], column: str) -> None:
    assert read_row_conversation({column: turns}) == read_row_conversation({"messages": CALLED})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"messages": [{"role": "poet", "content": "x"}]},
            "the role 'poet' is none of assistant, system, tool, user, .*developer",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "`chosen` and `rejected`: pairs are read by `distill`"),
        ({"frage": "a", "antwort": "b"}, "--columns user=ASKED,assistant=SAID; it has frage, antwort"),
        ({"question": "a", "answer": 3}, "`answer` must be text or a list of role and content, not int"),
        ({"system": 3, "question": "a", "answer": "b"}, "`system` must be text, not int"),
    ],
)
def test_a_row_that_is_not_read_says_what_would_be(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_row_document(row)
