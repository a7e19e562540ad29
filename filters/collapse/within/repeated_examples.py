"""Examples of repeated text: copies, near copies, loops and set phrases of one sample. Decides nothing."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.runs.records import ExampleRecord
from filters.collapse.collapse_metrics import COPY_WORDS
from filters.collapse.diversity import TokenSample
from filters.ragged_arrays import sort_unique

Ints = npt.NDArray[np.int64]

MAX_EXAMPLES = 3
"""Per metric."""
MAX_EXAMPLE_UNITS = 40
"""Of a document."""
PHRASE_WORDS = 4
MIN_PHRASE_DOCUMENTS = 3


def find_repeated_examples(
    metrics: Collection[str], sample: TokenSample, spelled: Sequence[str], join: Callable[[Sequence[str]], str]
) -> list[ExampleRecord]:
    """Examples for those of `metrics` that are about repeated documents and phrases; beginnings have their own tables."""
    speller = _Speller(spelled, join)
    finders: dict[str, Callable[[TokenSample, _Speller], list[tuple[str, int]]]] = {
        "exact_duplicates": _find_copies, "repeated_answers": _find_copies, "copied_documents": _find_near_copies,
        "duplicate_8grams": _find_near_copies, "looping_documents": _find_loops, "repeated_4grams": _find_phrases,
        "distinct_4": _find_phrases,
    }  # fmt: skip
    found: dict[str, ExampleRecord] = {}
    for metric in metrics:
        if finder := finders.get(metric):
            for text, count in finder(sample, speller)[:MAX_EXAMPLES]:
                found.setdefault(text, ExampleRecord(metric=metric, text=text, count=count))
    return list(found.values())


class _Speller(NamedTuple):
    spelled: Sequence[str]
    join: Callable[[Sequence[str]], str]

    def spell(self, ids: Ints) -> str:
        more = "…" if len(ids) > MAX_EXAMPLE_UNITS else ""
        return self.join([self.spelled[number] for number in ids[:MAX_EXAMPLE_UNITS]]) + more

    def spell_document(self, sample: TokenSample, place: int) -> str:
        start = int(sample.lengths[:place].sum())
        return self.spell(sample.ids[start : start + int(sample.lengths[place])])


def _find_copies(sample: TokenSample, speller: _Speller) -> list[tuple[str, int]]:
    """The texts of several documents, the most frequent first."""
    ends = np.cumsum(sample.lengths)
    texts = [sample.ids[end - length : end].tobytes() for end, length in zip(ends, sample.lengths, strict=True)]
    first: dict[bytes, int] = {}
    for place, text in enumerate(texts):
        first.setdefault(text, place)
    common = Counter(texts).most_common(MAX_EXAMPLES)
    return [(speller.spell_document(sample, first[text]), count) for text, count in common if count > 1]


def _find_near_copies(sample: TokenSample, speller: _Speller) -> list[tuple[str, int]]:
    """The passages of eight units that most documents share, each with the rest of its first document. Passages that begin in
    the same document are one example.
    """
    grams = sample.list_ngrams(COPY_WORDS)
    if not len(grams.ids):
        return []
    pairs = sort_unique(grams.ids * len(sample.lengths) + grams.documents)
    holders = np.bincount(pairs // len(sample.lengths))
    shown: dict[int, tuple[str, int]] = {}
    for gram in np.argsort(-holders, kind="stable")[: 10 * MAX_EXAMPLES]:
        place = int(grams.documents[np.argmax(grams.ids == gram)])
        if holders[gram] > 1:
            shown.setdefault(place, (speller.spell_document(sample, place), int(holders[gram])))
    return list(shown.values())[:MAX_EXAMPLES]


def _find_loops(sample: TokenSample, speller: _Speller) -> list[tuple[str, int]]:
    """The documents of which most repeats itself."""
    grams = sample.list_ngrams(COPY_WORDS)
    count = len(sample.lengths)
    whole = np.bincount(grams.documents, minlength=count)
    once = np.bincount(sort_unique(grams.ids * count + grams.documents) % count, minlength=count)
    looped = (whole - once) / np.maximum(whole, 1)
    order = np.argsort(-looped, kind="stable")[:MAX_EXAMPLES]
    return [(speller.spell_document(sample, int(place)), 1) for place in order if looped[place] > 0]


def _find_phrases(sample: TokenSample, speller: _Speller) -> list[tuple[str, int]]:
    """The phrases of four units in most documents."""
    grams = sample.list_ngrams(PHRASE_WORDS)
    if not len(grams.ids):
        return []
    count = len(sample.lengths)
    holders = np.bincount(sort_unique(grams.ids * count + grams.documents) // count)
    starts = np.cumsum(sample.lengths) - sample.lengths
    examples = []
    for gram in np.argsort(-holders, kind="stable")[:MAX_EXAMPLES]:
        if holders[gram] >= MIN_PHRASE_DOCUMENTS:
            occurrence = int(np.argmax(grams.ids == gram))
            document = int(grams.documents[occurrence])
            within = occurrence - int(np.searchsorted(grams.documents, document))
            start = int(starts[document]) + within
            examples.append((speller.spell(sample.ids[start : start + PHRASE_WORDS]), int(holders[gram])))
    return examples
