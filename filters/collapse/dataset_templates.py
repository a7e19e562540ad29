"""How often different documents of one dataset have the same structure, without a reference: beginnings as the dataset's own
common words and gaps, the outlines of a kind of data that has them, or the values of records. Knows no limit.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.runs.records import PhraseRecord
from filters.collapse.collapse_metrics import ENDED, GAP, SKELETON_WORDS, extract_skeletons
from filters.collapse.diversity import TokenSample, count_documents_by_word
from filters.collapse.explanation import EXAMPLES, MAX_OUTLINE
from filters.collapse.matched_samples import split_into_words
from filters.collapse.sampling_error import Interval, estimate_pairs
from filters.collapse.text_kinds import TextKind, iterate_fields

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

COMMON_SHARES = (0.1, 0.2, 0.3)
"""A word is common if at least this share of the documents has it. The share with the most equal beginnings counts: the words
that fill a template are common too where they are few, and those of one template rare where there are many."""
MIN_ENDED_WORDS = 3
"""Common words of a beginning that ends before it is whole."""
MAX_OUTLINED = 2_000
"""Documents whose outline is compared: a probability that two are alike does not depend on their number."""
MAX_RECORDS = 1_000
"""Records of which each pair is compared."""
MIN_RECORD_FIELDS = 4
"""Texts and numbers of a record whose values can vary: labels with fewer are alike by nature."""
MAX_RECORD_FIELDS = 100
"""Different fields of a record that are compared."""
EQUAL_FIELDS = 0.7
"""Records are alike if at least this part of their fields is equal: three of four, five of six, seven of nine. Of real records,
many agree in half of their fields (`benchmarks/README.md`, structure without a reference)."""
MIN_DIFFERENT_PAIRS = 0.1
"""Least share of pairs with different drawn values, for an attribute to explain a structure."""
NO_TEMPLATE = None

Attributes = Mapping[str, Sequence[Hashable]]
"""By attribute of the seeds: the value that was drawn for each document."""


class PromptedText(NamedTuple):
    text: str
    prompt: str


class DatasetTemplates(NamedTuple):
    value: float
    """The probability that two documents have the same structure, but not the same text (Simpson 1949). Its inverse is the
    effective number of structures (Hill 1973, order 2)."""
    interval: Interval
    """95 % interval of the value."""
    reference: float
    """That of the same words in random order, for beginnings; otherwise 0."""
    documents: int
    """Documents that were compared."""
    varied: int
    """Those whose structure can vary: the others have few by nature, and are like no other."""
    phrases: list[PhraseRecord]
    """The most frequent structures, or fields of records, most frequent first."""
    drawn: str = ""
    """The attribute of the seeds that explains most of the value: it is then that of two documents for which different values of
    the attribute were drawn."""


def measure_beginnings(
    own: TokenSample,
    shuffled: TokenSample,
    texts: Ints,
    counted: Bools,
    vocabulary: Mapping[str, int],
    kind: TextKind,
    drawn: Attributes,
) -> DatasetTemplates:
    """Beginnings as common words and gaps. `texts`: the number of each document's text; `counted`: whether the document is prose
    that its prompt does not begin.
    """
    holders, names = count_documents_by_word(own), list(vocabulary)
    varied = counted & (own.lengths >= SKELETON_WORDS)
    found = []
    for share in COMMON_SHARES:
        common = np.flatnonzero(holders >= max(2, share * len(own.lengths)))
        rows, mixed = (_list_beginnings(sample, common, varied) for sample in (own, shuffled))
        spelled: dict[Hashable, str] = {
            row: kind.join(["…" if word == GAP else names[word] for word in row if word != ENDED])
            for row in set(rows)
            if row is not None
        }
        reference = _find_mean(_count_partners(mixed, texts))
        templates = _build_templates(rows, texts, spelled, drawn)
        found.append(templates._replace(reference=reference, varied=int(varied.sum())))
    return max(found, key=lambda templates: templates.value - templates.reference)


def measure_outlines(documents: Sequence[PromptedText], kind: TextKind, drawn: Attributes) -> DatasetTemplates:
    """The outlines of a kind. One that the document's prompt begins with is the prompt's; a short one is alike by nature."""
    assert kind.outline
    rows: list[Hashable] = []
    for text, prompt in documents[:MAX_OUTLINED]:
        outline = kind.outline(text)
        held = outline is not None and outline.count(" ") + 1 >= kind.least_outline
        given = kind.outline(prompt) if held and prompt.strip() else None
        own = held and not (given and str(outline).startswith(given))
        rows.append(outline if own else NO_TEMPLATE)
    texts = _number(text for text, _ in documents[:MAX_OUTLINED])
    return _build_templates(rows, texts, {row: str(row) for row in set(rows)}, drawn)


def measure_records(documents: Sequence[PromptedText], drawn: Attributes) -> DatasetTemplates:
    """Pairs of different records of which most fields are equal. A value that the record's prompt has is like no other."""
    documents = documents[:MAX_RECORDS]
    count = len(documents)
    holders: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    fields = np.zeros(count, dtype=np.int64)
    for place, document in enumerate(documents):
        values = _read_values(document.text)
        asked = set(split_into_words(document.prompt))
        fields[place] = len(values)
        for path, value in values.items():
            if not asked or not asked.issuperset(split_into_words(" ".join(value))):
                holders[path, value].append(place)
    equal = np.zeros((count, count), dtype=np.int32)
    for places in holders.values():
        if len(places) > 1:
            equal[np.ix_(places, places)] += 1
    texts = _number(text for text, _ in documents)
    alike = (equal >= EQUAL_FIELDS * np.maximum.outer(fields, fields)) & (texts[:, None] != texts)
    varied = fields >= MIN_RECORD_FIELDS
    alike &= varied[:, None] & varied
    common = sorted(holders.items(), key=lambda item: -len(item[1]))[:EXAMPLES]
    phrases = [
        PhraseRecord(text=_shorten(f"{path}={' '.join(value)}"), candidate=len(places) / count)
        for (path, value), places in common
        if len(places) > 1
    ]
    found = _choose_estimate(
        _estimate(alike.sum(axis=1)),
        (
            _estimate((alike & (numbers[:, None] != numbers)).sum(axis=1), numbers, name)
            for name, numbers in _number_attributes(drawn, count)
        ),
    )
    return DatasetTemplates(found.value, found.interval, 0.0, count, int(varied.sum()), phrases, found.drawn)


