import pytest

from agents.checks.text.prose_faults import word_bases
from agents.families.constrained_instructions import on_topic_check, sound_prose_check
from core.sample import Candidate, Message, Seed
from tests.agents.checks.rows import Case, Subject, findings_of, nobody, rows_of, subject_of

TOPICS, PROSE = rows_of("on_topic"), rows_of("sound_prose")


@pytest.mark.parametrize("case", TOPICS, ids=lambda case: case["about"])
def test_answers_speak_of_their_topic_or_not(case: Case) -> None:
    (finding,) = findings_of(on_topic_check, subject_of({"topic": case["topic"]}, case["answers"]))
    assert finding.passed == case["passes"], finding.evidence


@pytest.mark.parametrize("case", PROSE, ids=lambda case: case["about"])
def test_answers_read_as_prose_or_not(case: Case) -> None:
    said = [Message(role="user", content=case["request"])]
    said += [Message(role="assistant", content=answer) for answer in case["answers"]]
    subject = Subject(Seed(id="s-0", data={"topic": case["topic"]}), Candidate(messages=said, fields={}), nobody)
    (finding,) = findings_of(sound_prose_check, subject)
    assert finding.passed == case["passes"], finding.evidence


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
    assert base in word_bases(word)
    assert no_base not in word_bases(word)
