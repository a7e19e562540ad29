"""The collapse gate: is a set of texts poorer than real text, in what way, how sure is that, and for example where.

All that is compared has the same number of documents, of the same topics and lengths. Knows words, no meaning: whether
what the texts say is true or good is not seen here.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.run import CollapseRecord, CollapseVerdict, MetricRecord
from filters.diversity import Draw
from filters.draws import Corpus, alike, equal_lengths, matched, tokens
from filters.evidence import Sides, beginnings, sentences
from filters.families import METRICS, NAMES, Comparison, compared, measured
from filters.null import LARGEST, Null, null_of, null_size
from filters.reference import Reference
from filters.trend import Tail, Trend, trend_over
from filters.verdict import POWERED_DOCUMENTS, Evidence, deviations, judge, scores

Ints = npt.NDArray[np.int64]

FEWEST_DOCUMENTS = 10
"""Below this nothing is compared."""
FEWEST_REAL = 3 * FEWEST_DOCUMENTS
DRAWS = 2
POOL, LEAST_POOL = 5, 5_000
"""So many documents of the reference are looked at for each of the candidate's, to find some on the same topics."""
SHOWN = {
    "types": ("different words in the text", math.inf),
    "distinct_2": ("different pairs of words among all pairs", 1.0),
    "self_bleu": ("how far a document can be pieced together from the others", 1.0),
    "compression_ratio": ("how many times smaller the text gets by compression", math.inf),
    "vendi": ("effective number of different documents, by the words they share", math.inf),
}
BLIND = (
    "These are shown, not gating: a model trained on its own output at temperature 1 keeps or raises them while it loses "
    "half of its words."
)
REACH = 2.0
"""The range of real text is this many deviations to both sides of the real draws' mean: 19 in 20."""


def measure(
    candidate: Sequence[str],
    reference: Sequence[str],
    *,
    name: str,
    seed: int,
    cache: Path | None = None,
    before: Sequence[CollapseRecord] = (),
) -> CollapseRecord:
    """Judge `candidate` by real text. The null of the reference is kept in `cache`.

    `before` are the comparisons of the generations that it builds on, from the first: a loss of rare words that has stopped
    growing is no collapse.
    """
    real = Reference.of(reference, name)
    texts = [words for text in candidate if (words := tokens(text))]
    return assess(Corpus.of(texts, real.vocabulary), real, seed=seed, cache=cache, before=before)


class Examined(NamedTuple):
    """What was found of a candidate, before it is judged."""

    sides: Sides
    comparison: Comparison
    null: Null
    evidence: Evidence


def assess(
    candidate: Corpus,
    reference: Reference,
    *,
    seed: int,
    cache: Path | None = None,
    before: Sequence[CollapseRecord] = (),
) -> CollapseRecord:
    """`measure` for documents whose words have numbers of the reference's vocabulary."""
    found = examine(candidate, reference, seed=seed, cache=cache)
    if found is None:
        return _nothing(candidate, reference)
    documents, tail = found.evidence.documents, round(found.evidence.tail, 2)
    told = trend_over([*filter(None, map(Tail.of, before)), Tail(reference.name, documents, tail)])
    judgement = judge(found.evidence, steady=isinstance(told, Trend) and told.steady)
    begin = beginnings(found.sides, reference)
    size = found.sides.draws[0].tokens
    reach = REACH * deviations(found.null, size, documents)
    records = [_record(i, found.comparison, float(reach[i]), found.evidence.z[NAMES[i]]) for i in range(len(METRICS))]
    return CollapseRecord(
        verdict=judgement.verdict,
        evidence=sentences(judgement, found.evidence, found.sides, reference, begin),
        reference=reference.name,
        documents=documents,
        tokens=size,
        tail=tail,
        metrics=[*records, *_shown(found.sides.draws, reference, found.null)],
        openers=begin.openers,
        templates=begin.templates,
        note=_note(judgement.verdict, found, len(candidate), reference),
    )


