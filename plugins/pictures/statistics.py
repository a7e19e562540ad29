"""Statistics of the kept pictures of a run: what is drawn and asked, and whether questions can be answered blind. Writes
nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from core.sample import Sample, SampleStatus
from plugins.pictures.drawing.word_leaks import AskedQuestion, measure_word_leak


class PicturesRecord(BaseModel):
    """The pictures of the kept samples, and what a blind model answers about them."""

    pictures: int
    questions: int
    left_out: int
    """Questions of kept samples that have no answer, or whose answer cannot be read from the picture."""
    operations: dict[str, int]
    """Questions by the operation of their program, or by their kind."""
    forms: dict[str, int]
    """Drawn pictures by mark or template."""
    themes: dict[str, int]
    answers: dict[str, int] = {}
    """The most frequent answers about a user's own images."""
    sources: int = 0
    """The files or rows of a user's own images."""
    blind_right: int
    """Questions that a model which sees only their words answers right, trained on the other half of the pictures."""
    chance: float
    """The share that a guess among the possible answers of each question gets right, or always the most frequent answer, about a
    user's own images."""
    blind_low: float
    blind_high: float
    """The 95 % interval of the share of `blind_right`."""
    leaks: bool | None
    """Whether words alone surely answer more than chance; None with too few questions to tell."""


SHOWN_ANSWERS = 5


def measure_pictures(samples: Iterable[Sample]) -> PicturesRecord | None:
    """The record of the kept samples with questions about a picture; None if there are none."""
    asked: list[AskedQuestion] = []
    operations, forms, themes, answers = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    left_out, sources = 0, set[str]()
    for sample in samples:
        fields, images = sample.candidate.fields, sample.candidate.images
        if sample.state is not SampleStatus.kept:
            continue
        if {"layout", "left_out", "style"} <= fields.keys():
            draft = fields["draft"]
            forms[draft["chart"]["mark"] if "chart" in draft else draft.get("template", "table")] += 1
            themes[fields["style"]["theme"]] += 1
            left_out += len(fields["left_out"])
            for one in fields["questions"]:
                operations[one["program"]["op"]] += 1
                choices = count_choices(one["program"], fields)
                asked.append(AskedQuestion(fields["layout"]["sha256"], one["question"], one["answer"], choices))
        elif images and "images" in sample.seed.data and {"question", "answer"} <= fields.keys():
            operations[fields.get("kind") or "other"] += 1
            answers[answer := fields["answer"].casefold()] += 1
            sources.add(str(sample.seed.data.get("source")))
            asked.append(AskedQuestion(images[0], fields["question"], answer, 0))
    if not asked:
        return None
    leak = measure_word_leak(asked)
    frequent = dict(answers.most_common(SHOWN_ANSWERS))
    chance = max(frequent.values()) / len(asked) if frequent else leak.chance
    return PicturesRecord(
        pictures=len({one.picture for one in asked}), questions=len(asked), left_out=left_out,
        operations=dict(operations.most_common()), forms=dict(forms.most_common()), themes=dict(themes.most_common()),
        answers=frequent, sources=len(sources), blind_right=leak.right, chance=round(chance, 4),
        blind_low=round(leak.low, 4), blind_high=round(leak.high, 4), leaks=leak._replace(chance=chance).leaks,
    )  # fmt: skip


def count_choices(program: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
    """The number of answers that someone who sees no picture would choose from: rows for a label or a place, one more for a
    count, three for a trend, 0 for what is read.
    """
    rows = len(fields["table"]["rows"])
    # A limit is drawn between two values, so that neither no row nor every row is beyond it.
    return {"argmax": rows, "argmin": rows, "rank": rows, "count_where": max(rows - 1, 1), "trend": 3}.get(
        program["op"], 0
    )
