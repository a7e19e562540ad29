"""Explains a collapse verdict: the findings, their distance from real text, and examples from the texts: copies, near copies,
loops and set phrases of one sample. Decides nothing.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.runs.records import ExampleRecord, PhraseRecord
from core.runs.verdict_words import COLLAPSE_FINDINGS
from filters.collapse.collapse_metrics import (
    COLLAPSE_METRICS,
    COPY_WORDS,
    ENDED,
    GAP,
    METRIC_LABELS,
    METRIC_NAMES,
    extract_openers,
    extract_skeletons,
)
from filters.collapse.collapse_verdict import CollapseDecision, MetricEvidence
from filters.collapse.diversity import TokenSample
from filters.collapse.reference_corpus import ReferenceCorpus
from filters.collapse.topics import TopicModel
from filters.ragged_arrays import sort_unique

Ints = npt.NDArray[np.int64]

EXAMPLES = 5
MAX_OUTLINE = 60
"""Characters of a template that are shown."""
MAX_LISTED_WORDS = 12
"""Most missing or strange words that are listed."""


class ComparedSides(NamedTuple):
    """The compared samples: one of the candidate and two of the reference."""

    draws: list[TokenSample]
    places: list[Ints]
    """Positions of the documents of the two reference samples in the reference."""
    topics: Ints
    """Topics of the candidate's documents, before topics were matched."""
    real_topics: Ints
    """Topics of the reference's documents, truncated to the same lengths."""

    def compute_topic_score(self, count: int) -> float:
        """Distance between the two topic distributions as a normal deviate, by the likelihood-ratio test of homogeneity.

        The statistic is approximately chi-square with one degree of freedom less than topics (Wilks 1938), and the cube root of
        that is approximately normal (Wilson and Hilferty 1931).
        """
        counts = [np.bincount(topics, minlength=count) for topics in (self.topics, self.real_topics)]
        table = np.stack(counts).astype(float)
        table = table[:, table.sum(axis=0) > 0]
        freedom = table.shape[1] - 1
        if freedom < 1:
            return 0.0
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
        terms = np.where(table > 0, table * np.log(np.maximum(table, 1) / expected), 0)
        statistic = 2 * float(terms.sum())
        spread = 2 / (9 * freedom)
        return float((np.cbrt(max(statistic, 0) / freedom) - (1 - spread)) / np.sqrt(spread))


class FrequentBeginnings(NamedTuple):
    """Beginnings that several documents share, most frequent first."""

    openers: list[PhraseRecord]
    """By the first three words."""
    templates: list[PhraseRecord]
    """By common words and gaps."""


def find_frequent_beginnings(sides: ComparedSides, reference: ReferenceCorpus) -> FrequentBeginnings:
    spelled, common = list(reference.vocabulary), reference.build_background().common
    join = reference.kind.join
    openers = [extract_openers(draw) for draw in sides.draws]
    if sides.draws[0].outlines is not None:
        outlines = [draw.outlines[draw.outlines >= 0, None] for draw in sides.draws if draw.outlines is not None]
        names = [outline[:MAX_OUTLINE] + "…" * (len(outline) > MAX_OUTLINE) for outline in reference.outlines]
        return FrequentBeginnings(
            _find_frequent_phrases(openers, sides, lambda word: spelled[word], join),
            _find_frequent_phrases(outlines, sides, lambda outline: names[outline]),
        )
    rows = [extract_skeletons(draw, common) for draw in sides.draws]
    complete = [skeletons[skeletons[:, -1] != ENDED] for skeletons in rows]
    return FrequentBeginnings(
        _find_frequent_phrases(openers, sides, lambda word: spelled[word], join),
        _find_frequent_phrases(complete, sides, lambda word: "…" if word == GAP else spelled[word], join),
    )


