"""Corpora with planted near-duplicates whose similarity is known: counted on words, before anything is hashed.

Documents are walks over the words of `data/reference/english.jsonl`: a word is followed by one that followed it there, or,
three times in ten, by any. So words and their lengths are English, and five words in a row are seldom met twice. One
document in ten opens with one of 200 sentences. In a templated corpus, 70 % of each document is one of five templates.
"""

import json
import math
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from filters.text_normalization import normalize_words

REFERENCE = Path(__file__).resolve().parent.parent / "data" / "reference" / "english.jsonl"
WORDS = 109
"""Mean length of a document."""
NGRAM = 5
OPENERS = 200
TEMPLATES = 5
TEMPLATED = 0.7
JUMPS = 0.3
TARGETS = (1.0, 0.95, 0.85, 0.75, 0.6, 0.4)
"""Similarities of the planted variants, give or take 0.02: one third lies close to a threshold of 0.8, on either side."""
VARIANTS = 0.16
"""Share of documents that are a variant of an earlier one, in plain text; in a templated corpus `TEMPLATED_VARIANTS`."""
TEMPLATED_VARIANTS = 0.05
BATCH = 20_000

Numbers = npt.NDArray[np.int64]


class PlantedPair(NamedTuple):
    """Two rows, the earlier one first, and the Jaccard similarity of their sets of five words in a row."""

    earlier: int
    later: int
    similarity: float


class ReferenceWords(NamedTuple):
    vocabulary: list[str]
    tokens: Numbers
    """The reference, word by word."""
    followers: Numbers
    """Positions in `tokens`, those after one word together."""
    starts: Numbers
    """Where the followers of each word begin, and at last where those of the last word end."""


@cache
def read_words() -> ReferenceWords:
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    words = [word for line in lines for word in normalize_words(json.loads(line)["text"]) if word.isascii()]
    vocabulary, tokens = np.unique(words, return_inverse=True)
    order = np.argsort(tokens[:-1], kind="stable")
    starts = np.searchsorted(tokens[:-1][order], np.arange(len(vocabulary) + 1))
    return ReferenceWords([str(word) for word in vocabulary], tokens, order + 1, starts)


def draw_walks(words: ReferenceWords, count: int, length: int, chance: np.random.Generator) -> Numbers:
    """`count` texts of `length` words, as numbers."""
    out = np.empty((count, length), dtype=np.int64)
    out[:, 0] = words.tokens[chance.integers(0, len(words.tokens), count)]
    for step in range(1, length):
        last = out[:, step - 1]
        many = words.starts[last + 1] - words.starts[last]
        jump = (chance.random(count) < JUMPS) | (many == 0)
        next_place = words.followers[
            np.minimum(words.starts[last] + (chance.random(count) * many).astype(int), len(words.followers) - 1)
        ]
        out[:, step] = words.tokens[np.where(jump, chance.integers(0, len(words.tokens), count), next_place)]
    return out


def edit_text(text: Numbers, target: float, words: ReferenceWords, chance: np.random.Generator) -> Numbers:
    """`text` edited so that about `target` of the shingles of both are shared: words put in, cut off or replaced."""
    size = max(1, len(text) - NGRAM + 1)
    lost = size * (1 - target) / (1 + target)
    kind = int(chance.integers(0, 4))
    if lost < 1:
        return text
    new = words.tokens[chance.integers(0, len(words.tokens), size)]
    if kind == 0:
        return text[: len(text) - round(size * (1 - target))]
    if kind == 1:
        return np.concatenate((text, new[: round(size * (1 / target - 1))]))
    out = text.copy()
    if kind == 2 and lost > NGRAM:
        run = round(lost) - NGRAM + 1
        at = int(chance.integers(NGRAM, max(NGRAM + 1, len(text) - run - NGRAM)))
        out[at : at + run] = new[:run]
        return out
    places = np.arange(NGRAM - 1, len(text) - NGRAM, NGRAM)
    some = chance.choice(places, min(len(places), max(1, round(lost / NGRAM))), replace=False)
    out[some] = new[: len(some)]
    return out


def list_shingles(text: Numbers) -> set[tuple[int, ...]]:
    numbers = text.tolist()
    return {tuple(numbers[i : i + NGRAM]) for i in range(max(1, len(numbers) - NGRAM + 1))}


