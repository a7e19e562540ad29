"""Real text and what is computed from it once: its vocabulary, its topics, and which words are English. Knows no candidate."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from core.weights.embeddings import VOCABULARY_FILE
from filters.collapse.code_structure import measure_code_names
from filters.collapse.collapse_metrics import COMMON_WORDS, WordBackground
from filters.collapse.diversity import DiversityMetrics, TokenSample, measure_diversity
from filters.collapse.matched_samples import WORD_PATTERN, TokenCorpus
from filters.collapse.text_kinds import PROSE, TextKind
from filters.collapse.topics import TopicModel
from filters.text_normalization import ENGLISH_WORD, MIN_JUDGED_WORDS

Ints = npt.NDArray[np.int64]

MOST_DOCUMENTS = 30_000
"""Three samples of the largest compared size."""
MIN_LISTED_SHARE = 0.7
"""Least share of a reference's words that are in the English word list, for a word that is not listed to be strange. In the four
English corpora it is 0.86 to 0.94, in German ones 0.38 and 0.40, in Spanish ones 0.52 and 0.54."""

MAX_OTHER_SHARE = 0.05
"""Largest share of documents in other languages in an English dataset. Their words are in no English list; in a twentieth of the
documents, they made up no finding in two datasets, one German and one French, of a probe."""

MIN_LOWER_SHARE = 0.2
"""Share of a word's occurrences in lower case from which it is no name: its capitals are those of beginnings of sentences."""


class ReferenceCorpus(NamedTuple):
    """Real text with its vocabulary and topics. Words are the units of its kind."""

    name: str
    corpus: TokenCorpus
    vocabulary: dict[str, int]
    topics: TopicModel
    kind: TextKind
    outlines: dict[str, int]
    """Numbers of the templates, where the kind outlines whole documents."""
    groups: Ints | None = None
    """By document: the number of the text that it is a passage of. Passages of a text share words that other texts lack. None
    where every document is a text of its own."""
    texts: Sequence[str] = ()
    """The documents as they are written; empty where they are not at hand."""

    @classmethod
    def from_texts(
        cls, texts: Sequence[str], name: str, kind: TextKind = PROSE, origins: Sequence[str] | None = None
    ) -> Self:
        """From at most `MOST_DOCUMENTS` of the texts; texts without a word are left out. `origins`: what each is a passage of."""
        chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[:MOST_DOCUMENTS])
        groups = None
        if origins is not None and 1 < len(set(origins)) < len(origins):
            chosen = np.array([i for i in chosen if kind.split(texts[i])], dtype=np.int64)
            groups = np.unique([origins[i] for i in chosen], return_inverse=True)[1].reshape(-1).astype(np.int64)
        vocabulary: dict[str, int] = {}
        outlines: dict[str, int] = {}
        texts = [texts[i] for i in chosen]
        corpus = number_units(texts, kind, vocabulary, outlines)
        return cls(name, corpus, vocabulary, TopicModel.of(corpus), kind, outlines, groups, texts)

    @classmethod
    def from_corpus(cls, corpus: TokenCorpus, vocabulary: dict[str, int], name: str, kind: TextKind = PROSE) -> Self:
        return cls(name, corpus, vocabulary, TopicModel.of(corpus), kind, {})

    def shuffle_documents(self, random: np.random.Generator) -> Ints:
        """All places in random order, those of one text together."""
        order = random.permutation(len(self.corpus))
        if self.groups is None:
            return order
        drawn = random.permutation(int(self.groups.max(initial=0)) + 1)[self.groups]
        return order[np.argsort(drawn[order], kind="stable")]

    def number_texts(self, texts: Sequence[str]) -> TokenCorpus:
        """The texts that have a word, as numbers of this reference's vocabulary, which grows by their new words."""
        return number_units(texts, self.kind, self.vocabulary, self.outlines)

    def spell_units(self) -> list[str]:
        """The vocabulary as the documents write it: in lower case where a fifth of the occurrences are, else as most of them."""
        if not (self.texts and self.kind.folds_case):
            return list(self.vocabulary)
        counts = Counter(word for text in self.texts for word in WORD_PATTERN.findall(text))
        spelled: dict[str, tuple[int, str]] = {}
        totals: Counter[str] = Counter()
        for word, count in counts.items():
            unit = word.lower()
            totals[unit] += count
            spelled[unit] = max(spelled.get(unit, (0, unit)), (count, word))
        return [
            unit if unit not in spelled or counts[unit] >= MIN_LOWER_SHARE * totals[unit] else spelled[unit][1]
            for unit in self.vocabulary
        ]

    def find_held_metrics(self, candidate: TokenCorpus) -> frozenset[str]:
        """The metrics that hold for its kind; `strange_words` needs a language of which there is a word list, on both sides."""
        background = self.build_background()
        listed = background.counts[background.listed].sum() >= MIN_LISTED_SHARE * background.counts.sum()
        is_english = np.fromiter((bool(ENGLISH_WORD.fullmatch(word)) for word in self.vocabulary), bool)
        words = np.add.reduceat(is_english[candidate.ids], candidate.starts, dtype=np.int64)
        other = (words == 0) & (candidate.lengths >= MIN_JUDGED_WORDS)
        is_judged = listed and other.mean() <= MAX_OTHER_SHARE
        return self.kind.metrics if is_judged else self.kind.metrics - {"strange_words"}

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
        spelled = list(self.vocabulary)
        metrics = measure_diversity(draw, points, spelled, draw.tokens)
        return metrics._replace(**measure_code_names(draw, spelled)._asdict()) if self.kind.name == "code" else metrics


def number_units(
    texts: Sequence[str], kind: TextKind, vocabulary: dict[str, int], outlines: dict[str, int]
) -> TokenCorpus:
    """The texts that have a unit. A document without a template is like no other: its number is negative and its own."""
    split = [(text, units) for text in texts if (units := kind.split(text))]
    corpus = TokenCorpus.from_words([units for _, units in split], vocabulary)
    if kind.outline is None:
        return corpus
    numbers, places = np.zeros((2, len(split)), dtype=np.int64)
    first: dict[str, int] = {}
    for place, (text, _) in enumerate(split):
        outline = kind.outline(text)
        numbers[place] = -1 - place if outline is None else outlines.setdefault(outline, len(outlines))
        places[place] = first.setdefault(text, place)
    return TokenCorpus(corpus.ids, corpus.starts, corpus.lengths, numbers, places)


@cache
def load_english_words() -> frozenset[str]:
    """The whole words of the vocabulary of a BERT model (Devlin et al. 2019, 30,522 pieces)."""
    return frozenset(word for word in VOCABULARY_FILE.read_text(encoding="utf-8").split("\n") if word.isalpha())