def explain_verdict(
    judgement: CollapseDecision,
    evidence: MetricEvidence,
    sides: ComparedSides,
    reference: ReferenceCorpus,
    begin: FrequentBeginnings,
) -> list[str]:
    """One sentence per finding, findings of collapse first."""
    spelled, background = list(reference.vocabulary), reference.build_background()
    own, first, second = (np.bincount(draw.ids, minlength=len(spelled)) for draw in sides.draws)
    findings = []
    for kind, finding in COLLAPSE_FINDINGS.items():
        if kind not in judgement.reasons:
            continue
        names, numbers, examples = judgement.reasons[kind], [], []
        for metric in (COLLAPSE_METRICS[METRIC_NAMES.index(name)] for name in names if name in evidence.z):
            real, z = evidence.real[metric.name], evidence.z[metric.name]
            value = real + metric.worse_sign * evidence.change[metric.name]
            label = reference.kind.name_units(METRIC_LABELS[metric.name])
            numbers.append(f"{label} {value:.4g}, real text {real:.4g}, z {z:+.1f}")
        if kind == "tail":
            lacking = np.where((own == 0) & (first > 0) & (second > 0), first + second, 0)
            examples = _list_words("Missing", lacking, reference.spell_units())
        elif kind == "strange":
            strange = np.where((background.counts == 0) & ~background.listed, own, 0)
            examples = _list_words("For example", strange, spelled)
        elif kind == "topics":
            examples = [_describe_topics(sides, reference.topics, reference.spell_units())]
        elif kind == "repetition":
            if set(names) - {"templates"} and begin.openers:
                examples.append(f"Most frequent openings: {_join_phrases(begin.openers)}")
            if "templates" in names and begin.templates:
                examples.append(f"Dominant patterns: {_join_phrases(begin.templates)}")
        text = reference.kind.name_units(finding.sentence) + f" ({', '.join(numbers)})" * bool(numbers)
        findings.append(". ".join(part for part in (text, *examples) if part))
    return findings


def _list_words(title: str, counts: Ints, spelled: list[str]) -> list[str]:
    """The words with a count, highest first."""
    most = [spelled[i] for i in np.argsort(-counts, kind="stable")[:MAX_LISTED_WORDS] if counts[i]]
    return [f"{title}: {', '.join(most)}"] if most else []


def _join_phrases(phrases: list[PhraseRecord]) -> str:
    return ", ".join(f"“{phrase.text}” {phrase.candidate:.1%}" for phrase in phrases)


def _find_frequent_phrases(
    rows: list[Ints], sides: ComparedSides, spell: Callable[[int], str], join: Callable[[Sequence[str]], str] = " ".join
) -> list[PhraseRecord]:
    own, *real = (Counter(map(tuple, phrases.tolist())) for phrases in rows)
    documents = len(sides.draws[0].lengths)
    return [
        PhraseRecord(
            text=join(list(map(spell, phrase))),
            candidate=count / documents,
            reference=sum(counts[phrase] for counts in real) / (len(real) * documents),
        )
        for phrase, count in own.most_common(EXAMPLES)
        if count > 1
    ]


def _describe_topics(sides: ComparedSides, topics: TopicModel, spelled: list[str]) -> str:
    """The three most under-represented and the three most over-represented topics."""
    counts = [np.bincount(assigned, minlength=topics.topic_count) for assigned in (sides.topics, sides.real_topics)]
    own, real = (count / count.sum() for count in counts)
    order = np.argsort(own - real, kind="stable")

    def describe(places: Ints) -> str:
        return ", ".join(f"“{topics.describe_topic(int(k), spelled)}” {own[k]:.1%} vs {real[k]:.1%}" for k in places)

    under, over = order[:3][real[order[:3]] > own[order[:3]]], order[::-1][:3]
    over = over[own[over] > real[over]]
    parts = [f"under-represented topics (dataset vs reference): {describe(under)}"] * bool(len(under))
    parts += [f"over-represented: {describe(over)}"] * bool(len(over))
    return "; ".join(parts)


# Examples of repeated text

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
