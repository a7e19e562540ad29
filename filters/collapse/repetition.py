"""Repetition within one dataset, without a reference: copies, loops and set phrases, compared with its own words in random order;
and few structures that are filled with different words.

Text that a document takes from its own prompt does not count: a quote of a passage or a required phrase is no repetition. Knows
nothing of lost words and topics, which only a reference shows.
"""

import hashlib
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from core.intervals import wilson_bound
from core.runs.collapse_facts import MIN_REPETITION_DOCUMENTS
from core.runs.records import CollapseRecord, CollapseVerdict, MetricRecord, PhraseRecord
from core.runs.verdict_words import COLLAPSE_FINDINGS, format_count
from filters.base import Document
from filters.collapse.collapse_metrics import COPY_WORDS, OPENER_WORDS, REPEAT
from filters.collapse.dataset_templates import (
    Attributes,
    DatasetTemplates,
    PromptedText,
    count_others,
    measure_beginnings,
    measure_outlines,
    measure_records,
)
from filters.collapse.diversity import TokenSample
from filters.collapse.explanation import EXAMPLES, find_repeated_examples
from filters.collapse.matched_samples import TokenCorpus
from filters.collapse.null_distribution import MAX_SAMPLE_DOCUMENTS
from filters.collapse.sampling_error import (
    COPIES_PER_PAIR,
    Interval,
    estimate_document_share,
    estimate_pairs,
    estimate_shared_mean,
)
from filters.collapse.seed_spread import list_attributes
from filters.collapse.text_kinds import PROSE, TextKind, find_kind
from filters.ragged_arrays import sort_unique

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_MEASURED_DOCUMENTS = 10
"""Below this number, nothing is measured."""
SIGNIFICANCE = 2.326
"""A share is over its limit if the lower end of its 99 % interval is (one-sided; Wilson 1927), with a document as the unit: a few
documents decide nothing."""
COPIED_SHARE = 0.5
"""A document is a copy if it shares at least this part of its 8-grams with other documents."""
LOOPED_SHARE = 0.2
"""A document loops if at least this part of its 8-grams repeats an earlier part of it. Gopher drops text from 0.12 on (Rae et al.
2021, table A1), which also has a bound for short text."""
DISTINCT_WORDS = 4
DISTINCT_SAMPLE = 5_000
"""4-grams of which the share of different ones is computed, equally many from each document: that share depends on their number
(Li et al. 2016), and one long document must not decide it."""
ALMOST_SURE = 1 - 1e-12
"""The probability with which a 4-gram is drawn where all are: its logarithm of absence stays finite."""
HASH_BYTES = 16
"""Of the hash of a text: two different texts in a billion are taken for equal with a probability under 1e-20."""
MIN_STRUCTURE_DOCUMENTS = 100
"""The smallest number for which the limits of structure were measured: with fewer documents, it is shown and not judged."""
MIN_VARIED_SHARE = 0.5
"""Least share of documents whose structure can vary; with fewer, it is shown and not judged."""
STRUCTURED_STARTS = ("{", "[", "`", "<")
"""A document that begins with one of these is data or code: it repeats names and marks by its format."""


class RepetitionMetric(NamedTuple):
    name: str
    limit: float
    """The largest value above that of the same words in random order (for exact duplicates, above 0) that is not called
    repetition."""
    meaning: str


REPETITION_LIMITS = (
    RepetitionMetric("exact_duplicates", 0.05, "share of documents that repeat another one, prompt included"),
    RepetitionMetric("repeated_answers", 0.5, "share of documents with the text of another one, under any prompt"),
    RepetitionMetric(
        "copied_documents", 0.2, "share of different documents of which half the 8-grams are in another one"
    ),
    RepetitionMetric("looping_documents", 0.05, "share of documents of which a fifth of the 8-grams repeats itself"),
    RepetitionMetric(
        "openers", 0.25, "probability that two documents have the same first three words, but not the same text"
    ),
    RepetitionMetric(
        "repeated_4grams",
        0.1,
        f"share of a document’s 4-grams that repeat others, among {DISTINCT_SAMPLE:,} of different documents; mean",
    ),
)
"""Set between human text and collapsed text of `python -m benchmarks repetition`. Package descriptions, of which a sixth begin
with the same three words, have the most set phrases of the human texts: openers 0.03, repeated_4grams 0.025, copies 0.05."""


