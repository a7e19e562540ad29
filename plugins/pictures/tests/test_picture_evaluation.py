"""A student that sees, from a dataset with images to answers: asked by three arms, served, and refused where it cannot see."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from benchmarks.image_question_calls import RECORDING, RecordedQuestion, count_confirmed, list_arms
from benchmarks.short_answers import list_wrong_pairs
from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.intervals import estimate_share
from core.sample import Message, TokenUsage, conversation_digest
from core.storage.image_files import decode_image_url
from core.storage.recording import read_recording
from core.weights.gguf_files import ImageLimits
from flows.evaluate.dataset_evaluation import select_held_out_rows
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.rows.row_images import embed_stored_images, read_seen_conversation
from flows.terminal.console import CommandSession
from plugins.pictures.families.short_answers import is_same_short_answer
from plugins.pictures.seeing.evaluation import (
    ArmResult,
    PictureEvaluation,
    ask_arms,
    build_picture_evaluation,
    format_picture_evaluation,
)
from plugins.pictures.seeing.questions import (
    PictureQuestion,
    QuestionSet,
    draw_blanks,
    draw_picture_questions,
    read_picture_questions,
    shuffle_pictures,
)
from students.student_folder import TRAINED_IMAGES_FILE, TRAINED_ROWS_FILE, digest_images, digest_trained_row
from teachers.base import TeacherReply
from tests.flows.commands.test_commands import called
from tests.support.colored_pictures import QUESTION, color_conversations, write_rows

LIMITS = ImageLimits(16, 64)


def list_questions(number: int) -> list[PictureQuestion]:
    return read_picture_questions(color_conversations(number), LIMITS).questions


def count(passed: int) -> ArmResult:
    rate = estimate_share(passed, 100)
    assert rate
    return ArmResult(passed=passed, pass_rate=rate)


def test_no_result_is_read_or_printed_without_its_blind_arm() -> None:
    facts: dict[str, Any] = {
        "student": "s", "source": "charts", "type": "q8_0", "pictures": 50, "questions": 100, "comparisons": [], "notes": [],
        "examples": [],
    }  # fmt: skip
    arms = {"picture": count(70), "blind": count(26), "shuffled": count(27)}
    whole = PictureEvaluation(**facts, arms=arms)
    assert "26 of 100" in format_picture_evaluation(whole)
    for missing in ("blind", "shuffled"):
        rest = {name: arm for name, arm in arms.items() if name != missing}
        with pytest.raises(
            ValidationError, match=f"the arm '{missing}' is missing, and without it a pass rate may be guessed"
        ):
            PictureEvaluation(**facts, arms=rest)


def open_session() -> CommandSession:
    session = CommandSession()
    session.quiet = True
    return session


def test_a_question_without_a_reply_is_left_out_of_all_arms() -> None:
    questions = list_questions(20)
    found = QuestionSet(questions, ["2 rows are not asked."])
    pictures = {
        "picture": [question.picture for question in questions],
        "blind": draw_blanks(questions, LIMITS.patch),
        "shuffled": shuffle_pictures(questions, "seed"),
    }

    def ask(unavailable: float) -> dict[str, list[TeacherReply | None]]:
        model = TeacherConfig.model_validate({"model": "fake/writer", "extra": {"unavailable": unavailable}})
        return asyncio.run(ask_arms(model, questions, pictures, open_session()))

    replies = ask(0.2)
    complete = [place for place, given in enumerate(zip(*replies.values(), strict=True)) if None not in given]
    assert 0 < len(complete) < 20
    right = TeacherReply(text=questions[complete[0]].answer.upper(), finished=False, usage=TokenUsage())
    replies["picture"][complete[0]] = right
    measured = build_picture_evaluation(Path("student"), "q8_0", "rows.jsonl", found, replies)
    assert measured.questions == len(complete)
    assert [example.expected for example in measured.examples] == [questions[place].answer for place in complete[:10]]
    assert [arm.passed for arm in measured.arms.values()] == [1, 0, 0]
    assert measured.notes == [
        "2 rows are not asked.",
        f"{20 - len(complete)} questions left out of all arms: no reply was received in one of them.",
        "1 answer cut off after 64 tokens.",
    ]
    with pytest.raises(ProviderError, match="student: 20 questions asked, and none received a reply in all arms"):
        build_picture_evaluation(Path("student"), "q8_0", "rows.jsonl", found, ask(1.0))


@pytest.mark.slow
def test_drawn_pictures_of_the_training_are_not_asked(tmp_path: Path) -> None:
    plan = load_recipe_plan("charts")

    def draw() -> QuestionSet:
        return asyncio.run(draw_picture_questions(tmp_path, plan, 4, LIMITS, open_session()))

    every = draw()
    pictures = list(dict.fromkeys(question.picture for question in every.questions))
    first = [question for question in every.questions if question.picture == pictures[0]]
    (tmp_path / TRAINED_IMAGES_FILE).write_text(digest_images([first[0].prompt])[0] + "\n")
    rest = draw()
    assert [question.text for question in rest.questions] == [
        question.text for question in every.questions[len(first) :]
    ]
    assert rest.notes == [*every.notes, "1 of 4 pictures are of the student's training and are not asked."]


def test_rows_of_the_training_are_known_by_the_bytes_of_their_images(tmp_path: Path) -> None:
    talk = color_conversations(4)
    content = [decode_image_url(turns[0].images[0]) for turns in talk]
    names = [f"images/00/{place:064}.png" for place in range(4)]
    stored = [
        [turns[0].model_copy(update={"images": (name,)}), turns[1]] for turns, name in zip(talk, names, strict=True)
    ]
    trained = embed_stored_images(stored[:2], dict(zip(names, content, strict=True)).__getitem__)
    parts = [{"type": "image", "text": None}, {"type": "text", "text": QUESTION}]
    other = [{"type": "image", "text": None}, {"type": "text", "text": "Is it red?"}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": [{"type": "text", "text": turns[1].content}]},
            ],
            "images": [{"bytes": image, "path": "a.png"}],
        }
        for asked, turns, image in [
            *((parts, turns, image) for turns, image in zip(talk, content, strict=True)),
            (other, talk[0], content[0]),
        ]
    ]
    file = tmp_path / "rows.parquet"
    pl.DataFrame(rows).write_parquet(file)
    student = tmp_path / "student"
    student.mkdir()
    (student / TRAINED_ROWS_FILE).write_text("\n".join(map(digest_trained_row, trained)))
    (student / TRAINED_IMAGES_FILE).write_text("\n".join(digest_images(trained)))
    held_out = select_held_out_rows(student, file, 9, read_seen_conversation)
    assert [row.place for row in held_out.rows] == [3, 4]
    assert (held_out.total, held_out.trained_on) == (5, 3)
    assert held_out.notes == ["1 row left out: the student was trained on the image with another question."]
    (student / TRAINED_IMAGES_FILE).unlink()
    assert [row.place for row in select_held_out_rows(student, file, 9, read_seen_conversation).rows] == [3, 4, 5]
    plain = [Message(role="user", content="Hi"), Message(role="assistant", content="Yes?")]
    assert digest_trained_row(plain) == conversation_digest(plain), "students that read text alone keep their records"


@pytest.mark.slow
@pytest.mark.xdist_group("students")
def test_evaluate_asks_with_its_picture_blind_and_with_another(
    seeing_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = [
        digest.split()
        for digest in ((seeing_student / name).read_text() for name in (TRAINED_ROWS_FILE, TRAINED_IMAGES_FILE))
    ]
    assert 250 < len(learned[0]) == len(learned[1]), "each image once"
    rows = write_rows(tmp_path / "new.jsonl", 60, 9)
    found = json.loads(called(capsys, "evaluate", str(seeing_student), "--data", str(rows), "--json")[1])
    passed = {name: arm["passed"] for name, arm in found["arms"].items()}
    asked = found["questions"]
    assert 50 <= asked <= 60, "a few were drawn for the training too, and are left out"
    assert passed["picture"] >= 0.8 * asked, "it sees"
    assert max(passed["blind"], passed["shuffled"]) <= 0.45 * asked, "one color in six is guessed"
    assert all(comparison["difference"]["low"] > 0.3 for comparison in found["comparisons"])
    printed = called(capsys, "evaluate", str(seeing_student), "--data", str(rows))[1]
    assert re.search(rf"blind \(a white image\) +{passed['blind']} of {asked}", printed)
    seen = called(
        capsys,
        "evaluate",
        str(seeing_student),
        "--data",
        str(seeing_student.parent / "train.jsonl"),
        "-n",
        "400",
        "--json",
    )[1]
    unseen = sum(set(learned[1]).isdisjoint(digest_images([turns])) for turns in color_conversations(320, 0))
    assert json.loads(seen)["questions"] == unseen > 20, "the rows of its training are left out"


SAME = [
    ("Green", "green."), ("the left one", "left one"), ("Four", "4"), ("4 apples", "four", "How many apples are there?"),
    ("1,200", "1200"), ("AB 123 CD", "ab123cd"), ("5 cm", "5cm"), ("No entry", "NO ENTRY"), ("apple", "Apples"), ("A", "A."),
    ("Yes", "Yes, there is one"), ("twenty-one", "21"), ("a red car", "red", "What color is the car?"), ("東京駅", "東京駅"),
    ("on the left", "to the left"), ("3.50", "3.5"),
    ("-5.0", "-5"), (".5", "0.5"), ("(5)", "5"),
]  # fmt: skip
DIFFERENT = [
    ("-5", "5"), ("−5", "5"), ("-5 %", "5 %"), ("$-5", "$5"), (".5", "5"), (".75", "75"), ("1 - 3", "13"), ("10 - 15", "1015"),
    ("A-", "A"), ("10-", "10"), ("May -3", "May 3"),
    ("C", "C#"), ("C#", "C++"), ("www.a.com", "www.b.com"), ("John A. Smith", "John B. Smith"), ("3-1", "1-3"),
    ("10:30", "10:30 pm"), ("red and blue", "red"), ("1, 2 and 3", "1 and 2"), ("1 and 2", "2"),
    ("apple, pear", "apple, pear, plum"), ("red, green, blue", "blue, green, red"), ("black", "black and white"), ("5%", "5"),
    ("5 cm", "5"), ("1-3", "13"), ("3.5", "35"), ("Two of the three", "Three of the two"),
    ("The Old Man and the Sea", "The Old Sea"), ("Yes", "No"), ("left of the door", "right of the door"),
    ("the dog", "the cat", "Is it the dog or the cat?"), ("0", ""), ("東京", "大阪"), ("above", "below"), ("No", "No entry"),
]  # fmt: skip


WRITTEN_DIFFERENTLY = [
    ("£55.00", "£55"), ("$1,200", "$1200"), ("£55.00", "55.00"), ("1,200 dollars", "$1200"), ("15.2%", "15.2 percent"),
    ("15 per cent", "15 %"), ("15%", "15", "What percentage is it?"), ("25 °C", "25 degrees Celsius"), ("25°C", "25 degrees"),
    ("9 March 1974", "March 9, 1974"), ("9th March 1974", "9 March 1974"), ("11/15/23", "15 November 2023"),
    ("9 March", "March 9th"), ("Monday 13 October", "13 October"), ("Tuesday, March 4, 2025", "4 March 2025"),
    ("Monday the 13th", "13th"), ("Sunday, Sept. 7", "September 7"), ("Friday 3/14/2025", "3/14/2025"),
    ("3:30 PM", "15:30"), ("3 p.m.", "15:00"), ("2.5 kg", "2.5 kilograms"), ("1.5 million", "1,500,000"), ("20 to 30", "20–30"),
    ("5 days", "5", "How many days late is it?"), ("December", "Dec"), ("Mon", "Monday"), ("gray", "grey"), ("bikes", "bicycle"),
    ("round", "circular"), ("bar chart", "bar graph"), ("top left corner", "upper-left corner"), ("the sofa", "a couch"),
    ("red and blue", "blue and red"), ("red, green and blue", "blue, red and green"), ("a lighter", "red lighter"),
    ("behind it", "behind it, to the left", "Where is the bench?"), ("his right hand", "right", "Which hand holds the ball?"),
    ("eleven hours of work", "the work", "Which total is higher, the work or the parts?"),
]  # fmt: skip
"""Answers that are equal whatever model wrote them."""
NEARLY_WRITTEN_SO = [
    ("£55.00", "£55.50"), ("$5", "€5"), ("$1,200", "$12.00"), ("15.2%", "15.2"), ("25 °C", "25 °F"),
    ("9 March 1974", "9 May 1974"),
    ("9 March 1974", "10 March 1974"), ("11/15/23", "15 November 2024"), ("03/05/2025", "5 March 2025"), ("9 March", "8 March"),
    ("Sunday market", "market", "What does the sign say?"), ("Saturday Jane", "Jane", "Who has the shift?"),
    ("Sunday 3 PM", "3 PM", "When does it begin?"), ("Friday 2", "2", "What is written in the corner?"),
    ("Monday 13 October", "Tuesday 13 October"), ("Monday 13", "13", "Which day of the week and of the month is it?"),
    ("3:30 PM", "3:30"), ("3 p.m.", "3 a.m."), ("2.5 kg", "2.5 g"), ("1.5 million", "1.5 billion"), ("20 to 30", "30 to 20"),
    ("5 days", "5 weeks", "How long is it?"), ("December", "November"), ("Mon", "Sunday"), ("motorbike", "bicycle"),
    ("bar chart", "pie chart"), ("top left corner", "lower left corner"), ("the sofa", "the chair"), ("red and blue", "red"),
    ("red and blue", "red and green"), ("red, green and blue", "blue, green and red", "Which colors, from left to right?"),
    ("red lighter", "blue lighter"), ("a red car", "a car", "Which car is first?"), ("blue", "dark blue"),
    ("Honda", "Honda Civic"),
    ("Red Lobster", "Lobster"), ("behind it", "in front of it, to the left", "Where is the bench?"),
    ("the work", "the parts", "Which total is higher, the work or the parts?"),
    ("not the work", "the work", "Which total is higher, the work or the parts?"),
    ("salt and pepper", "pepper"), ("left", "left, behind it", "On which side is it?"),
]  # fmt: skip


@pytest.mark.parametrize("pair", [*SAME, *WRITTEN_DIFFERENTLY])
def test_what_is_the_same(pair: tuple[str, ...]) -> None:
    left, right, question = (*pair, "What does it show?")[:3]
    assert is_same_short_answer(left, right, question)
    assert is_same_short_answer(right, left, question)


@pytest.mark.parametrize("pair", [*DIFFERENT, *NEARLY_WRITTEN_SO])
def test_what_is_different(pair: tuple[str, ...]) -> None:
    left, right, question = (*pair, "What does it show?")[:3]
    assert not is_same_short_answer(left, right, question)
    assert not is_same_short_answer(right, left, question)


def test_recorded_looks_confirm_the_answers_of_their_writer_alone() -> None:
    """The controls are what was guessed without the image, and answers to other questions."""
    questions = [RecordedQuestion.of(sample) for sample in read_recording(RECORDING)]
    found = {name: count_confirmed(questions, answers) for name, answers in list_arms(questions).items()}
    assert found == {"writer": (24, 24), "differing guesses": (0, 21), "next samples": (0, 24)}


def test_answers_of_models_are_compared_as_answers() -> None:
    """`python -m benchmarks.short_answers` prints the pairs."""
    for file, missed in (("short_answers.jsonl", []), ("more_short_answers.jsonl", ["two and a half | 2.5"])):
        assert list_wrong_pairs(file, equal=True) == (40, missed)
        assert list_wrong_pairs(file, equal=False) == (40, [])


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("quarter to one", "12:45", True), ("quarter past one", "1:45", False), ("second quarter 2023", "Q2 2023", True),
        ("5M", "5 million", True), ("two pairs of shoes", "shoes", False), ("40 EUR", "€40", True), ("12th", "twelfth", True),
        ("1 second", "1 s", True), ("21st", "first", False),
    ],
)  # fmt: skip
def test_forms_of_an_answer(left: str, right: str, same: bool) -> None:
    assert is_same_short_answer(left, right, "What does it show?") is same
