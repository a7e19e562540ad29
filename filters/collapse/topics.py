"""Topics: clusters of a reference's documents by shared words, found without a neural model.

Latent semantic analysis (Deerwester et al. 1990) of words of medium frequency, then spherical k-means (Dhillon and Modha 2001).
Knows words, not meaning.
"""

from hashlib import blake2b
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.collapse.matched_samples import TokenCorpus
from filters.ragged_arrays import sort_unique

Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

TOPIC_WORDS = 1_000
COMMON_SHARE = 0.1
"""A word in a larger share of documents hardly indicates a topic."""
DIMENSIONS = 50
MOST_TOPICS = 32
DOCUMENTS_A_TOPIC = 150
SAMPLED_DOCUMENTS = 6_000
"""Documents of the reference that topics are fitted to."""
CLUSTER_ROUNDS = 15
LEAST_NORM = 1e-6
MAX_CACHED_MODELS = 4
"""References whose topics are kept in memory: a run compares with the same reference several times."""


class TopicModel(NamedTuple):
    """`centres` by topic. One more topic, the last, is that of documents without any of the words."""

    words: Ints
    weights: Vectors
    axes: Vectors
    centres: Vectors

    @property
    def topic_count(self) -> int:
        return len(self.centres) + 1

    @classmethod
    def of(cls, reference: TokenCorpus) -> "TopicModel":
        """`from_corpus`, computed once per reference: it takes most of the time of a comparison."""
        key = blake2b(reference.ids.tobytes() + reference.lengths.tobytes()).digest()
        if key not in _models:
            while len(_models) >= MAX_CACHED_MODELS:
                _models.pop(next(iter(_models)))
            _models[key] = cls.from_corpus(reference)
        return _models[key]

    @classmethod
    def from_corpus(cls, reference: TokenCorpus, seed: int = 0) -> Self:
        random = np.random.default_rng(seed)
        places = random.permutation(len(reference))[:SAMPLED_DOCUMENTS]
        part = reference.truncate(places, reference.lengths[places])
        owner = np.repeat(np.arange(len(places)), part.lengths)
        pairs = sort_unique(part.ids * len(places) + owner)
        counts = np.bincount(pairs // len(places))
        counts[counts > max(COMMON_SHARE * len(places), 2)] = 0
        words = np.argsort(-counts, kind="stable")[:TOPIC_WORDS]
        # A word in all documents separates none.
        words = np.sort(words[(counts[words] >= 2) & (counts[words] < len(places))])
        if len(words) == 0:
            return cls(words, *(np.zeros(shape, dtype=np.float32) for shape in (0, (0, 1), (0, 1))))
        weights = np.log(len(places) / counts[words]).astype(np.float32)
        cells = np.zeros(len(part) * len(words), dtype=np.float32)
        cells[_pair_documents_with_words(words, part)] = 1
        table = _normalize_rows(cells.reshape(len(part), len(words)) * weights)
        axes = np.linalg.eigh(table.T @ table)[1][:, ::-1][:, :DIMENSIONS]
        points = _normalize_rows(table @ axes)
        points = points[np.abs(points).sum(axis=1) > 0]

        topics = min(MOST_TOPICS, max(1, len(places) // DOCUMENTS_A_TOPIC))
        centres = points[random.permutation(len(points))[:topics]]
        for _ in range(CLUSTER_ROUNDS):
            nearest = np.argmax(points @ centres.T, axis=1)
            sums = np.stack([points[nearest == k].sum(axis=0) for k in range(len(centres))])
            lost = np.abs(sums).sum(axis=1) == 0
            sums[lost] = centres[lost]
            centres = _normalize_rows(sums)
        return cls(words, weights, axes, centres)

    def compute_directions(self, corpus: TokenCorpus) -> Vectors:
        """Each document's direction: the normalized sum of its words' axes; zero without any of the words."""
        directions = np.zeros((len(corpus), self.axes.shape[1]), dtype=np.float32)
        pairs = _pair_documents_with_words(self.words, corpus)
        owner = pairs // max(len(self.words), 1)
        if len(pairs):
            vectors = (self.axes * self.weights[:, None])[pairs % len(self.words)]
            starts = np.flatnonzero(np.diff(owner, prepend=-1))
            directions[owner[starts]] = np.add.reduceat(vectors, starts, axis=0)
        return _normalize_rows(directions)

    def assign(self, corpus: TokenCorpus) -> Ints:
        """The topic of each document."""
        if not len(self.centres):
            return np.zeros(len(corpus), dtype=np.int64)
        points = self.compute_directions(corpus)
        topics: Ints = np.argmax(points @ self.centres.T, axis=1)
        topics[np.abs(points).sum(axis=1) == 0] = len(self.centres)
        return topics

    def describe_topic(self, topic: int, spelled: list[str], words: int = 5) -> str:
        """A topic's heaviest words."""
        if topic == len(self.centres):
            return "(none of the usual words)"
        heaviest = np.argsort(-(self.axes @ self.centres[topic]))[:words]
        return ", ".join(spelled[self.words[i]] for i in heaviest)


_models: dict[bytes, TopicModel] = {}


def _pair_documents_with_words(words: Ints, corpus: TokenCorpus) -> Ints:
    """Document * number of words + index of word, in order, once for each different word of a document."""
    column = np.full(int(max(corpus.ids.max(initial=0), words.max(initial=0))) + 1, -1)
    column[words] = np.arange(len(words))
    where = column[corpus.ids]
    owner = np.repeat(np.arange(len(corpus)), corpus.lengths)
    return sort_unique(owner[where >= 0] * len(words) + where[where >= 0])


def _normalize_rows(rows: Vectors) -> Vectors:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > LEAST_NORM, norms, np.inf)).astype(np.float32)
