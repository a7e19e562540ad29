"""What real text has and a dataset lacks: topics, words, and the real documents to begin from. Judges no dataset.

Both sides are cut to the same lengths, document by document, since a longer one has more words. A topic or a word is told
as lacking where the dataset has at most half of real text's share of documents with it, and where so few of them would fall
to it, if both were drawn from the same text, with a probability of `ERROR` at most for all that is looked at together: one
side of Fisher's exact test (1935), which holds at every size, with Bonferroni's correction.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.draws import Corpus, alike
from filters.reference import Reference
from filters.topics import COMMON

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ERROR = 0.01
"""Most probability that anything is told as lacking in a dataset that was drawn like the reference."""
LACKING = 0.5
"""Most of real text's share of documents."""
FEWEST_DOCUMENTS = 10
WORDS = 5
"""Words of a document that it is chosen for, and that are named."""
NAMED = 3
"""Words that name a topic."""
LEAST = 1e-12
LETTERS = 3
"""A shorter word says little."""


class Gap(NamedTuple):
    """A topic or a word."""

    name: str
    here: float
    """Share of the dataset's documents with it."""
    real: float
    """Share of the reference's."""


class Start(NamedTuple):
    """A document of the reference to begin from."""

    place: int
    """In the reference."""
    words: list[str]
    """What it has of what is lacking, then its own least common ones; `WORDS` at most."""
    topic: str
    """By its heaviest words."""


class Gaps(NamedTuple):
    """What was found, the most lacking first."""

    documents: int
    """Of the dataset, with a word in them."""
    real: int
    """Of the reference."""
    topics: list[Gap]
    words: list[Gap]
    starts: list[Start]


class _Lacking(NamedTuple):
    """What is lacking, by number, with both shares."""

    places: Ints
    here: Floats
    real: Floats

    def told(self, names: Sequence[str]) -> list[Gap]:
        return [Gap(names[place], float(here), float(real)) for place, here, real in zip(*self, strict=True)]


