"""Names of code are counted by use, and calls apart from definitions."""

import math

import pytest

from filters.collapse.assessment import assess_texts
from filters.collapse.code_names import measure_code_names
from filters.collapse.reference_corpus import number_units
from filters.collapse.text_kinds import TEXT_KINDS

CODE = TEXT_KINDS["code"]


def measured(*texts: str) -> tuple[float | None, float | None]:
    vocabulary: dict[str, int] = {}
    corpus = number_units(texts, CODE, vocabulary, {})
    draw = corpus.take_sample(range(len(corpus)), corpus.lengths)  # type: ignore[arg-type]
    return measure_code_names(draw, list(vocabulary))


def test_the_names_of_code_are_shown_and_decide_nothing() -> None:
    texts = [
        f"def f{i}(a):\n    value = helper_{i % 40}(a, {i})\n    return tool_{i % 7}(value, {i % 3})"
        for i in range(300)
    ]
    poor = [
        f"def f{i}(a):\n    value = helper_{i % 3}(a, {i})\n    return tool_{i % 7}(value, {i % 3})"
        for i in range(1_000, 1_100)
    ]
    record = assess_texts(poor, texts, name="real", seed=1, kind=CODE)
    shown = {metric.name: metric for metric in record.metrics if metric.family is None}
    assert shown["called_names"].candidate == pytest.approx(math.sqrt(3 * 7) * 2, rel=0.01), "half of the calls each"
    assert shown["called_names"].candidate < shown["called_names"].low < 47
    assert not any("openings: ." in sentence or sentence.endswith("openings: ") for sentence in record.evidence)
    assert shown["called_names"].z is None
    prose = assess_texts(["A cat sat on a mat."] * 40, ["A dog sat on a log."] * 90, name="real", seed=1)
    assert not {"called_names", "identifiers"} & {metric.name for metric in prose.metrics}