def jaccard_similarity(left: Numbers, right: Numbers) -> float:
    one, other = list_shingles(left), list_shingles(right)
    return len(one & other) / len(one | other)


class PlantedCorpus:
    """`rows` documents, made batch by batch, with what was planted in each batch. A variant follows its original within
    its batch of `BATCH` rows; the batches are shuffled.
    """

    def __init__(self, rows: int, *, templated: bool = False, seed: int = 1) -> None:
        self._rows = rows
        self._templated = templated
        self._chance = np.random.default_rng(seed)
        self._words = read_words()
        self._openers = draw_walks(self._words, OPENERS, 20, self._chance)
        self._templates = draw_walks(self._words, TEMPLATES, 2 * WORDS, self._chance)

    def batches(self) -> Iterator[tuple[list[str], list[PlantedPair]]]:
        for first in range(0, self._rows, BATCH):
            yield self._batch(first, min(BATCH, self._rows - first))

    def _batch(self, first: int, count: int) -> tuple[list[str], list[PlantedPair]]:
        variants = round(count * (TEMPLATED_VARIANTS if self._templated else VARIANTS))
        texts = self._originals(count - variants)
        clusters: list[list[int]] = []
        while variants > 0:
            original = len(clusters)
            few = min(variants, 1 if self._chance.random() < 0.8 else int(self._chance.integers(2, 5)))
            clusters.append([original, *range(len(texts), len(texts) + few)])
            texts += [edit_text(texts[original], self._target(), self._words, self._chance) for _ in range(few)]
            variants -= few
        places = self._chance.permutation(len(texts))
        pairs = [(a, b) for cluster in clusters for i, a in enumerate(cluster) for b in cluster[i + 1 :]]
        where = (first + places).tolist()
        planted = [
            PlantedPair(min(where[a], where[b]), max(where[a], where[b]), jaccard_similarity(texts[a], texts[b]))
            for a, b in pairs
        ]
        names = np.array(self._words.vocabulary, dtype=object)
        shuffled = np.empty(len(texts), dtype=object)
        for place, text in zip(places, texts, strict=True):
            shuffled[place] = " ".join(names[text])
        return list(shuffled), planted

    def _target(self) -> float:
        kinds = TARGETS[:3] if self._templated else TARGETS
        return min(1.0, float(self._chance.choice(kinds)) + float(self._chance.uniform(-0.02, 0.02)))

    def _originals(self, count: int) -> list[Numbers]:
        lengths = np.clip(self._chance.lognormal(math.log(WORDS) - 0.045, 0.3, count), 20, 2 * WORDS - 20).astype(int)
        walked = draw_walks(self._words, count, 2 * WORDS, self._chance)
        own = [walked[i, :length] for i, length in enumerate(lengths)]
        if self._templated:
            which = self._chance.integers(0, TEMPLATES, count)
            return [self._filled(self._templates[k], text) for k, text in zip(which, own, strict=True)]
        opened = self._chance.random(count) < 0.1
        which = self._chance.integers(0, OPENERS, count)
        return [
            np.concatenate((self._openers[k], text[20:])) if yes else text
            for k, yes, text in zip(which, opened, own, strict=True)
        ]

    def _filled(self, template: Numbers, text: Numbers) -> Numbers:
        """The template's beginning and end, around words of its own."""
        shared = round(len(text) * TEMPLATED)
        half = shared // 2
        return np.concatenate((template[:half], text[: len(text) - shared], template[half:shared]))


def write_corpus(rows: int, folder: Path, *, templated: bool = False, seed: int = 1) -> None:
    """`text.parquet` and `planted.parquet` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: list[pl.Series] = []
    planted: list[PlantedPair] = []
    for batch, pairs in PlantedCorpus(rows, templated=templated, seed=seed).batches():
        texts.append(pl.Series("text", batch))
        planted += pairs
    pl.DataFrame(pl.concat(texts)).write_parquet(folder / "text.parquet", row_group_size=BATCH)
    pl.DataFrame(planted, schema=["earlier", "later", "similarity"], orient="row").write_parquet(
        folder / "planted.parquet"
    )


if __name__ == "__main__":
    write_corpus(int(sys.argv[1]), Path(sys.argv[2]), templated=sys.argv[3:] == ["templated"])
