"""Questions about the size of an image, whose answer is read from its file, four in ten with a fault of some kind; and a reader
that is wrong now and then, and can only guess without the image.
"""

from random import Random
from typing import Any

from core.storage.image_files import MAX_PIXELS, decode_image_url, open_image_bytes
from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, TeacherScript

FAULTY_SHARE, MISREAD_SHARE = 0.4, 0.1
"""Shares of drafts with a fault on purpose, and of readings that are wrong on purpose."""
WIDTH, HEIGHT = "How wide is what you see?", "How high is what you see?"
KNOWN = "How many sides does a square in it have?"


def _write_image_question(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    width, height = _read_size(question)
    asked, answer = rng.choice(((WIDTH, width), (HEIGHT, height)))
    made = {"question": asked, "answer": str(answer)}
    if rng.random() >= FAULTY_SHARE:
        return made
    fault = rng.choice(("wrong", "known", "form", "source"))
    changed = {
        "wrong": {"answer": str(answer + 7)},
        "known": {"question": KNOWN, "answer": "4"},
        "form": {"question": asked.rstrip("?")},
        "source": {"question": "What does the file name say?"},
    }
    return made | changed[fault]


def _look_at_image(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = question.messages[-1].content
    if KNOWN in asked:
        return {"found": True, "answer": "4"}
    if not question.messages[-1].images:
        return {"found": True, "answer": str(rng.randint(1, 10_000))}
    width, height = _read_size(question)
    right = width if WIDTH in asked else height
    return {"found": True, "answer": str(right + (rng.random() < MISREAD_SHARE))}


def _read_size(question: TeacherQuestion) -> tuple[int, int]:
    """Of the first image of the request."""
    url = next(url for message in question.messages for url in message.images)
    with open_image_bytes(decode_image_url(url), MAX_PIXELS) as image:
        return (image.width, image.height)


SCRIPT: TeacherScript = {"ImageQuestionDraft": _write_image_question, "ReaderAnswer": _look_at_image, **COMMON}