def _read_values(text: str) -> dict[str, tuple[str, ...]]:
    """The texts and numbers of a text's records by path."""
    values: dict[str, tuple[str, ...]] = {}
    for path, value in iterate_fields(text):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            if path not in values and len(values) == MAX_RECORD_FIELDS:
                break
            values[path] = (*values.get(path, ()), str(value))
    return values


class _Estimate(NamedTuple):
    value: float
    interval: Interval
    drawn: str


def _estimate(partners: Ints, values: Ints | None = None, name: str = "") -> _Estimate:
    """The probability from the number of other documents like each document; with the numbers of drawn values, among pairs with
    different ones.
    """
    pairs = len(partners) * (len(partners) - 1)
    different = pairs if values is None else pairs - int(count_others(values).sum())
    if different < MIN_DIFFERENT_PAIRS * pairs or not pairs:
        return _Estimate(1.0, (1.0, 1.0), name)
    low, high = (min(1.0, end * pairs / different) for end in estimate_pairs(partners))
    return _Estimate(int(partners.sum()) / different, (low, high), name)


def _choose_estimate(plain: _Estimate, by_attribute: Iterable[_Estimate]) -> _Estimate:
    """That of the attribute which explains most, if it explains half of the plain value or more."""
    least = min(by_attribute, default=plain)
    return least if least.value <= plain.value / 2 else plain


def _number_attributes(drawn: Attributes, count: int) -> Iterator[tuple[str, Ints]]:
    return ((name, _number(values[:count])) for name, values in drawn.items())


def _join(rows: Sequence[Hashable], numbers: Ints) -> list[Hashable]:
    return [row if row is NO_TEMPLATE else (row, number) for row, number in zip(rows, numbers.tolist(), strict=True)]


def count_others(numbers: Ints) -> Ints:
    """For each number, how many others are equal to it."""
    places, counts = np.unique(numbers, return_inverse=True, return_counts=True)[1:]
    others: Ints = counts[places] - 1
    return others


def _build_templates(
    rows: Sequence[Hashable], texts: Ints, spelled: Mapping[Hashable, str], drawn: Attributes
) -> DatasetTemplates:
    counts = Counter(row for row in rows if row is not NO_TEMPLATE)
    phrases = [
        PhraseRecord(text=_shorten(spelled[row]), candidate=count / len(rows))
        for row, count in counts.most_common(EXAMPLES)
        if count > 1
    ]
    partners = _count_partners(rows, texts)
    found = _choose_estimate(
        _estimate(partners),
        (
            _estimate(partners - _count_partners(_join(rows, numbers), texts), numbers, name)
            for name, numbers in _number_attributes(drawn, len(rows))
        ),
    )
    return DatasetTemplates(found.value, found.interval, 0.0, len(rows), counts.total(), phrases, found.drawn)


def _list_beginnings(sample: TokenSample, common: Ints, varied: Bools) -> list[tuple[int, ...] | None]:
    """The beginning of each document as common words and gaps: whole with a common word, or ended with three. None for others,
    which are like no other.
    """
    rows = extract_skeletons(sample, common)
    least = np.where(rows[:, -1] == ENDED, MIN_ENDED_WORDS, 1)
    held = varied & ((rows >= 0).sum(axis=1) >= least)
    return [tuple(row) if holds else NO_TEMPLATE for row, holds in zip(rows.tolist(), held, strict=True)]


def _number(values: Iterable[Hashable]) -> Ints:
    numbers: dict[Hashable, int] = {}
    return np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), np.int64)


def _count_partners(rows: Sequence[Hashable], texts: Ints) -> Ints:
    """For each document, how many of other text have the same template."""
    pairs = list(zip(rows, texts.tolist(), strict=True))
    alike, same = Counter(rows), Counter(pairs)
    return np.array([0 if row is NO_TEMPLATE else alike[row] - same[row, text] for row, text in pairs], dtype=np.int64)


def _find_mean(partners: Ints) -> float:
    pairs = len(partners) * (len(partners) - 1)
    return int(partners.sum()) / pairs if pairs else 0.0


def _shorten(outline: str) -> str:
    return outline[:MAX_OUTLINE] + "…" * (len(outline) > MAX_OUTLINE)