class PromptedSample(NamedTuple):
    """Documents and their prompts as word numbers from one vocabulary."""

    own: TokenSample
    prompts: TokenSample
    prose: Bools
    """Whether the document is prose rather than data or code."""
    vocabulary: dict[str, int]
    places: Ints
    """Their positions among all documents."""

    @classmethod
    def from_documents(cls, documents: Sequence[Document], kind: TextKind = PROSE) -> Self:
        """All documents with a word. Of prose, tool calls are left out: they are data with repeated names."""
        vocabulary: dict[str, int] = {}
        texts = [_get_own_text(document, kind) for document in documents]
        found = [kind.split(text) for text in texts]
        places = [place for place, words in enumerate(found) if words]
        pairs = [(found[place], texts[place], documents[place]) for place in places]
        own = TokenCorpus.from_words([words for words, _, _ in pairs], vocabulary)
        asked = [_split_prompt(document, kind) for _, _, document in pairs]
        prompts = TokenCorpus.from_words(asked, vocabulary)
        prose = [not text.lstrip().startswith(STRUCTURED_STARTS) for _, text, _ in pairs]
        return cls(
            TokenSample(own.ids, own.lengths),
            TokenSample(prompts.ids, prompts.lengths),
            np.array(prose, dtype=bool),
            vocabulary,
            np.array(places, dtype=np.int64),
        )

    @property
    def documents(self) -> int:
        return len(self.prose)

    def shuffle_words(self, random: np.random.Generator) -> Self:
        """The same prompts and lengths, with the words of all documents in random order."""
        return self._replace(own=TokenSample(random.permutation(self.own.ids), self.own.lengths))

    def take(self, places: Ints) -> Self:
        def select(sample: TokenSample) -> TokenSample:
            return _build_corpus(sample).take_sample(places, sample.lengths[places])

        own, prompts = select(self.own), select(self.prompts)
        return self._replace(own=own, prompts=prompts, prose=self.prose[places], places=self.places[places])

    def number_texts(self) -> Ints:
        """For each document, the number of its text: equal for equal words."""
        seen: dict[bytes, int] = {}
        words = _build_corpus(self.own).iterate_documents()
        return np.fromiter((seen.setdefault(text, len(seen)) for text in words), np.int64)


def _get_own_text(document: Document, kind: TextKind) -> str:
    return "\n".join(document.answers) if document.answers and not kind.compares_values else document.text


def _split_prompt(document: Document, kind: TextKind) -> list[str]:
    return kind.split(f"{document.asked}\n{document.around}")


def _build_corpus(sample: TokenSample) -> TokenCorpus:
    return TokenCorpus(sample.ids, np.cumsum(sample.lengths) - sample.lengths, sample.lengths)


class OwnNgrams(NamedTuple):
    """The n-grams of documents that their own prompts lack, in order: number, document, whether it is the document's first."""

    ids: Ints
    documents: Ints
    leads: Bools


def _list_own_ngrams(sample: PromptedSample, n: int) -> OwnNgrams:
    both = TokenSample(*(np.concatenate(parts) for parts in zip(sample.own[:2], sample.prompts[:2], strict=True)))
    if both.tokens < n:
        return OwnNgrams(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool))
    ids, documents = both.list_ngrams(n)
    own, count = documents < sample.documents, sample.documents
    asked = np.isin(ids[own] * count + documents[own], ids[~own] * count + documents[~own] - count)
    leads = np.diff(documents[own], prepend=-1) > 0
    return OwnNgrams(ids[own][~asked], documents[own][~asked], leads[~asked])


class CopyCounts(NamedTuple):
    """Different texts among all documents, however many: in a sample, the copies of most would be missing."""

    documents: int
    """Documents with a word."""
    rows: int
    """Different ones, prompt included."""
    answers: int
    """Different ones under any prompt."""
    shuffled_answers: int
    """Different ones after the words of all documents were put in random order."""

    @classmethod
    def from_documents(cls, documents: Iterable[Document], random: np.random.Generator, kind: TextKind = PROSE) -> Self:
        vocabulary: dict[str, int] = {}
        ids, lengths = array("i"), array("q")
        answers: set[bytes] = set()
        rows: set[bytes] = set()
        for document in documents:
            if words := kind.split(_get_own_text(document, kind)):
                prompt = f"{document.asked}\n{document.around}".lower().split()  # of words, also for records
                answer, asked = (
                    _hash_bytes(" ".join(part).encode("utf-8", "surrogatepass")) for part in (words, prompt)
                )
                answers.add(answer)
                rows.add(answer + asked)
                lengths.append(len(words))
                ids.extend(vocabulary.setdefault(word, len(vocabulary)) for word in words)
        shuffled = random.permutation(np.frombuffer(ids, dtype=np.intc))
        ends = np.cumsum(np.frombuffer(lengths, dtype=np.int64))
        mixed = {_hash_bytes(shuffled[end - length : end].tobytes()) for end, length in zip(ends, lengths, strict=True)}
        return cls(len(lengths), len(rows), len(answers), len(mixed))

    def list_shares(self) -> dict[str, tuple["RepetitionShare", float]]:
        """The shares that repeat another document, each with what it is compared with: for answers, the same words in random
        order; for rows, none, as two equal rows under one prompt are a copy even where the answer is one word.
        """
        return {
            "exact_duplicates": (self._share_repeated(self.rows), 0.0),
            "repeated_answers": (self._share_repeated(self.answers), self._share_repeated(self.shuffled_answers).value),
        }

    def _share_repeated(self, different: int) -> "RepetitionShare":
        share = 1 - different / self.documents
        return RepetitionShare(share, self.documents, estimate_document_share(share, self.documents))


