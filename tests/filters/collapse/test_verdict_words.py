"""A verdict in words: the line, the paragraph and the advice of records of every verdict."""

import re
from typing import Any

import pytest

from core.runs.records import AttributeSpread, CollapseRecord, MetricRecord, PhraseRecord, SpreadRecord
from core.runs.verdict_words import ADVICE, REPETITION_WORDS

ONE_LINE = 88
"""Columns of a card's values."""


def metric(name: str, value: float, high: float = 0.1, z: float | None = None) -> MetricRecord:
    return MetricRecord(
        name=name, candidate=value, reference=0.0, low=0.0, high=high, meaning="", z=z, interval=(0.0, 0.09)
    )


def record_of(verdict: str, **fields: Any) -> CollapseRecord:
    plain = {"reference": None, "documents": 45, "tokens": 900, "metrics": [metric("exact_duplicates", 0.0)]}
    return CollapseRecord.model_validate({**plain, "verdict": verdict, **fields})


REAL = {
    "reference": "data/reference/english.jsonl",
    "documents": 1_200,
    "dataset_documents": 1_200,
    "reference_documents": 9_000,
}
UNEVEN = SpreadRecord(
    tried=200, kept=100,
    attributes=[AttributeSpread(
        name="category", values=14, kept_values=12, drawn_effective=12.0, kept_effective=10.0, interval=(9.0, 11.0),
        value="billing", drawn_share=0.09, kept_share=0.02, p=0.001,
    )],
)  # fmt: skip
CASES: dict[str, tuple[CollapseRecord, str, list[str]]] = {
    "few": (
        record_of("inconclusive", needed=500),
        "inconclusive, 45 of about 500 documents, no reference; no repetition found",
        ["few_samples"],
    ),
    "few, compared": (
        record_of("inconclusive", **{**REAL, "documents": 45, "dataset_documents": 45}, needed=1_000),
        "inconclusive, 45 of about 1,000 documents vs english.jsonl; no repetition found",
        ["few_samples"],
    ),
    "small reference": (
        record_of("inconclusive", **{**REAL, "documents": 300, "reference_documents": 900}, needed=1_000),
        "inconclusive, 300 of about 1,000 documents vs english.jsonl; no repetition found",
        ["small_reference"],
    ),
    "reference of another kind": (
        record_of("inconclusive", reference="python", reference_kind="code", documents=0, metrics=[], evidence=["x is prose"]),
        "inconclusive, nothing compared with python: x is prose",
        ["reference_of_other_kind"],
    ),
    "another genre": (
        record_of(
            "shift", **REAL, findings={"topics": ["new_words"]},
            metrics=[metric("new_words", 90.0, z=9.0), metric("hapax_mass", 0.2)],
        ),
        "shift, 1,200 documents vs english.jsonl; other topics",
        ["other_genre"],
    ),
    "other topics": (
        record_of("shift", **REAL, findings={"topics": ["topics"]}),
        "shift, 1,200 documents vs english.jsonl; other topics",
        ["other_topics"],
    ),
    "cautious decoding": (
        record_of("collapse", **REAL, findings={"likely": ["surprise", "typical"]}),
        "collapse, 1,200 documents vs english.jsonl; only likely text",
        ["cautious_decoding"],
    ),
    "lost words": (
        record_of("collapse", **REAL, findings={"tail": ["hapax_mass"], "unlike": ["surprise"]}),
        "collapse, 1,200 documents vs english.jsonl; rare words are missing",
        ["lost_words", "few_seeds"],
    ),
    "invented words": (
        record_of("collapse", **REAL, findings={"strange": ["strange_words"]}),
        "collapse, 1,200 documents vs english.jsonl; words of no language instead of rare words",
        ["invented_words"],
    ),
    "too few seeds": (
        record_of(
            "collapse", findings={"repetition": ["openers"]}, openers=[PhraseRecord(text="here is the", candidate=0.75)]
        ),
        "collapse, 45 documents, no reference; 75 % of the documents begin “here is the”",
        ["few_seeds"],
    ),
    "copies of a stranger": (
        record_of(
            "collapse", generated=False, findings={"repetition": ["exact_duplicates"]},
            metrics=[metric("exact_duplicates", 0.5)],
        ),
        "collapse, 45 documents, no reference; 50 % of the documents repeat another",
        ["copies", "unknown_writer"],
    ),
    "few structures": (
        record_of("collapse", documents=800, findings={"structure": ["templates"]}),
        "collapse, 800 documents, no reference; few different structures",
        ["few_seeds", "wanted_structures"],
    ),
    "no reference": (
        record_of("no repetition", documents=800),
        "no repetition, 800 documents, no reference; rare words were not measured",
        ["no_reference"],
    ),
    "pass with a lost category": (
        record_of("pass", **REAL, smallest_loss=0.2, spread=UNEVEN),
        "pass, 1,200 documents vs english.jsonl; no difference beyond chance",
        ["uneven_spread"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_verdict_has_one_line_and_advice_that_fits_its_cause(name: str) -> None:
    record, headline, causes = CASES[name]
    assert record.headline == headline
    assert len(headline) <= ONE_LINE
    assert [advice.cause for advice in record.advice] == causes
    assert not any("{" in advice.text for advice in record.advice)


def test_every_cause_has_a_case() -> None:
    assert {cause for _, _, causes in CASES.values() for cause in causes} == ADVICE.keys()


@pytest.mark.parametrize("name", CASES)
def test_the_paragraph_names_no_metric(name: str) -> None:
    paragraph = CASES[name][0].paragraph
    assert "_" not in paragraph
    assert paragraph.endswith(".")
    assert not re.search(r"[.;][^ \d]", paragraph.replace("english.jsonl", "")), "a space between sentences"
    assert 60 < len(paragraph) < 900


def test_the_paragraph_says_what_could_have_been_seen_and_what_is_unevenly_kept() -> None:
    text = CASES["pass with a lost category"][0].paragraph
    assert "A loss of 20 % of the rare words would have been found with a probability of 95 %, and was not." in text
    assert "at most 9 % of the documents repeat another" in text
    assert "12 of 14 values of category; `billing` 2 % of kept, 9 % of seeds" in text


def test_every_metric_of_repetition_has_words() -> None:
    from filters.collapse.collapse_verdict import REPETITION_METRICS
    from filters.collapse.repetition import REPETITION_LIMITS

    assert {*REPETITION_METRICS, *(limit.name for limit in REPETITION_LIMITS)} == REPETITION_WORDS.keys()


@pytest.mark.parametrize(
    ("findings", "promised"),
    [
        ({"topics": ["topics"]}, True),
        ({"topics": ["topics", "new_words"]}, False),
        ({"topics": ["topics"], "other_kind": ["reverse_surprise"]}, False),
    ],
)
def test_no_loss_is_promised_where_new_words_or_another_kind_of_text_hide_it(
    findings: dict[str, list[str]], promised: bool
) -> None:
    shift = record_of("shift", **REAL, smallest_loss=0.2, findings=findings)
    small = record_of("inconclusive", **REAL, smallest_loss=0.2, findings=findings)
    assert ("would have been found" in shift.paragraph) == promised
    assert ("can be said from about" in small.paragraph) == promised
    assert ("shows no loss of rare words" in small.paragraph) == (not promised)


def test_an_uncertain_loss_is_named_with_the_documents_that_decide_it() -> None:
    found = {"uncertain": ["hapax_mass", "tail_coverage"]}
    record = record_of("inconclusive", **REAL | {"needed": 1_900}, smallest_loss=0.2, findings=found)
    assert record.headline.endswith("rare words may be missing")
    assert "about 1,900 compared documents tell them apart" in record.paragraph
    assert "would have been found" not in record.paragraph
