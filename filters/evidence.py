"""A verdict in words: what was found, how far it is from real text, and examples from the texts. Judges nothing itself."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.run import PhraseRecord
from filters.diversity import Draw
from filters.families import ENDED, GAP, METRICS, NAMES, Background, opener_rows, skeleton_rows
from filters.reference import Reference
from filters.topics import Topics
from filters.verdict import Evidence, Judgement

Ints = npt.NDArray[np.int64]

EXAMPLES = 5
MISSING = 12
"""Missing words that are named."""


class Sides(NamedTuple):
    """What is compared: the candidate's draw and two of the reference."""

    draws: list[Draw]
    places: list[Ints]
    """Of the documents of these two in the reference."""
    topics: Ints
    """Of the candidate's documents before topics were matched."""
    real_topics: Ints
    """Of the reference's documents at the same lengths."""

    def topic_score(self, count: int) -> float:
        """How far the two sets of topics are apart, in normal deviations, by the likelihood-ratio test of homogeneity.

        Its statistic is near chi-square with as many degrees as topics less one (Wilks 1938), and the cube root of that
        near normal (Wilson and Hilferty 1931).
        """
        table = np.stack([np.bincount(one, minlength=count) for one in (self.topics, self.real_topics)]).astype(float)
        table = table[:, table.sum(axis=0) > 0]
        freedom = table.shape[1] - 1
        if freedom < 1:
            return 0.0
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
        terms = np.where(table > 0, table * np.log(np.maximum(table, 1) / expected), 0)
        statistic = 2 * float(terms.sum())
        spread = 2 / (9 * freedom)
        return float((np.cbrt(max(statistic, 0) / freedom) - (1 - spread)) / np.sqrt(spread))


class Beginnings(NamedTuple):
    """How several documents begin, the most frequent first."""

    openers: list[PhraseRecord]
    """By the first three words."""
    templates: list[PhraseRecord]
    """By common words and gaps."""


def beginnings(sides: Sides, reference: Reference) -> Beginnings:
    spelled, common = list(reference.vocabulary), reference.background().common
    openers = [opener_rows(draw) for draw in sides.draws]
    rows = [skeleton_rows(draw, common) for draw in sides.draws]
    whole = [some[some[:, -1] != ENDED] for some in rows]
    return Beginnings(
        _most(openers, sides, lambda word: spelled[word]),
        _most(whole, sides, lambda word: "…" if word == GAP else spelled[word]),
    )


def sentences(
    judgement: Judgement, evidence: Evidence, sides: Sides, reference: Reference, begin: Beginnings
) -> list[str]:
    """One sentence for each thing that was found, those that mean collapse first."""
    spelled, background = list(reference.vocabulary), reference.background()
    examples: dict[str, Callable[[], str]] = {
        "tail": lambda: _missing(sides, spelled),
        "repetition": lambda: _repeated(judgement.reasons["repetition"], begin),
        "strange": lambda: _strange(sides, spelled, background),
        "topics": lambda: _topics(sides, reference.topics, spelled),
    }
    words = {
        "tail": "TAIL: rare words are being lost",
        "repetition": "REPEAT: the same is said again",
        "likely": "FIDELITY: only likely text, as from cautious decoding or a filter by likelihood",
        "strange": "TAIL: words of no language stand where real text has rare ones",
        "steady": "TAIL: it has fewer rare words than real text, as every generation before it; the loss has stopped growing",
        "topics": "COVERAGE: it is about other things than the reference",
        "unlike": "FIDELITY: it is unlike real text on the same topics",
    }
    found = []
    for kind, text in words.items():
        if kind in judgement.reasons:
            numbers = ", ".join(_number(name, evidence) for name in judgement.reasons[kind] if name in NAMES)
            example = examples[kind]() if kind in examples else ""
            found.append(". ".join(part for part in (text + f" ({numbers})" * bool(numbers), example) if part))
    return found


def _number(name: str, evidence: Evidence) -> str:
    real, bad = evidence.real[name], METRICS[NAMES.index(name)].bad
    value = real + bad * evidence.change[name]
    return f"{name} {value:.4g} where real text has {real:.4g}, z {evidence.z[name]:+.1f}"


def _missing(sides: Sides, spelled: list[str]) -> str:
    """Words that both real draws have and this text has not, the most frequent first."""
    size = len(spelled)
    own, first, second = (np.bincount(draw.ids, minlength=size) for draw in sides.draws)
    lacking = np.where((own == 0) & (first > 0) & (second > 0), first + second, 0)
    most = [i for i in np.argsort(-lacking, kind="stable")[:MISSING] if lacking[i]]
    return f"Missing: {', '.join(spelled[i] for i in most)}" if most else ""


def _repeated(names: tuple[str, ...], begin: Beginnings) -> str:
    parts = []
    if {"openers", "exact_duplicates", "duplicate_8grams", "distinct_4"} & set(names):
        parts.append(f"Most frequent openings: {_listed(begin.openers)}")
    if "templates" in names:
        parts.append(f"Dominating patterns: {_listed(begin.templates)}")
    return ". ".join(parts)


def _listed(phrases: list[PhraseRecord]) -> str:
    return ", ".join(f"“{phrase.text}” {phrase.candidate:.1%}" for phrase in phrases)


def _most(rows: list[Ints], sides: Sides, spell: Callable[[int], str]) -> list[PhraseRecord]:
    own, *real = (Counter(map(tuple, some.tolist())) for some in rows)
    documents = len(sides.draws[0].lengths)
    return [
        PhraseRecord(
            text=" ".join(map(spell, phrase)),
            candidate=count / documents,
            reference=sum(counts[phrase] for counts in real) / (len(real) * documents),
        )
        for phrase, count in own.most_common(EXAMPLES)
        if count > 1
    ]


def _strange(sides: Sides, spelled: list[str], background: Background) -> str:
    counts = np.bincount(sides.draws[0].ids, minlength=len(spelled))
    strange = np.where((background.counts == 0) & ~background.listed, counts, 0)
    most = [i for i in np.argsort(-strange, kind="stable")[:MISSING] if strange[i]]
    return f"For example: {', '.join(spelled[i] for i in most)}" if most else ""


def _topics(sides: Sides, topics: Topics, spelled: list[str]) -> str:
    """The topics of the reference of which there is least here, and those of which there is most."""
    own, real = (np.bincount(one, minlength=topics.groups) / len(one) for one in (sides.topics, sides.real_topics))
    order = np.argsort(own - real, kind="stable")
    less = [f"“{topics.name(int(k), spelled)}” {own[k]:.1%} for {real[k]:.1%}" for k in order[:3] if real[k] > own[k]]
    more = [
        f"“{topics.name(int(k), spelled)}” {own[k]:.1%} for {real[k]:.1%}" for k in order[::-1][:3] if own[k] > real[k]
    ]
    parts = [f"Less than the reference of {', '.join(less)}"] * bool(less) + [f"more of {', '.join(more)}"] * bool(more)
    return "; ".join(parts)