def _hash_bytes(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=HASH_BYTES).digest()


class RepetitionShare(NamedTuple):
    value: float
    documents: int
    """The documents that could show it: the evidence for the value."""
    interval: Interval
    """95 % interval of the value."""


def measure_repetition_shares(sample: PromptedSample) -> dict[str, RepetitionShare]:
    """The value of each metric in `REPETITION_LIMITS` but those of `CopyCounts`."""
    different = sample.take(_find_firsts(sample.number_texts()))
    eights = _list_own_ngrams(different, COPY_WORDS)
    pairs = sort_unique(eights.ids * different.documents + eights.documents)
    grams, owners = pairs // different.documents, pairs % different.documents
    shared = np.bincount(grams)[grams] > 1
    whole, once, elsewhere = (
        np.bincount(owner, minlength=different.documents) for owner in (eights.documents, owners, owners[shared])
    )
    copied = float(((once > 0) & (elsewhere >= COPIED_SHARE * once)).mean())
    looped = float(((once > 0) & (whole - once >= LOOPED_SHARE * whole)).mean())
    count = different.documents
    prose = sample.take(np.flatnonzero(sample.prose))
    texts = prose.number_texts()
    return {
        "copied_documents": RepetitionShare(copied, count, estimate_document_share(copied, count, COPIES_PER_PAIR)),
        "looping_documents": RepetitionShare(looped, count, estimate_document_share(looped, count)),
        "openers": _measure_equal_openers(prose, texts),
        "repeated_4grams": _measure_repeated_ngrams(prose, texts),
    }


def _find_firsts(numbers: Ints) -> Ints:
    """The place of the first document of each number."""
    return np.unique(numbers, return_index=True)[1].astype(np.int64)


def _measure_equal_openers(prose: PromptedSample, texts: Ints) -> RepetitionShare:
    """Probability that two documents have the same first three words and different texts. A document without an opener, or with
    one from its prompt, is like no other.
    """
    grams = _list_own_ngrams(prose, OPENER_WORDS)
    leading, openers = grams.documents[grams.leads], grams.ids[grams.leads]
    same = openers * prose.documents + texts[leading]
    partners = np.zeros(prose.documents, dtype=np.int64)
    partners[leading] = count_others(openers) - count_others(same)
    pairs = prose.documents * (prose.documents - 1)
    long = len(np.unique(texts[prose.own.lengths >= OPENER_WORDS]))
    return RepetitionShare(int(partners.sum()) / pairs if pairs else 0.0, long, estimate_pairs(partners))


def _measure_repeated_ngrams(prose: PromptedSample, texts: Ints) -> RepetitionShare:
    """The mean, over all documents, of the expected share of their 4-grams that repeat others, where `DISTINCT_SAMPLE` 4-grams of
    different documents are drawn, equally many from each.
    """
    different = prose.take(_find_firsts(texts))
    fours = _list_own_ngrams(different, DISTINCT_WORDS)
    owned = np.bincount(fours.documents, minlength=different.documents)
    having = int((owned > 0).sum())
    if not having:
        return RepetitionShare(0.0, 0, (0.0, 1.0))
    kinds = np.unique(fours.ids, return_inverse=True)[1]
    drawn = np.minimum(ALMOST_SURE, DISTINCT_SAMPLE / having / owned[fours.documents])
    absent = np.log1p(-drawn)
    absence = np.bincount(kinds, weights=absent)
    repeated = (1 - (1 - np.exp(absence)) / np.bincount(kinds, weights=drawn))[kinds]
    # Without one of its occurrences, a 4-gram has one repetition less if any other was drawn.
    influence = 1 - np.exp(absence[kinds] - absent)
    shares, influences = (
        (np.bincount(fours.documents, weights=parts, minlength=different.documents) / np.maximum(owned, 1))[texts]
        for parts in (repeated, influence)
    )
    value = float(shares.mean())
    return RepetitionShare(value, having, estimate_shared_mean(value, influences))


