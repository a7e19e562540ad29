"""A student that sees, from a dataset with images to answers: asked by three arms, served, and refused where it cannot see."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.intervals import estimate_share
from core.sample import Message, TokenUsage, conversation_digest
from core.storage.image_files import decode_image_url
from core.weights.gguf_files import ImageLimits
from flows.evaluate.dataset_evaluation import select_held_out_rows
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.rows.row_images import embed_stored_images, read_seen_conversation
from flows.terminal.console import CommandSession
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