def examine(candidate: Corpus, reference: Reference, *, seed: int, cache: Path | None = None) -> Examined | None:
    """Draw documents of both sides and compare them; None if there are too few on topics that both have.

    Documents of the reference that the candidate has too are left out.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(candidate))[:LARGEST])
    others = np.flatnonzero(~reference.corpus.holds(candidate))
    others = np.sort(random.permutation(others)[: max(LEAST_POOL, POOL * len(chosen))])
    if len(chosen) < FEWEST_DOCUMENTS or len(others) < FEWEST_REAL:
        return None
    cuts = alike(candidate.lengths[chosen], reference.corpus.lengths[others])
    mine, theirs = candidate.cut(chosen, cuts[0]), reference.corpus.cut(others, cuts[1])
    topics, real_topics = reference.topics.assign(mine), reference.topics.assign(theirs)
    own, *real = matched(topics, real_topics, reference.topics.groups, DRAWS, random)
    if len(own) < FEWEST_DOCUMENTS:
        return None
    places = [own, *real]
    corpora = [mine, theirs, theirs]
    lengths = equal_lengths([corpus.lengths[place] for corpus, place in zip(corpora, places, strict=True)])
    draws = [corpus.draw(*pair) for corpus, *pair in zip(corpora, places, lengths, strict=True)]
    whole = [others[one] for one in real]
    return _compared(Sides(draws, whole, topics, real_topics), reference, cache)


def _compared(sides: Sides, reference: Reference, cache: Path | None) -> Examined:
    background = reference.background()
    apart = [reference.corpus.counts(sides.places[k], len(background.counts)) for k in (0, 0, 1)]
    own, first, second = (measured(draw, background, out) for draw, out in zip(sides.draws, apart, strict=True))
    comparison = compared(own, first, second)
    documents, size = len(own.draw.lengths), own.draw.tokens
    null = null_of(reference, null_size(documents, len(reference.corpus)), cache)
    evidence = Evidence(
        z=scores(comparison, null, size, documents),
        change={m.name: m.bad * float(d) for m, d in zip(METRICS, comparison.difference, strict=True)},
        real=dict(zip(NAMES, map(float, comparison.real), strict=True)),
        topics=sides.topic_score(reference.topics.groups),
        documents=documents,
    )
    return Examined(sides, comparison, null, evidence)


def _record(i: int, comparison: Comparison, reach: float, z: float) -> MetricRecord:
    metric, real = METRICS[i], float(comparison.real[i])
    low = real - reach if metric.name in {"surprise", "reverse_surprise"} else max(0.0, real - reach)
    return MetricRecord(
        name=metric.name, candidate=float(comparison.values[i]), reference=real, low=low, high=min(metric.most, real + reach),
        meaning=metric.meaning, family=metric.family, z=round(z, 2),
    )  # fmt: skip


def _shown(draws: Sequence[Draw], reference: Reference, null: Null) -> list[MetricRecord]:
    """What people expect to see."""
    own, *real = (reference.shown(draw) for draw in draws)
    records = []
    for name, (meaning, most) in SHOWN.items():
        values = [getattr(one, name) for one in real]
        if None in values or getattr(own, name) is None:
            continue
        mean, reach = sum(values) / DRAWS, REACH * null.shown.get(name, 0.0) * math.sqrt(1 + 1 / DRAWS)
        records.append(
            MetricRecord(
                name=name, candidate=getattr(own, name), reference=mean, low=max(0.0, mean - reach),
                high=min(most, mean + reach), meaning=f"shown, not gating: {meaning}",
            )
        )  # fmt: skip
    return records


def _nothing(candidate: Corpus, reference: Reference) -> CollapseRecord:
    others = int(np.count_nonzero(~reference.corpus.holds(candidate)))
    why = (
        f"{len(candidate)} documents have words in them, of which {FEWEST_DOCUMENTS} are needed on topics of the reference; "
        f"{len(reference.corpus)} of the reference have, of which {others} are not in the dataset too, and {FEWEST_REAL} are "
        "needed."
    )
    return CollapseRecord(
        verdict=CollapseVerdict.under_powered,
        evidence=[why],
        reference=reference.name,
        documents=0,
        tokens=0,
        metrics=[],
        note="Nothing was compared, so this says nothing about collapse.",
    )


def _note(verdict: CollapseVerdict, found: Examined, candidates: int, reference: Reference) -> str:
    documents, words = found.evidence.documents, found.sides.draws[0].tokens
    first = {
        CollapseVerdict.collapse: "Collapse: poorer than the reference in more than real text varies",
        CollapseVerdict.under_powered: "UNDER-POWERED, which is no pass",
        CollapseVerdict.shift: "Shift: unlike the reference, without a sign that it is poorer",
        CollapseVerdict.passed: "Pass: nothing was found beyond what real text varies by",
    }[verdict]
    few = (
        f" Below {POWERED_DOCUMENTS:,} documents only templates, copies and cautious decoding show; a loss of rare words "
        "need not."
        if documents < POWERED_DOCUMENTS
        else ""
    )
    return (
        f"{first}, at {documents:,} documents.{few} Compared: {documents:,} of {candidates:,} documents with two draws of "
        f"{documents:,} from {len(reference.corpus):,} of the reference, of the same topics and lengths, {words:,} words "
        f"each. z counts the deviations by which real text differs from real text. {BLIND}"
    )
