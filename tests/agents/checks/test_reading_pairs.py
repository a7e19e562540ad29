"""Fair paraphrases and wrong answers to 112 questions: what `read_again` takes for the same answer.

The pairs were written before the similarity was chosen, on the half that is not held out.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.checks.text.second_reader import is_paraphrase, is_same_reading, meaning_similarity

GOLDEN = Path(__file__).with_name("golden")
PAIRS = [json.loads(line) for line in (GOLDEN / "reading_pairs.jsonl").read_text(encoding="utf-8").splitlines()]
SIMILARITY = 0.6


def accepts(pair: dict[str, Any], kind: str, similarity: float | None) -> bool:
    answer, other, question = pair["answer"], pair[kind], pair["question"]
    if is_same_reading(answer, other, question, 0.5):
        return True
    near = similarity is not None and is_paraphrase(answer, other, question, "")
    return near and similarity is not None and meaning_similarity(answer, other, question) >= similarity


@pytest.mark.parametrize(("similarity", "fair", "wrong"), [(None, 20, 1), (SIMILARITY, 43, 1)])
def test_meaning_accepts_more_fair_paraphrases_and_no_more_wrong_answers(
    similarity: float | None, fair: int, wrong: int
) -> None:
    held_out = [pair for pair in PAIRS if pair["held_out"]]
    assert len(held_out) == 56
    accepted = [sum(accepts(pair, kind, similarity) for pair in held_out) for kind in ("fair", "wrong")]
    assert accepted == [fair, wrong]


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("In the museum at Portsorra, next to the chain", "In the Portsorra museum, beside her chain."),
        ("They either swarm or stop collecting", "They swarm, or else they stop collecting."),
    ],
)
def test_recorded_paraphrases_are_the_same_answer(answer: str, other: str) -> None:
    pair = {"answer": answer, "fair": other, "question": "What happens, and where is it?"}
    assert accepts(pair, "fair", SIMILARITY)
    for changed in (answer.replace("museum", "station").replace("swarm", "sleep"), f"Not {other}"):
        assert not accepts({**pair, "fair": changed}, "fair", SIMILARITY)
