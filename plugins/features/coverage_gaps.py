"""Coverage gaps: topics and words of real text that a dataset lacks, and real documents to use as seeds. Decides no verdict.

Both sides are truncated to the same lengths, document by document, since a longer document has more words. A topic or word is
lacking if its share of documents in the dataset is at most half of that in real text, and significant: one-sided Fisher's exact
test (1935), valid at every size, with a family-wise error of `FALSE_ALARM_PROBABILITY` over all topics or words by the method of
Holm (1979), which holds however they depend on each other.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.intervals import log_binomial
from filters.collapse.matched_samples import TokenCorpus, match_lengths
from filters.collapse.reference_corpus import ReferenceCorpus
from filters.collapse.topics import COMMON_SHARE
from filters.ragged_arrays import sort_unique

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FALSE_ALARM_PROBABILITY = 0.01
"""Probability of reporting any gap in a dataset that was sampled from the same text as the reference."""
MAX_LACKING_SHARE = 0.5
"""Largest ratio to real text's share of documents."""
MIN_GAP_DOCUMENTS = 10
SEED_WORDS = 5
"""Words of a document that are counted and listed."""
TOPIC_NAME_WORDS = 3
"""Words that name a topic."""
MIN_DEFICIT = 1e-12


class CoverageGap(NamedTuple):
    """A topic or a word that is lacking."""

    name: str
    here: float
    """Share of the dataset's documents with it."""
    real: float
    """Share of the reference's documents with it."""


class GapSeed(NamedTuple):
    """A document of the reference to use as a seed."""

    place: int
    """Position in the reference."""
    words: list[str]
    """Its lacking words, then its least common ones; one to `SEED_WORDS`. A document without such a word starts no seed."""
    topic: str
    """The heaviest words of its topic."""


class GapReport(NamedTuple):
    """All gaps, largest first."""

    documents: int
    """Documents of the dataset that contain a word."""
    real: int
    """Documents of the reference."""
    topics: list[CoverageGap]
    words: list[CoverageGap]
    starts: list[GapSeed]


class LackingItems(NamedTuple):
    """Numbers of lacking topics or words, with both shares."""

    places: Ints
    here: Floats
    real: Floats

    def to_gaps(self, names: Sequence[str]) -> list[CoverageGap]:
        return [CoverageGap(names[place], float(here), float(real)) for place, here, real in zip(*self, strict=True)]