class _Words(NamedTuple):
    """Which documents have which words, each once, document by document."""

    words: Ints
    starts: Ints

    @classmethod
    def of(cls, corpus: Corpus) -> "_Words":
        owner = np.repeat(np.arange(len(corpus)), corpus.lengths)
        most = int(corpus.ids.max(initial=0)) + 1
        pairs = np.unique(owner * most + corpus.ids, sorted=True)
        return cls(pairs % most, np.searchsorted(pairs // most, np.arange(len(corpus) + 1)))

    def documents(self, vocabulary: int) -> Ints:
        """By word, how many documents have it."""
        return np.bincount(self.words, minlength=vocabulary)

    def at(self, place: int) -> Ints:
        return self.words[self.starts[place] : self.starts[place + 1]]


def gaps(candidate: Corpus, reference: Reference, starts: int) -> Gaps | None:
    """What the candidate lacks of the reference, and at most so many documents to begin from; None if one side has fewer than
    `FEWEST_DOCUMENTS`.

    The candidate's words have numbers of the reference's vocabulary.
    """
    if min(len(candidate), len(reference.corpus)) < FEWEST_DOCUMENTS:
        return None
    cuts = alike(candidate.lengths, reference.corpus.lengths)
    own, real = (
        corpus.cut(np.arange(len(corpus)), cut) for corpus, cut in zip((candidate, reference.corpus), cuts, strict=True)
    )
    spelled, learnt = list(reference.vocabulary), reference.topics
    topic_of = learnt.assign(real)
    by_topic = (np.bincount(one, minlength=learnt.groups) for one in (learnt.assign(own), topic_of))
    topics = _lacking(*by_topic, sizes=(len(own), len(real)))
    by_word = (_Words.of(one).documents(len(spelled)) for one in (own, real))
    words = _lacking(*by_word, sizes=(len(own), len(real)))
    names = [learnt.name(topic, spelled, NAMED) for topic in range(learnt.groups)]
    whole = _Words.of(reference.corpus)
    chosen = _Chooser(whole, topic_of, topics, words, _telling(whole, spelled)).choose(starts)
    begun = [Start(place, [spelled[word] for word in named], names[topic_of[place]]) for place, named in chosen]
    return Gaps(len(own), len(real), topics.told(names), words.told(spelled), begun)


def _lacking(own: Ints, real: Ints, *, sizes: tuple[int, int]) -> _Lacking:
    """What the first side has too little of, by how many of its documents have each, and how many there are."""
    documents, others = sizes
    here, there = own / documents, real / others
    likely = math.log(ERROR / max(1, int(np.count_nonzero(own + real))))
    few = np.flatnonzero((here <= LACKING * there) & (there > 0))
    found = np.array([i for i in few if _log_tail(int(own[i]), int(real[i]), *sizes) <= likely], dtype=np.int64)
    found = found[np.argsort(here[found] - there[found], kind="stable")]
    return _Lacking(found, here[found], there[found])


def _log_tail(own: int, real: int, documents: int, others: int) -> float:
    """At most this is the logarithm of the probability that of `own + real` among all documents no more than `own` fall to the
    first ones: the hypergeometric probability of `own`, and below it a geometric series.

    `own` has at most half of its share, so that each term is less than the one before.
    """
    ways = _log_choose(documents, own) + _log_choose(others, real) - _log_choose(documents + others, own + real)
    ratio = own * (others - real) / ((real + 1) * (documents - own + 1))
    return ways - math.log1p(-ratio)


def _log_choose(of: int, chosen: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def _telling(there: _Words, spelled: Sequence[str]) -> Mask:
    """Words that say what a document is about."""
    formed = np.fromiter((word.isalpha() and len(word) >= LETTERS for word in spelled), bool, len(spelled))
    return formed & (there.documents(len(spelled)) <= COMMON * (there.starts.size - 1))


class _Chooser:
    """Greedily takes the document with most of what is lacking and not begun from yet. What a document gains only falls as
    others are taken, so each is weighed again only when it comes first (Minoux 1978).
    """

    def __init__(self, there: _Words, topic_of: Ints, topics: _Lacking, words: _Lacking, named: Mask) -> None:
        self._there = there
        self._topic_of = topic_of
        self._named = named
        self._commonness = there.documents(named.size)
        self._taken = np.zeros(named.size, dtype=np.int64)
        self._wanted = np.zeros(named.size, dtype=np.bool_)
        self._wanted[words.places] = True
        self._wanted &= named
        deficits = topics.real - topics.here
        parts = deficits / max(float(deficits.sum()), LEAST)
        self._due = {int(topic): float(part) for topic, part in zip(topics.places, parts, strict=True)}
        self._begun = dict.fromkeys(self._due, 0)

    def choose(self, most: int) -> list[tuple[int, Ints]]:
        """Places of documents, each with the words that it is to be begun with."""
        heap = [(-gain, place) for place in range(self._topic_of.size) if (gain := self._gain(place, most))]
        heapq.heapify(heap)
        chosen: list[tuple[int, Ints]] = []
        while heap and len(chosen) < most:
            before, place = heapq.heappop(heap)
            gain = self._gain(place, most)
            if gain < -before:
                if gain:
                    heapq.heappush(heap, (-gain, place))
                continue
            chosen.append((place, self._words(place)))
            self._taken[self._lacking(place)] += 1
            if (topic := int(self._topic_of[place])) in self._begun:
                self._begun[topic] += 1
        return chosen

    def _gain(self, place: int, most: int) -> float:
        """A lacking word counts one, half when one document was taken for it, a third after two; a lacking topic as much as
        all words of a seed until it has its part of the seeds.
        """
        topic = int(self._topic_of[place])
        left = max(0.0, 1 - self._begun[topic] / (self._due[topic] * most)) if topic in self._due else 0.0
        return float((1 / (1 + self._taken[self._lacking(place)])).sum()) + WORDS * left

    def _lacking(self, place: int) -> Ints:
        words = self._there.at(place)
        words = words[self._wanted[words]]
        return words[np.argsort(self._taken[words], kind="stable")[:WORDS]]

    def _words(self, place: int) -> Ints:
        """The lacking ones, then others, the least common first that several documents have."""
        lacking = self._lacking(place)
        others = self._there.at(place)
        others = others[self._named[others] & (self._commonness[others] > 1) & ~np.isin(others, lacking)]
        others = others[np.argsort(self._commonness[others], kind="stable")]
        return np.concatenate((lacking, others))[:WORDS]
