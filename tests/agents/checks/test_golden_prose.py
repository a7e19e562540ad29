import pytest

from agents.checks.text.prose_faults import word_bases
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


@pytest.mark.parametrize(("similarity", "answer"), [(0.28, 1), (None, 2)])
def test_an_answer_that_leaves_the_topic_is_named(similarity: float | None, answer: int) -> None:
    """By meaning, a later answer may speak of one side of the topic, if all together are on it."""
    data = {"topic": "a good dictionary", "words": ["meaning", "entry", "spelling"]}
    on, off = "A good dictionary gives each meaning.", "The stock market fell, and a storm closed the harbor."
    (finding,) = findings_of(on_topic_check, subject_of(data, [on, off]), similarity=similarity)
    assert finding.passed is (similarity is not None)
    answers = [off, on] if similarity else [on, off]
    (finding,) = findings_of(on_topic_check, subject_of(data, answers), similarity=similarity)
    assert finding.evidence.startswith(f"answer {answer}: it has no word of the topic 'a good dictionary'")


@check_each(PROSE)
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
