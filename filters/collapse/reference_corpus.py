"""Real text and what is computed from it once: its vocabulary, its topics, and which words are English. Knows no candidate."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from core.embeddings import VOCABULARY_FILE
from filters.collapse.collapse_metrics import COMMON_WORDS, WordBackground
from filters.collapse.diversity import DiversityMetrics, TokenSample, measure_diversity
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.collapse.topics import TopicModel

Ints = npt.NDArray[np.int64]

MOST_DOCUMENTS = 30_000
"""Three samples of the largest compared size."""


class ReferenceCorpus(NamedTuple):
    """Real text with its vocabulary and topics."""

    name: str
    corpus: TokenCorpus
    vocabulary: dict[str, int]
    topics: TopicModel

    @classmethod
    def from_texts(cls, texts: Sequence[str], name: str) -> Self:
        """From at most `MOST_DOCUMENTS` of the texts; texts without a word are left out."""
        vocabulary: dict[str, int] = {}
        chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST_DOCUMENTS])
        documents = [words for i in chosen if (words := split_into_words(texts[i]))]
        return cls.from_corpus(TokenCorpus.from_words(documents, vocabulary), vocabulary, name)

    @classmethod
    def from_corpus(cls, corpus: TokenCorpus, vocabulary: dict[str, int], name: str) -> Self:
        return cls(name, corpus, vocabulary, TopicModel.of(corpus))

    def build_background(self) -> WordBackground:
        """Properties of all words that are now in the vocabulary."""
        counts = np.bincount(self.corpus.ids, minlength=len(self.vocabulary))
        known = load_english_words()
        listed = np.fromiter((word in known or word.isdigit() for word in self.vocabulary), bool, len(self.vocabulary))
        return WordBackground(counts, np.argsort(-counts, kind="stable")[:COMMON_WORDS], listed)

    def measure_diversity(self, draw: TokenSample) -> DiversityMetrics:
        """The diversity metrics, which do not affect the verdict."""
        points = self.topics.compute_directions(
            TokenCorpus(draw.ids, np.cumsum(draw.lengths) - draw.lengths, draw.lengths)
        )
        return measure_diversity(draw, points, list(self.vocabulary), draw.tokens)


@cache
def load_english_words() -> frozenset[str]:
    """The whole words of the vocabulary of a BERT model (Devlin et al. 2019, 30,522 pieces)."""
    return frozenset(word for word in VOCABULARY_FILE.read_text(encoding="utf-8").split("\n") if word.isalpha())
