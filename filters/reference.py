"""Real text, and what is learnt from it once: its words, its topics, which of its words are English. Knows no candidate."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.diversity import Draw, Shown, shown
from filters.draws import Corpus, tokens
from filters.families import COMMON_WORDS, Background
from filters.topics import Topics

Ints = npt.NDArray[np.int64]

MOST_DOCUMENTS = 30_000
"""Three draws of the largest size that is compared."""
VOCABULARY = Path(__file__).with_name("minilm_vocabulary.txt")


class Reference(NamedTuple):
    """Real text, with what is learnt from it once."""

    name: str
    corpus: Corpus
    vocabulary: dict[str, int]
    topics: Topics

    @classmethod
    def of(cls, texts: Sequence[str], name: str) -> Self:
        """Of MOST_DOCUMENTS at most; texts without a word are left out."""
        vocabulary: dict[str, int] = {}
        chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST_DOCUMENTS])
        documents = [words for i in chosen if (words := tokens(texts[i]))]
        return cls.learn(Corpus.of(documents, vocabulary), vocabulary, name)

    @classmethod
    def learn(cls, corpus: Corpus, vocabulary: dict[str, int], name: str) -> Self:
        return cls(name, corpus, vocabulary, Topics.learn(corpus))

    def background(self) -> Background:
        """Of all words in the vocabulary by now."""
        counts = np.bincount(self.corpus.ids, minlength=len(self.vocabulary))
        known = english()
        listed = np.fromiter((word in known or word.isdigit() for word in self.vocabulary), bool, len(self.vocabulary))
        return Background(counts, np.argsort(-counts, kind="stable")[:COMMON_WORDS], listed)

    def shown(self, draw: Draw) -> Shown:
        """The diversity numbers that do not gate."""
        points = self.topics.points(Corpus(draw.ids, np.cumsum(draw.lengths) - draw.lengths, draw.lengths))
        return shown(draw, points, list(self.vocabulary), draw.tokens)


@cache
def english() -> frozenset[str]:
    """The whole words of the vocabulary of a BERT model (Devlin et al. 2019, 30,522 pieces)."""
    return frozenset(word for word in VOCABULARY.read_text(encoding="utf-8").split("\n") if word.isalpha())
