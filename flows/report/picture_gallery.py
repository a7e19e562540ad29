"""The first pictures of a run with their questions, programs and answers, for its report. Text is escaped by the page."""

import base64
import json
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from core.errors import StoreError
from core.runs.run_dir import RunDir
from core.sample import Sample, SampleStatus
from core.storage.image_files import is_stored_image, read_image

SHOWN_PICTURES = 6
"""At about 20 kB each, they add less to the page than its samples."""


class ShownQuestion(NamedTuple):
    question: str
    answer: str
    program: str


class ShownPicture(NamedTuple):
    title: str
    png: str
    """In base64."""
    width: int
    height: int
    questions: list[ShownQuestion]


def build_gallery(run: RunDir, samples: Sequence[Sample]) -> list[ShownPicture]:
    """The first kept samples with a picture; without one whose file is missing or damaged."""
    pictured = (
        sample
        for sample in samples
        if sample.state is SampleStatus.kept and any(map(is_stored_image, _list_images(sample)))
    )
    return [shown for sample in islice(pictured, SHOWN_PICTURES) if (shown := _build_picture(run, sample))]


def _list_images(sample: Sample) -> list[str]:
    return [name for message in sample.candidate.messages for name in message.images]


def _build_picture(run: RunDir, sample: Sample) -> ShownPicture | None:
    fields = sample.candidate.fields
    try:
        content = read_image(_list_images(sample)[0], [run.path])
    except StoreError:
        return None
    questions = [
        ShownQuestion(one["question"], one["answer"], json.dumps(one["program"], ensure_ascii=False))
        for one in fields.get("questions", ())
    ]
    layout = fields["layout"]
    return ShownPicture(
        fields["title"], base64.b64encode(content).decode(), layout["width"], layout["height"], questions
    )