def assess_repetition(
    documents: Sequence[Document],
    *,
    seed: int,
    kind: TextKind | None = None,
    seeds: Sequence[Mapping[str, Any]] = (),
    few_structures: bool = False,
) -> CollapseRecord:
    """Measure repetition within the documents: equal texts among all, n-grams in at most `MAX_SAMPLE_DOCUMENTS`, structures in
    fewer. Without `kind`, it is found from the texts. `seeds`: what was drawn for each document, where known: structures that
    an attribute of them explains are the recipe's. `few_structures`: few are wanted, so they are shown and not judged.

    The share of copied documents is that within the sample: a near copy whose original was not drawn is missed.
    """
    random = np.random.default_rng(seed)
    kind = kind or find_kind([document.text for document in documents])
    chosen = np.sort(random.permutation(len(documents))[:MAX_SAMPLE_DOCUMENTS])
    sample = PromptedSample.from_documents([documents[i] for i in chosen], kind)
    count = sample.documents
    if count < MIN_MEASURED_DOCUMENTS:
        return CollapseRecord(
            verdict=CollapseVerdict.inconclusive, kind=kind.name, unit=kind.unit,
            evidence=[f"{format_count(count, 'document')} with a {kind.unit}; {MIN_MEASURED_DOCUMENTS} are needed"],
            reference=None, documents=0, tokens=0, metrics=[], dataset_documents=count, needed=MIN_REPETITION_DOCUMENTS,
        )  # fmt: skip
    copies = CopyCounts.from_documents(documents, random, kind)
    mixed = sample.shuffle_words(random)
    values, shuffled = (measure_repetition_shares(s) for s in (sample, mixed))
    shares = copies.list_shares() | {name: (share, shuffled[name].value) for name, share in values.items()}
    metrics = [
        _build_repetition_record(metric, *shares[metric.name], kind)
        for metric in REPETITION_LIMITS
        if metric.name in kind.repetition
    ]
    repeated = [metric for metric in metrics if _is_repetition(metric, shares[metric.name][0].documents)]
    names = [metric.name for metric in repeated]
    openers = _find_frequent_openers(sample, kind) if "openers" in kind.repetition else []
    places = chosen[sample.places]
    drawn = list_attributes([seeds[i] for i in places]) if seeds else {}
    templates = _measure_structure([documents[i] for i in places], sample, mixed, kind, drawn)
    structure = _build_structure_record(templates, kind, few_wanted=few_structures)
    is_uniform = structure.family is not None and templates.interval[0] > structure.high
    evidence = [_describe_repetition(repeated, openers if "openers" in names else [])] if repeated else []
    evidence += [_describe_structure(structure, templates.phrases)] if is_uniform else []
    findings = {"repetition": names, "structure": [structure.name] * is_uniform}
    return CollapseRecord(
        verdict=_decide_repetition(evidence, count),
        kind=kind.name,
        unit=kind.unit,
        evidence=evidence,
        findings={finding: metrics for finding, metrics in findings.items() if metrics},
        examples=find_repeated_examples(names, sample.own, list(sample.vocabulary), kind.join),
        reference=None,
        documents=count,
        tokens=sample.own.tokens,
        metrics=[*metrics, structure],
        openers=openers,
        templates=templates.phrases,
        dataset_documents=copies.documents,
        needed=MIN_REPETITION_DOCUMENTS,
    )


def _decide_repetition(evidence: Sequence[str], documents: int) -> CollapseVerdict:
    if evidence:
        return CollapseVerdict.collapse
    return CollapseVerdict.inconclusive if documents < MIN_REPETITION_DOCUMENTS else CollapseVerdict.unrepeated


def _build_repetition_record(
    metric: RepetitionMetric, share: RepetitionShare, shuffled: float, kind: TextKind
) -> MetricRecord:
    return MetricRecord(
        name=metric.name, candidate=share.value, reference=shuffled, low=0.0, high=min(1.0, shuffled + metric.limit),
        meaning=kind.name_units(metric.meaning), family=REPEAT, interval=share.interval,
    )  # fmt: skip


