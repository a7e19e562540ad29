"""What documents are about: groups of a reference's documents by the words they share, found without a model.

Latent semantic analysis (Deerwester et al. 1990) of the middling frequent words, then spherical k-means (Dhillon and
Modha 2001). Knows words, not meaning.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.draws import Corpus

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

WORDS = 1_000
COMMON = 0.1
"""A word in more documents than this says little of what they are about."""
DIMENSIONS = 50
MOST_TOPICS = 32
DOCUMENTS_A_TOPIC = 150
SAMPLE = 6_000
"""Documents of the reference from which topics are learnt."""
ROUNDS = 15
LEAST_NORM = 1e-6


class Topics(NamedTuple):
    """`centres` by topic; the last topic, one more than there are centres, is of documents without any of the words."""

    words: Ints
    weights: Floats
    axes: Floats
    centres: Floats

    @property
    def groups(self) -> int:
        return len(self.centres) + 1

    @classmethod
    def learn(cls, reference: Corpus, seed: int = 0) -> Self:
        random = np.random.default_rng(seed)
        places = random.permutation(len(reference))[:SAMPLE]
        part = reference.cut(places, reference.lengths[places])
        owner = np.repeat(np.arange(len(places)), part.lengths)
        pairs = np.unique(part.ids * len(places) + owner)
        found = np.bincount(pairs // len(places))
        found[found > max(COMMON * len(places), 2)] = 0
        words = np.argsort(-found, kind="stable")[:WORDS]
        words = np.sort(words[found[words] >= 2])
        if len(words) == 0:
            return cls(words, *(np.zeros(shape, dtype=np.float32) for shape in (0, (0, 1), (0, 1))))
        weights = np.log(len(places) / found[words]).astype(np.float32)
        table = _table(words, weights, part)
        axes = np.linalg.eigh(table.T @ table)[1][:, ::-1][:, :DIMENSIONS]
        points = _unit(table @ axes)
        points = points[np.abs(points).sum(axis=1) > 0]
        return cls(
            words, weights, axes, _centres(points, min(MOST_TOPICS, max(1, len(places) // DOCUMENTS_A_TOPIC)), random)
        )

    def points(self, corpus: Corpus) -> Floats:
        """Each document's direction: the sum of its different words' axes; zero if it has none of the words."""
        directions = np.zeros((len(corpus), self.axes.shape[1]), dtype=np.float32)
        pairs = _pairs(self.words, corpus)
        owner = pairs // max(len(self.words), 1)
        if len(pairs):
            vectors = (self.axes * self.weights[:, None])[pairs % len(self.words)]
            starts = np.flatnonzero(np.diff(owner, prepend=-1))
            directions[owner[starts]] = np.add.reduceat(vectors, starts, axis=0)
        return _unit(directions)

    def assign(self, corpus: Corpus) -> Ints:
        """The topic of each document."""
        if not len(self.centres):
            return np.zeros(len(corpus), dtype=np.int64)
        points = self.points(corpus)
        topics: Ints = np.argmax(points @ self.centres.T, axis=1)
        topics[np.abs(points).sum(axis=1) == 0] = len(self.centres)
        return topics

    def name(self, topic: int, spelled: list[str], words: int = 5) -> str:
        """A topic's heaviest words."""
        if topic == len(self.centres):
            return "(none of the usual words)"
        heaviest = np.argsort(-(self.axes @ self.centres[topic]))[:words]
        return ", ".join(spelled[self.words[i]] for i in heaviest)


def _pairs(words: Ints, corpus: Corpus) -> Ints:
    """(document) * (number of words) + (which word), once for each word that a document has, in order."""
    column = np.full(int(max(corpus.ids.max(initial=0), words.max(initial=0))) + 1, -1)
    column[words] = np.arange(len(words))
    where = column[corpus.ids]
    owner = np.repeat(np.arange(len(corpus)), corpus.lengths)
    return np.unique(owner[where >= 0] * len(words) + where[where >= 0], sorted=True)


def _table(words: Ints, weights: Floats, corpus: Corpus) -> Floats:
    """Documents by words: the word's weight where the document has it, rows of length one."""
    cells = np.zeros(len(corpus) * len(words), dtype=np.float32)
    cells[_pairs(words, corpus)] = 1
    return _unit(cells.reshape(len(corpus), len(words)) * weights)


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > LEAST_NORM, norms, np.inf)).astype(np.float32)


def _centres(points: Floats, count: int, random: np.random.Generator) -> Floats:
    centres = points[random.permutation(len(points))[:count]]
    for _ in range(ROUNDS):
        nearest = np.argmax(points @ centres.T, axis=1)
        sums = np.stack([points[nearest == k].sum(axis=0) for k in range(len(centres))])
        lost = np.abs(sums).sum(axis=1) == 0
        sums[lost] = centres[lost]
        centres = _unit(sums)
    return centres