class ItemsByDocument(NamedTuple):
    """The different words of each document, document by document."""

    words: Ints
    starts: Ints

    @classmethod
    def from_corpus(cls, corpus: TokenCorpus) -> "ItemsByDocument":
        owner = np.repeat(np.arange(len(corpus)), corpus.lengths)
        most = int(corpus.ids.max(initial=0)) + 1
        pairs = sort_unique(owner * most + corpus.ids)
        return cls(pairs % most, np.searchsorted(pairs // most, np.arange(len(corpus) + 1)))

    def count_documents(self, vocabulary: int) -> Ints:
        """Number of documents by word."""
        return np.bincount(self.words, minlength=vocabulary)

    def find_words(self, place: int) -> Ints:
        return self.words[self.starts[place] : self.starts[place + 1]]


def find_coverage_gaps(candidate: TokenCorpus, reference: ReferenceCorpus, starts: int) -> GapReport | None:
    """Gaps of the candidate, and at most `starts` seeds; None if one side has fewer than `MIN_GAP_DOCUMENTS` documents.

    The candidate's words are numbered by the reference's vocabulary.
    """
    if min(len(candidate), len(reference.corpus)) < MIN_GAP_DOCUMENTS:
        return None
    cuts = match_lengths(candidate.lengths, reference.corpus.lengths)
    own, real = (
        corpus.truncate(np.arange(len(corpus)), cut)
        for corpus, cut in zip((candidate, reference.corpus), cuts, strict=True)
    )
    spelled, model = reference.spell_units(), reference.topics
    topic_of = model.assign(real)
    by_topic = (np.bincount(topics, minlength=model.topic_count) for topics in (model.assign(own), topic_of))
    topics = find_lacking_items(*by_topic, sizes=(len(own), len(real)))
    by_word = (ItemsByDocument.from_corpus(corpus).count_documents(len(spelled)) for corpus in (own, real))
    words = find_lacking_items(*by_word, sizes=(len(own), len(real)))
    names = [model.describe_topic(topic, spelled, TOPIC_NAME_WORDS) for topic in range(model.topic_count)]
    whole = ItemsByDocument.from_corpus(reference.corpus)
    # Words that indicate the topic of a document.
    formed = np.fromiter(map(reference.kind.names_subject, spelled), bool, len(spelled))
    topical = formed & (whole.count_documents(len(spelled)) <= COMMON_SHARE * len(reference.corpus))
    chosen = SeedChooser(whole, topic_of, topics, words, topical).choose(starts)
    seeds = [GapSeed(place, [spelled[word] for word in named], names[topic_of[place]]) for place, named in chosen]
    return GapReport(len(own), len(real), topics.to_gaps(names), words.to_gaps(spelled), seeds)


def find_lacking_items(own: Ints, real: Ints, *, sizes: tuple[int, int]) -> LackingItems:
    """Items that the first side lacks, largest gaps first, by their numbers of documents. `sizes` are the totals."""
    documents, others = sizes
    here, in_real = own / documents, real / others
    few = np.flatnonzero((here <= MAX_LACKING_SHARE * in_real) & (in_real > 0))
    logs = np.array([_log_tail_probability(int(own[i]), int(real[i]), *sizes) for i in few])
    lacking = few[select_by_holm(logs, int(np.count_nonzero(own + real)))]
    lacking = lacking[np.argsort(here[lacking] - in_real[lacking], kind="stable")]
    return LackingItems(lacking, here[lacking], in_real[lacking])


def select_by_holm(log_probabilities: Floats, tests: int) -> Ints:
    """Places of the hypotheses that Holm's step-down method rejects at `FALSE_ALARM_PROBABILITY`, out of `tests` of which the
    others are not rejected.
    """
    order = np.argsort(log_probabilities, kind="stable")
    limits = np.log(FALSE_ALARM_PROBABILITY / np.maximum(1, tests - np.arange(order.size)))
    above = np.flatnonzero(log_probabilities[order] > limits)
    return order[: above[0]] if above.size else order


def _log_tail_probability(own: int, real: int, documents: int, others: int) -> float:
    """Upper bound of the log probability that at most `own` of `own + real` documents are on the first side: the hypergeometric
    probability of `own`, and a geometric series for the smaller numbers.

    `own` is at most half of its expected share, so every term is smaller than the previous one.
    """
    ways = log_binomial(documents, own) + log_binomial(others, real) - log_binomial(documents + others, own + real)
    ratio = own * (others - real) / ((real + 1) * (documents - own + 1))
    return ways - math.log1p(-ratio)


class SeedChooser:
    """Greedily chooses the document that covers most of what is lacking and not yet covered. The gain of a document only falls as
    others are chosen, so it is computed again only when the document comes first (lazy greedy, Minoux 1978).
    """

    def __init__(
        self, reference: ItemsByDocument, topic_of: Ints, topics: LackingItems, words: LackingItems, named: BoolArray
    ) -> None:
        self._reference = reference
        self._topic_of = topic_of
        self._named = named
        self._commonness = reference.count_documents(named.size)
        self._taken = np.zeros(named.size, dtype=np.int64)
        self._wanted = np.zeros(named.size, dtype=np.bool_)
        self._wanted[words.places] = True
        self._wanted &= named
        deficits = topics.real - topics.here
        parts = deficits / max(float(deficits.sum()), MIN_DEFICIT)
        self._due = {int(topic): float(part) for topic, part in zip(topics.places, parts, strict=True)}
        self._seeds_of_topic = dict.fromkeys(self._due, 0)

    def choose(self, most: int) -> list[tuple[int, Ints]]:
        """Positions of documents, each with the words of its seed."""
        heap = [
            (-gain, place)
            for place in range(self._topic_of.size)
            if (gain := self._compute_gain(place, most)) and self._choose_words(place).size
        ]
        heapq.heapify(heap)
        chosen: list[tuple[int, Ints]] = []
        while heap and len(chosen) < most:
            before, place = heapq.heappop(heap)
            gain = self._compute_gain(place, most)
            if gain < -before:
                if gain:
                    heapq.heappush(heap, (-gain, place))
                continue
            chosen.append((place, self._choose_words(place)))
            self._taken[self._find_lacking(place)] += 1
            if (topic := int(self._topic_of[place])) in self._seeds_of_topic:
                self._seeds_of_topic[topic] += 1
        return chosen

    def _compute_gain(self, place: int, most: int) -> float:
        """A lacking word counts 1, then 1/2 after one chosen document with it, 1/3 after two. A lacking topic counts as much as
        all words of a seed until it has its share of the seeds.
        """
        topic = int(self._topic_of[place])
        left = max(0.0, 1 - self._seeds_of_topic[topic] / (self._due[topic] * most)) if topic in self._due else 0.0
        return float((1 / (1 + self._taken[self._find_lacking(place)])).sum()) + SEED_WORDS * left

    def _find_lacking(self, place: int) -> Ints:
        words = self._reference.find_words(place)
        words = words[self._wanted[words]]
        return words[np.argsort(self._taken[words], kind="stable")[:SEED_WORDS]]

    def _choose_words(self, place: int) -> Ints:
        """Lacking words, then the least common other words that several documents have; words of this document alone where it
        has no others.
        """
        lacking = self._find_lacking(place)
        others = self._reference.find_words(place)
        others = others[self._named[others] & ~np.isin(others, lacking)]
        others = others[np.argsort(self._commonness[others], kind="stable")]
        shared = np.concatenate((lacking, others[self._commonness[others] > 1]))
        return (shared if shared.size else others)[:SEED_WORDS]
