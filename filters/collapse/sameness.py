"""How much the texts of one dataset are alike in form, without a reference: openings, templates, self-BLEU. Knows neither
recipes nor what a value should be.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from core.runs.records import SamenessRecord
from filters.base import Document
from filters.collapse.collapse_metrics import ENDED, GAP, extract_skeletons
from filters.collapse.diversity import TokenSample, compute_effective_number, self_bleu
from filters.collapse.matched_samples import WORD_PATTERN, TokenCorpus, split_run
from filters.collapse.null_distribution import MAX_SAMPLE_DOCUMENTS
from filters.collapse.repetition import MIN_MEASURED_DOCUMENTS
from filters.collapse.text_kinds import PROSE

OPENING_WORDS = 2
"""Fewer than the openers of the collapse gate: `Given a` is an opening, whatever is given."""
COMMON_SHARE = 0.1
"""A word is rare in a dataset if it is in fewer texts than this share, or in one text only."""
MAX_SPACES = 4
"""Characters between a word and the mark before it."""
SENTENCE_ENDS = frozenset(".!?…:\"“”'‘(\n")


class TextSameness(NamedTuple):
    """How alike texts are. Self-BLEU rises and the share of openings falls with the number of texts: compare equal numbers."""

    texts: int
    opening: str
    """The most frequent first two words."""
    opening_share: float
    """Share of texts with this opening."""
    openings: float
    """Effective number of openings, from 1 to the number of texts: exp of their entropy."""
    template: str
    """The most frequent beginning as common words and gaps, `…`: numbers, names and rare words are gaps."""
    template_share: float
    """Share of texts with this template."""
    repeated_share: float
    """Share of texts with the words of the most frequent text."""
    self_bleu: float | None
    """Mean BLEU-4 of each text against all others, from 0 to 1 (Zhu et al. 2018). None if there is one text only."""


def measure_text_sameness(texts: Sequence[str]) -> TextSameness | None:
    """The sameness of the texts that have a word; None if no text has one."""
    spelled = [words for text in texts if (words := list(_iterate_words(text)))]
    if not spelled:
        return None
    vocabulary: dict[str, int] = {}
    corpus = TokenCorpus.from_words([[word.text for word in words] for words in spelled], vocabulary)
    sample = TokenSample(corpus.ids, corpus.lengths)
    openings = Counter(PROSE.join([word.text for word in words[:OPENING_WORDS]]) for words in spelled)
    templates = Counter(_list_templates(sample, _find_common_words(spelled, vocabulary), list(vocabulary)))
    opening, opened = openings.most_common(1)[0]
    template, shaped = templates.most_common(1)[0]
    return TextSameness(
        texts=len(spelled),
        opening=opening,
        opening_share=opened / len(spelled),
        openings=compute_effective_number(openings.values()),
        template=str(template),
        template_share=shaped / len(spelled),
        repeated_share=max(Counter(corpus.iterate_documents()).values()) / len(spelled),
        self_bleu=self_bleu(sample),
    )


def build_sameness_records(documents: Sequence[Document], *, seed: int) -> list[SamenessRecord]:
    """The sameness of the questions and of the answers of at most `MAX_SAMPLE_DOCUMENTS` documents."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(documents))[:MAX_SAMPLE_DOCUMENTS])
    drawn = [documents[place] for place in chosen]
    texts = {
        "questions": [document.question or document.asked for document in drawn],
        "answers": [d.text for d in drawn],
    }
    records = []
    for of, written in texts.items():
        found = measure_text_sameness(written)
        if found and found.texts >= MIN_MEASURED_DOCUMENTS:
            shown = {name: getattr(found, name) for name in SamenessRecord.model_fields if name != "of"}
            records.append(SamenessRecord(of=of, **shown))
    return records


# Words of texts


class SpelledWord(NamedTuple):
    text: str
    """In lower case."""
    named: bool
    """Whether a capital letter begins the word within a sentence."""


def _iterate_words(text: str) -> Iterator[SpelledWord]:
    for match in WORD_PATTERN.finditer(text):
        before = text[max(0, match.start() - MAX_SPACES) : match.start()].rstrip(" \t")[-1:]
        within = bool(before) and before not in SENTENCE_ENDS
        named = within and match.group()[0].isupper() and match.group() != "I"
        yield from (SpelledWord(unit, named) for unit in split_run(match.group().lower()))


def _find_common_words(spelled: Sequence[Sequence[SpelledWord]], vocabulary: dict[str, int]) -> list[int]:
    """The numbers of the words that are neither rare, nor numbers, nor mostly written as names."""
    holders = Counter(word for words in spelled for word in {word.text for word in words})
    used = Counter(word.text for words in spelled for word in words)
    named = Counter(word.text for words in spelled for word in words if word.named)
    least = max(2, COMMON_SHARE * len(spelled)) if len(spelled) > 1 else 1
    return [
        number
        for word, number in vocabulary.items()
        if holders[word] >= least and not re.search(r"\d", word) and 2 * named[word] < used[word]
    ]


def _list_templates(sample: TokenSample, common: Sequence[int], vocabulary: Sequence[str]) -> Iterator[Hashable]:
    """The template of each text. A text without a common word at its beginning is like no other."""
    rows = extract_skeletons(sample, np.array(common, dtype=np.int64))
    for number, row in enumerate(rows.tolist()):
        words = ["…" if word == GAP else vocabulary[word] for word in row if word != ENDED]
        yield PROSE.join(words) if any(word != "…" for word in words) else number
