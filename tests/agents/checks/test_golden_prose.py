import json
from pathlib import Path
from typing import Any

import pytest

from agents.checks.text.second_reader import is_paraphrase, is_same_reading, meaning_similarity
from agents.families.constrained_instructions import on_topic_check, sound_prose_check
from core.sample import Candidate, Message, Seed
from tests.agents.checks.rows import Case, Subject, check_each, findings_of, nobody, rows_of, subject_of

PAIRS = rows_of("topic_pairs")
"""Answers on their topics: recorded ones, and ones that use no word of the topic."""
TOPICS, PROSE = rows_of("on_topic"), rows_of("sound_prose")


@check_each(TOPICS)
def test_answers_speak_of_their_topic_or_not(case: Case) -> None:
    (finding,) = findings_of(on_topic_check, subject_of({"topic": case["topic"]}, case["answers"]))
    assert finding.passed == case["passes"], finding.evidence


def passes_on_topic(topic: Case, answers: list[str], **options: float) -> bool:
    data = {"topic": topic["topic"], "words": topic["words"]}
    (finding,) = findings_of(on_topic_check, subject_of(data, answers), **options)
    return finding.passed


def test_an_answer_is_on_its_topic_by_meaning_and_rarely_on_another_one() -> None:
    """The shares that the check's docstring gives; other topics are the control."""
    by_word = [case for case in PAIRS if not passes_on_topic(case, [case["answer"]])]
    by_meaning = [case for case in PAIRS if not passes_on_topic(case, [case["answer"]], similarity=0.28)]
    assert (len(PAIRS), len(by_word), len(by_meaning)) == (87, 41, 2)
    others = [(topic, case) for topic in PAIRS for case in PAIRS if topic["topic"] != case["topic"]]
    passed = sum(passes_on_topic(topic, [case["answer"]], similarity=0.28) for topic, case in others[::7])
    assert 0.03 < passed / len(others[::7]) < 0.09


@check_each(PROSE)
def test_answers_read_as_prose_or_not(case: Case) -> None:
    said = [Message(role="user", content=case["request"])]
    said += [Message(role="assistant", content=answer) for answer in case["answers"]]
    subject = Subject(Seed(id="s-0", data={"topic": case["topic"]}), Candidate(messages=said, fields={}), nobody)
    (finding,) = findings_of(sound_prose_check, subject)
    assert finding.passed == case["passes"], finding.evidence


GOLDEN = Path(__file__).with_name("golden")
READINGS = [json.loads(line) for line in (GOLDEN / "reading_pairs.jsonl").read_text(encoding="utf-8").splitlines()]
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
    held_out = [pair for pair in READINGS if pair["held_out"]]
    assert len(held_out) == 56
    accepted = [sum(accepts(pair, kind, similarity) for pair in held_out) for kind in ("fair", "wrong")]
    assert accepted == [fair, wrong]
