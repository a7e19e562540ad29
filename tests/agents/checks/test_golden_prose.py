import time

import pytest

from agents.families.constrained_instructions import on_topic, sound_prose
from agents.families.prose import bases_of
from core.sample import Candidate, Message, Seed
from tests.agents.checks.rows import Case, Subject, enough, findings_of, nobody, rows_of, subject_of

TOPICS, PROSE = rows_of("on_topic"), rows_of("sound_prose")
SECONDS = 5.0
"""No text may take longer, however long or hostile."""


@pytest.mark.parametrize("case", TOPICS, ids=lambda case: case["about"])
def test_answers_speak_of_their_topic_or_not(case: Case) -> None:
    (finding,) = findings_of(on_topic, subject_of({"topic": case["topic"]}, case["answers"]))
    assert finding.passed == case["passes"], finding.evidence


@pytest.mark.parametrize("case", PROSE, ids=lambda case: case["about"])
def test_answers_read_as_prose_or_not(case: Case) -> None:
    said = [Message(role="user", content=case["request"])]
    said += [Message(role="assistant", content=answer) for answer in case["answers"]]
    subject = Subject(Seed(id="s-0", data={"topic": case["topic"]}), Candidate(messages=said, fields={}), nobody)
    began = time.monotonic()
    (finding,) = findings_of(sound_prose, subject)
    assert finding.passed == case["passes"], finding.evidence
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize("cases", [TOPICS, PROSE], ids=["on_topic", "sound_prose"])
def test_there_are_many_cases_of_both_verdicts(cases: list[Case]) -> None:
    assert enough(cases)


@pytest.mark.parametrize(
    ("word", "base", "no_base"),
    [
        ("riding", "ride", "rid"),
        ("running", "run", "runn"),
        ("kites", "kite", "kit"),
        ("movies", "movie", "move"),
        ("cookies", "cookie", "cook"),
        ("buses", "bus", "b"),
        ("leaves", "leaf", "lea"),
        ("sunny", "sun", "s"),
        ("gardener", "garden", "gard"),
        ("corner", "corner", "corn"),
        ("glass", "glass", "glas"),
    ],
)
def test_a_word_has_the_bases_that_its_spelling_allows(word: str, base: str, no_base: str) -> None:
    assert base in bases_of(word)
    assert no_base not in bases_of(word)