def _measure_structure(
    documents: Sequence[Document], sample: PromptedSample, mixed: PromptedSample, kind: TextKind, drawn: Attributes
) -> DatasetTemplates:
    """`documents` and `drawn` are those of the sample."""
    if kind.outline:
        read = [
            PromptedText(_get_own_text(document, kind), f"{document.asked}\n{document.around}")
            for document in documents
        ]
        return measure_records(read, drawn) if kind.compares_values else measure_outlines(read, kind, drawn)
    # A beginning that the document's prompt asks for does not count.
    grams = _list_own_ngrams(sample, OPENER_WORDS)
    counted = np.zeros(sample.documents, dtype=bool)
    counted[grams.documents[grams.leads]] = True
    counted &= sample.prose
    return measure_beginnings(sample.own, mixed.own, sample.number_texts(), counted, sample.vocabulary, kind, drawn)


def _build_structure_record(templates: DatasetTemplates, kind: TextKind, *, few_wanted: bool) -> MetricRecord:
    """Over its limit if the lower end of the 95 % interval is. Without a family where it is not judged."""
    why = ""
    if few_wanted:
        why = "the recipe wants few, `collapse.structures = false`"
    elif templates.documents < MIN_STRUCTURE_DOCUMENTS:
        why = f"{templates.documents:,} of {MIN_STRUCTURE_DOCUMENTS:,} documents"
    elif templates.varied < MIN_VARIED_SHARE * templates.documents:
        why = f"{templates.varied:,} of {templates.documents:,} documents are long enough to vary"
    meaning = kind.describe_structure()
    meaning += f", where different values of {templates.drawn} were drawn" if templates.drawn else ""
    return MetricRecord(
        name="templates", candidate=templates.value, reference=templates.reference, low=0.0,
        high=1.0 if why else min(1.0, templates.reference + kind.template_limit),
        meaning=f"shown, not gating ({why}): {meaning}" if why else meaning,
        family=None if why else REPEAT, interval=templates.interval,
    )  # fmt: skip


def _describe_structure(structure: MetricRecord, phrases: Sequence[PhraseRecord]) -> str:
    low, high = structure.interval or (structure.candidate, structure.candidate)
    numbers = (
        f"as with {1 / structure.candidate:.1f} equally frequent ones, 95 % interval {1 / high:.1f} to {1 / max(low, 1e-9):.1f}, "
        f"limit {1 / structure.high:.1f}"
    )
    shown = ", ".join(f"“{phrase.text}” {phrase.candidate:.1%}" for phrase in phrases)
    return f"{COLLAPSE_FINDINGS['structure'].sentence} ({numbers})" + f". Most frequent: {shown}" * bool(shown)


def _is_repetition(metric: MetricRecord, documents: int) -> bool:
    """Whether the value is significantly over its limit. For a collision probability, its root is the share of documents."""
    value, limit = metric.candidate, metric.high
    if metric.name == "openers":
        value, limit = math.sqrt(value), math.sqrt(limit)
    return value > limit and wilson_bound(round(value * documents), documents, -SIGNIFICANCE) > limit


def _find_frequent_openers(sample: PromptedSample, kind: TextKind) -> list[PhraseRecord]:
    """The first three words that several prose documents share and their prompts lack, most frequent first."""
    sample = sample.take(np.flatnonzero(sample.prose))
    spelled = list(sample.vocabulary)
    grams = _list_own_ngrams(sample, OPENER_WORDS)
    numbers, counts = np.unique(grams.ids[grams.leads], return_counts=True)
    starts = np.cumsum(sample.own.lengths) - sample.own.lengths
    phrases = []
    for place in np.argsort(-counts, kind="stable")[:EXAMPLES]:
        if counts[place] > 1:
            start = starts[grams.documents[grams.leads & (grams.ids == numbers[place])][0]]
            words = sample.own.ids[start : start + OPENER_WORDS]
            share = int(counts[place]) / sample.documents
            phrases.append(PhraseRecord(text=kind.join([spelled[word] for word in words]), candidate=share))
    return phrases


def _describe_repetition(repeated: Sequence[MetricRecord], openers: Sequence[PhraseRecord]) -> str:
    numbers = ", ".join(f"{metric.name} {metric.candidate:.3g}, limit {metric.high:.3g}" for metric in repeated)
    phrases = ", ".join(f"“{phrase.text}” {phrase.candidate:.1%}" for phrase in openers)
    return f"{COLLAPSE_FINDINGS['repetition'].sentence} ({numbers})" + f". Most frequent openings: {phrases}" * bool(
        phrases
    )
