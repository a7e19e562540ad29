"""The first pictures of a run with their questions and answers, for its report. Text is escaped by the page."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from agents.checks.text.second_reader import ReaderAnswer
from core.errors import StoreError
from core.runs.run_dir import RunDir
from core.sample import Sample, SampleStatus
from core.storage.image_files import (
    FittedImage,
    UnreadableImage,
    fit_image,
    format_image_url,
    is_stored_image,
    read_image,
)
from plugins.pictures.families.image_questions import PROMPTS

SHOWN_PICTURES = 6
SHOWN_SIDE = 512
"""Pixels of the longer side of a user's own image: at most some 400 kB."""


class ShownQuestion(NamedTuple):
    question: str
    answer: str
    program: str
    """Computes the answer; empty where a teacher gave it."""


class ShownPicture(NamedTuple):
    title: str
    url: str
    width: int
    height: int
    questions: list[ShownQuestion]
    looks: list[str]
    """The answers of further looks at a user's own image, and of guesses without it."""
    guesses: list[str]


def build_gallery(run: RunDir, samples: Sequence[Sample]) -> list[ShownPicture]:
    """The first kept samples with a picture; without one whose file is missing or damaged."""
    pictured = (
        sample
        for sample in samples
        if sample.state is SampleStatus.kept and any(map(is_stored_image, sample.candidate.images))
    )
    return [shown for sample in islice(pictured, SHOWN_PICTURES) if (shown := _build_picture(run, sample))]


def _build_picture(run: RunDir, sample: Sample) -> ShownPicture | None:
    fields, messages = sample.candidate.fields, sample.candidate.messages
    try:
        content = read_image(sample.candidate.images[0], [run.path])
        shown = (
            FittedImage(content, *_read_layout_size(fields))
            if "layout" in fields
            else fit_image(content, 1, SHOWN_SIDE)
        )
    except (StoreError, UnreadableImage):
        return None
    programs = [json.dumps(one["program"], ensure_ascii=False) for one in fields.get("questions", ())]
    asked, answered = ([turn.content for turn in messages if turn.role == role] for role in ("user", "assistant"))
    questions = [ShownQuestion(*turns) for turns in zip_longest(asked, answered, programs, fillvalue="")]
    title = fields.get("title") or str(sample.seed.data.get("source", ""))
    replies = _read_replies(sample)
    return ShownPicture(title, format_image_url(shown.png), shown.columns, shown.rows, questions, *replies)


def _read_replies(sample: Sample) -> tuple[list[str], list[str]]:
    """What looks at the image and guesses without it answered about the last draft."""
    guess = (PROMPTS / "image_questions" / "blind.md").read_text(encoding="utf-8")
    looks, guesses = list[str](), list[str]()
    for turn in sample.turns:
        if turn.agent == "verifier" and turn.revision == sample.revisions and turn.context:
            with suppress(ValueError):
                reply = ReaderAnswer.model_validate_json(turn.reply)
                found = guesses if turn.context[0].content.strip() in guess else looks
                found.append(reply.answer or "nothing")
    return looks, guesses


def _read_layout_size(fields: Mapping[str, Any]) -> tuple[int, int]:
    return fields["layout"]["width"], fields["layout"]["height"]
