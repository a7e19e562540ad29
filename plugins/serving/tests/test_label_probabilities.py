"""Probabilities of answers from the tokens of one reply: those of the model that wrote it, whatever its tokens are."""

import json
import math
import zlib
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from random import Random

import pytest

from core.sample import ReplyToken
from plugins.serving.decisions.label_probabilities import find_values, read_label_probabilities
from plugins.serving.decisions.questions import DecisionQuestion


def write_reply(replies: Mapping[tuple[str, ...], float], reply: tuple[str, ...]) -> list[ReplyToken]:
    """The tokens of `reply`, by a model of this distribution over replies: at each place, all tokens that it may go on with."""
    tokens = []
    for place, text in enumerate(reply):
        onward: dict[str, float] = defaultdict(float)
        for other, probability in replies.items():
            if other[:place] == reply[:place] and len(other) > place:
                onward[other[place]] += probability
        total = sum(onward.values())
        logprobs = {token: math.log(value / total) for token, value in onward.items()}
        tokens.append(ReplyToken(text=text, logprob=logprobs[text], likeliest=logprobs))
    return tokens


def split(text: str, seed: int) -> tuple[str, ...]:
    """The text in tokens of some characters; equal beginnings are cut at the same places."""
    cuts = [i for i in range(1, len(text)) if zlib.crc32(f"{seed}{text[:i]}".encode()) % 3 == 0]
    return tuple(text[left:right] for left, right in pairwise([0, *cuts, len(text)]))


QUESTIONS = [
    DecisionQuestion(name="subject", ask="?", labels=("delivery", "payment", 'a "return"', "über uns")),
    DecisionQuestion(name="subject", ask="?", labels=("pay", "payment", "payments, late", "a")),
    DecisionQuestion(name="subject", ask="?", type="yes_no"),
    DecisionQuestion(name="subject", ask="?", type="score", low=-1, high=12),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: str(question.classes))
@pytest.mark.parametrize("seed", range(5))
def test_the_probabilities_are_those_of_the_model(question: DecisionQuestion, seed: int) -> None:
    rng = Random(seed)
    weights = {name: rng.random() ** 3 for name in question.classes}
    wanted = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    written = {
        name: json.dumps({"first": "x, y", "subject": question.from_class(name), "last": 1}, ensure_ascii=False)
        for name in question.classes
    }
    replies = {split(written[name], seed): wanted[name] for name in question.classes}
    for name in question.classes:
        found = read_label_probabilities(question, write_reply(replies, split(written[name], seed)))
        assert found is not None
        assert sum(found.values()) == pytest.approx(1)
        assert found[name] == pytest.approx(wanted[name]), "the reply's own answer"


@pytest.mark.parametrize(
    "texts", [["I do not know"], ['{"b": "yes"}'], ['{"a": "', "maybe", '"}'], ['{"a": "yes"', ', "b'], []]
)
def test_a_reply_without_an_answer_has_no_probabilities(texts: list[str]) -> None:
    question = DecisionQuestion(name="a", ask="?", labels=("yes", "no"))
    tokens = [ReplyToken(text=text, logprob=-0.1, likeliest={text: -0.1}) for text in texts]
    assert read_label_probabilities(question, tokens) is None


@pytest.mark.parametrize(("rest", "readable"), [(-9.0, True), (-2.5, False)])
def test_an_answer_that_is_not_among_the_likeliest_tokens_must_be_improbable(rest: float, readable: bool) -> None:
    question = DecisionQuestion(name="a", ask="?", labels=("yes", "no"))
    likeliest = {'"yes"': -0.4, '"Yes"': -2.0, '"maybe"': rest}
    tokens = [
        ReplyToken(text='{"a": ', logprob=-0.1, likeliest={'{"a": ': -0.1}),
        ReplyToken(text='"yes"', logprob=-0.4, likeliest=likeliest),
        ReplyToken(text="}", logprob=-0.1, likeliest={"}": -0.1}),
    ]
    assert read_label_probabilities(question, tokens) == ({"yes": 1.0, "no": 0.0} if readable else None)


@pytest.mark.parametrize(
    ("alternatives", "wanted"),
    [
        ({" true": 0.45, "false": 0.35, " false": 0.1, "true": 0.1}, {"no": 0.45, "yes": 0.55}),
        ({" true": 0.6, " false": 0.3, " ": 0.1}, {"no": 1 / 3, "yes": 2 / 3}),
    ],
)
def test_white_space_before_an_answer_makes_no_other_answer(
    alternatives: dict[str, float], wanted: dict[str, float]
) -> None:
    question = DecisionQuestion(name="a", ask="?", type="yes_no")
    likeliest = {text: math.log(probability) for text, probability in alternatives.items()}
    tokens = [
        ReplyToken(text='{"a":', logprob=0.0, likeliest={'{"a":': 0.0}),
        ReplyToken(text=" true", logprob=likeliest[" true"], likeliest=likeliest),
        ReplyToken(text="}", logprob=0.0, likeliest={"}": 0.0}),
    ]
    assert read_label_probabilities(question, tokens) == pytest.approx(wanted)


@pytest.mark.parametrize("unfinished", ['"\ufffd', '"\\'])
def test_a_token_that_may_become_an_answer_leaves_the_probabilities_unknown(unfinished: str) -> None:
    question = DecisionQuestion(name="a", ask="?", labels=("支付", "退款"))
    likeliest = {'"支': math.log(0.5), unfinished: math.log(0.45)}
    tokens = [
        ReplyToken(text='{"a":', logprob=0.0, likeliest={'{"a":': 0.0}),
        ReplyToken(text='"支', logprob=likeliest['"支'], likeliest=likeliest),
        ReplyToken(text='付"}', logprob=0.0, likeliest={'付"}': 0.0}),
    ]
    assert read_label_probabilities(question, tokens) is None


def test_a_hostile_reply_has_no_values() -> None:
    for text in ('{"a":1' + ',"a":1' * 400_000, '{"a":' + "[" * 100_000, '{"a"' + " " * 200_000):
        assert find_values(text) == {}


def test_tokens_without_alternatives_have_no_probabilities() -> None:
    question = DecisionQuestion(name="a", ask="?", type="yes_no")
    tokens = [ReplyToken(text=text, logprob=-0.1, likeliest={}) for text in ('{"a": ', "true", "}")]
    assert read_label_probabilities(question, tokens) is None
