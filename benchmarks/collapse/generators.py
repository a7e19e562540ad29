"""A text generator fitted to documents, and seven regimes of training it on its own output.

The generator is an interpolated Kneser-Ney 4-gram (`filters.collapse.collapse_metrics`) with exact ancestral sampling. Knows word
numbers only.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.collapse.collapse_metrics import KEY_BASE, START_WORD, LanguageModel, NgramLevel

Ints = npt.NDArray[np.int64]

ORDER = 4
END = KEY_BASE - 2
LONGEST = 120
"""Length at which an unfinished document is truncated."""
NUCLEUS = 0.9


class Texts(NamedTuple):
    """Documents end to end."""

    ids: Ints
    lengths: Ints

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, places: Ints) -> "Texts":
        starts = np.cumsum(self.lengths) - self.lengths
        lengths = self.lengths[places]
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Texts(self.ids[np.repeat(starts[places], lengths) + within], lengths)

    def plus(self, *others: "Texts") -> "Texts":
        sides = (self, *others)
        return Texts(*(np.concatenate([getattr(side, name) for side in sides]) for name in Texts._fields))


class Generator(NamedTuple):
    model: LanguageModel
    sums: list[Ints]
    """By level: cumulative counts of the n-grams, starting with 0."""

    @classmethod
    def fit(cls, texts: Texts, *, nucleus: float | None = None) -> Self:
        """With `nucleus`, each history keeps only its most likely words up to that share (Holtzman et al. 2019)."""
        ends = np.cumsum(texts.lengths)
        model = LanguageModel.fit(np.insert(texts.ids, ends, END), texts.lengths + 1, ORDER)
        levels = [_truncate_level(level, nucleus) for level in model.levels] if nucleus else model.levels
        return cls(LanguageModel(levels), [np.concatenate([[0], np.cumsum(level.counts)]) for level in levels])

    def write(self, documents: int, random: np.random.Generator, longest: int = LONGEST) -> Texts:
        columns: list[Ints] = []
        histories = self._begin(documents)
        alive = np.ones(documents, dtype=bool)
        while alive.any() and len(columns) < longest:
            words = self._next(histories, random)
            columns.append(np.where(alive, words, END))
            alive &= words != END
            places = [level.find(histories[n], words) for n, level in enumerate(self.model.levels[:-1])]
            histories = [histories[0], *places]
        table = np.stack(columns, axis=1)
        return Texts(table[table != END], (table != END).sum(axis=1))

    def _begin(self, documents: int) -> list[Ints]:
        histories = [np.zeros(documents, dtype=np.int64)]
        start = np.full(documents, START_WORD)
        for level in self.model.levels[:-1]:
            histories.append(level.find(histories[-1], start))
        return histories

    def _next(self, histories: list[Ints], random: np.random.Generator) -> Ints:
        """Draw a word by its count, accept it with probability (c - D) / c, and otherwise draw from the next shorter history.

        This is exactly the interpolated distribution: c / total * (c - D) / c = (c - D) / total.
        """
        words = np.full(len(histories[0]), -1)
        for n in range(ORDER - 1, -1, -1):
            level, sums = self.model.levels[n], self.sums[n]
            open_ = np.flatnonzero((words < 0) & (histories[n] >= 0))
            open_ = open_[level.totals[histories[n][open_]] > 0]
            first = np.searchsorted(level.keys, histories[n][open_] * KEY_BASE)
            drawn = sums[first] + (random.random(len(open_)) * level.totals[histories[n][open_]]).astype(np.int64)
            place = np.searchsorted(sums, drawn, side="right") - 1
            taken = (random.random(len(open_)) * level.counts[place] >= level.discount) | (n == 0)
            words[open_[taken]] = level.keys[place[taken]] % KEY_BASE
        return words


def _truncate_level(level: NgramLevel, share: float) -> NgramLevel:
    owner = level.keys // KEY_BASE
    order = np.lexsort((-level.counts, owner))
    sums = np.cumsum(level.counts[order]) - level.counts[order]
    firsts = np.searchsorted(owner, owner)
    before = sums - sums[firsts]
    kept = np.zeros(len(order), dtype=bool)
    kept[order] = before < share * level.totals[owner[order]]
    counts = np.where(kept, level.counts, 0)
    size = len(level.totals)
    totals = np.bincount(owner, weights=counts, minlength=size).astype(np.int64)
    return level._replace(counts=counts, totals=totals, kinds=np.bincount(owner[counts > 0], minlength=size))


def generate_texts(real: Texts, regime: str, count: int, seed: int) -> Iterator[Texts]:
    """The output of each of `count` generations, with the same number of documents as the real text."""
    random = np.random.default_rng([seed, sorted(REGIMES).index(regime)])
    train, earlier = real, [real]
    for _ in range(count):
        written, train = REGIMES[regime](train, real, earlier, random)
        earlier.append(written)
        yield written


Step = tuple[Texts, Texts]


def _replace(train: Texts, real: Texts, earlier: list[Texts], random: np.random.Generator) -> Step:
    written = Generator.fit(train).write(len(real), random)
    return written, written


def _truncate(train: Texts, real: Texts, earlier: list[Texts], random: np.random.Generator) -> Step:
    written = Generator.fit(train, nucleus=NUCLEUS).write(len(real), random)
    return written, written


def _filter(train: Texts, real: Texts, earlier: list[Texts], random: np.random.Generator) -> Step:
    """Write twice the number of documents, and keep the half that is most likely under the generator."""
    generator = Generator.fit(train)
    twice = generator.write(2 * len(real), random)
    nats = generator.model.negative_log_likelihood(twice.ids, twice.lengths)
    written = twice.take(np.sort(np.argsort(np.where(twice.lengths, nats, np.inf), kind="stable")[: len(real)]))
    return written, written


def _accumulate(train: Texts, real: Texts, earlier: list[Texts], random: np.random.Generator) -> Step:
    written = Generator.fit(train).write(len(real), random)
    return written, train.plus(written)


def _verify(train: Texts, real: Texts, earlier: list[Texts], random: np.random.Generator) -> Step:
    """Write twice the number of documents, keep the half that looks most real, and accumulate.

    The score is the likelihood ratio of two bigram models: of real documents, and of the other half of the output.
    """
    twice = Generator.fit(train).write(2 * len(real), random)
    half = np.arange(len(twice)) % 2 == 0
    truth = LanguageModel.fit(real.ids, real.lengths, 2)
    score = np.zeros(len(twice))
    for side in (half, ~half):
        scored, other = twice.take(np.flatnonzero(side)), twice.take(np.flatnonzero(~side))
        made = LanguageModel.fit(other.ids, other.lengths, 2)
        score[side] = made.negative_log_likelihood(*scored) - truth.negative_log_likelihood(*scored)
    written = twice.take(np.sort(np.argsort(np.where(twice.lengths, -score, np.inf), kind="stable")[: len(real)]))
    return written, train.plus(written)


def _build_anchored_step(share: float) -> Callable[..., Step]:
    """Replacement with a share of real documents, sampled again for each generation."""

    def step(train: Texts, real: Texts, earlier: list[Texts], random: np.random.Generator) -> Step:
        written = Generator.fit(train).write(len(real), random)
        count = round(share * len(real))
        anchor = real.take(random.permutation(len(real))[:count])
        return written, written.take(random.permutation(len(written))[count:]).plus(anchor)

    return step


REGIMES: dict[str, Callable[..., Step]] = {
    "filtered": _filter,
    "truncated": _truncate,
    "replace": _replace,
    "anchor10": _build_anchored_step(0.1),
    "anchor30": _build_anchored_step(0.3),
    "accumulate": _accumulate,
    "verified": _verify,
}
