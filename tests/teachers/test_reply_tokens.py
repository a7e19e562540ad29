"""The tokens of a reply: those that write it, whatever else a server returns."""

import math
from typing import Any

import pytest

from teachers.reply_tokens import MIN_LOGPROB, read_reply_tokens

YES = '{"a": true}'


def write(*texts: str) -> list[dict[str, Any]]:
    return [
        {
            "token": text,
            "logprob": -0.5,
            "top_logprobs": [{"token": text, "logprob": -0.5}, {"token": "?", "logprob": -1}],
        }
        for text in texts
    ]


@pytest.mark.parametrize(
    "texts",
    [
        ['{"a"', ": ", "true", "}"],
        ["<think>", '{"a": false}', "</think>", '{"a"', ": true", "}", "<|im_end|>"],
        ["```json\n", '{"a"', ": true", "}\n", "```"],
        ['x {"a', '": true', "}"],
    ],
)
def test_the_tokens_write_the_reply_alone(texts: list[str]) -> None:
    tokens = read_reply_tokens(write(*texts), YES, 20)
    assert "".join(token.text for token in tokens) == YES
    known = [token for token in tokens if token.likeliest]
    assert {token.text for token in known} == set(texts) & {token.text for token in tokens}, (
        "nothing is known of a cut one"
    )


@pytest.mark.parametrize("texts", [['{"a": ', "false", "}"], ['{"a": ', "\ufffd", "}"]])
def test_tokens_of_another_reply_say_nothing(texts: list[str]) -> None:
    (token,) = read_reply_tokens(write(*texts), YES, 20)
    assert (token.text, token.likeliest) == (YES, {})


def test_what_a_server_returns_is_bounded_and_readable() -> None:
    many = [{"token": f"t{i}", "logprob": -float(i)} for i in range(10_000)]
    half, *_ = read_reply_tokens([{"token": "\ud83d", "logprob": -1.0, "top_logprobs": many}], "?", 20)
    assert half.text == "?"
    assert list(half.likeliest) == [f"t{i}" for i in reversed(range(20))]
    half.model_dump_json()


@pytest.mark.parametrize("written", [None, math.nan])
def test_without_its_own_probability_a_token_has_that_of_the_list_or_none(written: float | None) -> None:
    listed = [{"token": "true", "logprob": -0.5}, {"token": "false", "logprob": -0.9}]
    (token,) = read_reply_tokens([{"token": "true", "logprob": written, "top_logprobs": listed}], "true", 20)
    assert token.logprob == -0.5
    (token,) = read_reply_tokens([{"token": "true", "logprob": written, "top_logprobs": listed[1:]}], "true", 20)
    assert (token.logprob, token.likeliest) == (MIN_LOGPROB, {})
