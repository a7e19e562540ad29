"""The collapse assessment: whether a set of texts is poorer than real text, in what way, with what confidence, and examples.

All compared samples have the same number of documents, topics and lengths. Knows words, not meaning: whether the texts are true
or good is not measured.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.runs.collapse_facts import MIN_CONCLUSIVE_DOCUMENTS
from core.runs.records import CollapseRecord, CollapseVerdict, MetricRecord
from core.runs.verdict_words import format_count
from filters.collapse.collapse_metrics import (
    COLLAPSE_METRICS,
    COPY_WORDS,
    METRIC_NAMES,
    MetricComparison,
    WordBackground,
    compare_samples,
    exact_duplicate_share,
    measure_sample,
    number_openers,
    number_skeletons,
)
from filters.collapse.collapse_verdict import (
    CollapseDecision,
    MetricEvidence,
    compute_deviations,
    compute_z_scores,
    decide_collapse,
)
from filters.collapse.diversity import TokenSample
from filters.collapse.explanation import (
    ComparedSides,
    explain_verdict,
    find_frequent_beginnings,
    find_repeated_examples,
)
from filters.collapse.matched_samples import TokenCorpus, equalize_lengths, match_lengths, match_topics
from filters.collapse.null_distribution import (
    MAX_SAMPLE_DOCUMENTS,
    NullDistribution,
    choose_null_size,
    load_null_distribution,
)
from filters.collapse.power import MIN_POWER_DOCUMENTS, LossPower, compute_loss_power, find_loss_deviation
from filters.collapse.reference_corpus import ReferenceCorpus
from filters.collapse.sampling_error import Interval, estimate_document_share, estimate_pairs, estimate_shared_ngrams
from filters.collapse.tail_trend import TailLoss, TailTrend, find_tail_trend
from filters.collapse.text_kinds import PROSE, HeldValues, TextKind, find_kind, has_kind

Ints = npt.NDArray[np.int64]

MIN_COMPARED_DOCUMENTS = 10
"""Below this number, nothing is compared."""
MIN_REFERENCE_DOCUMENTS = 3 * MIN_COMPARED_DOCUMENTS
REFERENCE_SAMPLES = 2
POOL, LEAST_POOL = 5, 5_000
"""Documents of the reference per document of the candidate, and at least, that are searched for the same topics."""
ORIGIN_REASONS = ("tail", "repetition", "strange", "steady", "uncertain")
"""Findings that real data of one origin also shows against another: real Python projects have fewer rare tokens and more common
8-grams than the standard library (`benchmarks/README.md`, references of the same kind)."""
DIVERSITY_METRICS = {
    "types": ("different words in the text", math.inf),
    "distinct_2": ("different pairs of words among all pairs", 1.0),
    "self_bleu": ("similarity of each document to all others, BLEU-4", 1.0),
    "compression_ratio": ("bytes over compressed bytes", math.inf),
    "vendi": ("effective number of different documents, by shared words", math.inf),
}
"""They do not affect the verdict: a model trained on its own output at temperature 1 keeps or raises them while it loses half of
its words."""
CODE_NAME_METRICS = {
    "identifiers": ("effective number of different names", math.inf),
    "called_names": ("effective number of different names that are called", math.inf),
}
"""Of code only; not calibrated, so they do not affect the verdict either."""
RANGE_DEVIATIONS = 2.0
"""The range of real text is this many deviations on both sides of the mean of its samples: 19 in 20."""


def assess_texts(
    candidate: Sequence[str],
    reference: Sequence[str],
    *,
    name: str,
    seed: int,
    cache: Path | None = None,
    before: Sequence[CollapseRecord] = (),
    generated: bool = True,
    kind: TextKind | None = None,
    origins: Sequence[str] | None = None,
    general: bool = False,
) -> CollapseRecord:
    """Compare `candidate` with real text. The null distribution of the reference is kept in `cache`.

    `kind`: of both sides; without it, it is found from the texts. Nothing is compared if the reference is of another kind.
    `origins`: the text that each document of the reference is a passage of. `general`: the reference is of other origin than any
    dataset, as a standard library is: only likely text is a collapse then, since real data of one origin also has fewer rare
    words and more set phrases than another.
    `before`: the records of earlier generations, oldest first; a loss of rare words that has stopped growing is not a collapse.
    `generated`: whether a teacher is known to have written the texts, which the advice depends on.
    """
    kind = kind or find_kind(candidate)
    if not has_kind(reference, kind) or (kind is PROSE and find_kind(reference) is not PROSE):
        return build_mismatch_record(kind, find_kind(reference), name)
    if len(candidate) < MIN_COMPARED_DOCUMENTS:  # to count the words of the reference would take seconds
        documents = sum(bool(kind.split(text)) for text in candidate)
        return _build_empty_record(kind, _describe_sides(kind, name, documents, len(reference), shared=0))
    real = ReferenceCorpus.from_texts(reference, name, kind, origins)
    return assess_corpus(
        real.number_texts(candidate), real, seed=seed, cache=cache, before=before, generated=generated, general=general
    )


class ReferenceComparison(NamedTuple):
    """A candidate compared with the reference, before the verdict."""

    sides: ComparedSides
    comparison: MetricComparison
    null: NullDistribution
    evidence: MetricEvidence


def assess_corpus(
    candidate: TokenCorpus,
    reference: ReferenceCorpus,
    *,
    seed: int,
    cache: Path | None = None,
    before: Sequence[CollapseRecord] = (),
    generated: bool = True,
    general: bool = False,
) -> CollapseRecord:
    """`assess_texts` for documents whose words are numbered by the reference's vocabulary."""
    compared = compare_with_reference(candidate, reference, seed=seed, cache=cache)
    if compared is None:
        return _build_empty_record(reference.kind, _compare_sides(candidate, reference))
    documents, tail = compared.evidence.documents, round(compared.evidence.tail, 2)
    earlier = [record for record in before if record.kind == reference.kind.name]
    trend = find_tail_trend(
        [*filter(None, map(TailLoss.from_record, earlier)), TailLoss(reference.name, documents, tail)]
    )
    decision = decide_collapse(compared.evidence, steady=isinstance(trend, TailTrend) and trend.steady)
    if general:
        decision = restrict_to_general_reference(decision, documents)
    power = None if general else _find_loss_power(compared)
    needed = [MIN_CONCLUSIVE_DOCUMENTS, power.documents_needed if power else 0]
    needed += [power.replaced_needed] if power and "uncertain" in decision.reasons else []
    beginnings = find_frequent_beginnings(compared.sides, reference)
    evidence = explain_verdict(decision, compared.evidence, compared.sides, reference, beginnings)
    unjudged = [name for name in METRIC_NAMES if name not in compared.evidence.z]
    if "strange_words" in unjudged and reference.kind.outline is None:
        evidence.append(f"LANGUAGE: not all documents are in English; not judged: {', '.join(unjudged)}")
    findings = {name: list(metrics) for name, metrics in decision.reasons.items()}
    own, repeated = compared.sides.draws[0], findings.get("repetition", [])
    return CollapseRecord(
        verdict=decision.verdict,
        evidence=evidence,
        findings=findings,
        examples=find_repeated_examples(repeated, own, list(reference.vocabulary), reference.kind.join),
        documents=documents,
        tokens=own.tokens,
        tail=tail,
        metrics=_build_metric_records(compared, reference),
        openers=beginnings.openers,
        templates=beginnings.templates,
        needed=max(needed),
        smallest_loss=power.smallest_loss if power and documents >= MIN_POWER_DOCUMENTS else None,
        generated=generated,
        **_compare_sides(candidate, reference),
    )


def _find_loss_power(compared: ReferenceComparison) -> LossPower | None:
    """The losses of rare words that the comparison finds; None if what shows them does not hold or does not vary here."""
    evidence, tokens = compared.evidence, compared.sides.draws[0].tokens
    places = [METRIC_NAMES.index(name) for name in ("hapax_mass", "tail_coverage")]
    held = all(METRIC_NAMES[place] in evidence.z and evidence.real[METRIC_NAMES[place]] > 0 for place in places)
    if not held or not compared.null.compute_deviations(tokens)[places].all():
        return None
    return compute_loss_power(compared.null, evidence.real, tokens, evidence.documents)


def _compare_sides(candidate: TokenCorpus, reference: ReferenceCorpus) -> dict[str, Any]:
    shared = int(np.count_nonzero(reference.corpus.find_shared(candidate)))
    return _describe_sides(reference.kind, reference.name, len(candidate), len(reference.corpus), shared)


def _describe_sides(kind: TextKind, reference: str, documents: int, real: int, shared: int) -> dict[str, Any]:
    """What a record says of both sides, before any sampling."""
    return {
        "kind": kind.name,
        "unit": kind.unit,
        "reference": reference,
        "dataset_documents": documents,
        "reference_documents": real,
        "shared_documents": shared,
    }


def restrict_to_general_reference(decision: CollapseDecision, documents: int) -> CollapseDecision:
    """The decision where the reference is of another origin: its findings of lost words and of repetition are differences."""
    reasons = {kind: names for kind, names in decision.reasons.items() if kind not in ORIGIN_REASONS}
    differences = [name for kind in ORIGIN_REASONS for name in decision.reasons.get(kind, ())]
    if differences:
        reasons["unlike"] = tuple(dict.fromkeys([*reasons.get("unlike", ()), *differences]))
    verdict = CollapseVerdict.shift if reasons else CollapseVerdict.passed
    if "likely" in reasons:
        verdict = CollapseVerdict.collapse
    elif documents < MIN_CONCLUSIVE_DOCUMENTS:
        verdict = CollapseVerdict.inconclusive
    return CollapseDecision(verdict, reasons)


def compare_with_reference(
    candidate: TokenCorpus,
    reference: ReferenceCorpus,
    *,
    seed: int,
    cache: Path | None = None,
    null_of: ReferenceCorpus | None = None,
) -> ReferenceComparison | None:
    """Sample documents of both sides and compare them; None if too few are on common topics.

    Documents of the reference that the candidate also contains are left out. `null_of`: the reference of the null distribution,
    where `reference` is a part of it.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(candidate))[:MAX_SAMPLE_DOCUMENTS])
    others = np.flatnonzero(~reference.corpus.find_shared(candidate))
    others = np.sort(random.permutation(others)[: max(LEAST_POOL, POOL * len(chosen))])
    if len(chosen) < MIN_COMPARED_DOCUMENTS or len(others) < MIN_REFERENCE_DOCUMENTS:
        return None
    cuts = match_lengths(candidate.lengths[chosen], reference.corpus.lengths[others])
    mine, theirs = candidate.truncate(chosen, cuts[0]), reference.corpus.truncate(others, cuts[1])
    topics, real_topics = reference.topics.assign(mine), reference.topics.assign(theirs)
    own, *real = match_topics(topics, real_topics, reference.topics.topic_count, REFERENCE_SAMPLES, random)
    if len(own) < MIN_COMPARED_DOCUMENTS:
        return None
    places = [own, *real]
    corpora = [mine, theirs, theirs]
    lengths = equalize_lengths([corpus.lengths[place] for corpus, place in zip(corpora, places, strict=True)])
    draws = [corpus.take_sample(*pair) for corpus, *pair in zip(corpora, places, lengths, strict=True)]
    sides = ComparedSides(draws, [others[places] for places in real], topics, real_topics)

    background = reference.build_background()
    excluded = [reference.corpus.count_words(sides.places[k], len(background.counts)) for k in (0, 0, 1)]
    samples = [measure_sample(draw, background, out) for draw, out in zip(draws, excluded, strict=True)]
    comparison = compare_samples(*samples)
    documents, size = len(draws[0].lengths), draws[0].tokens
    whole = null_of or reference
    null = load_null_distribution(whole, choose_null_size(documents, len(whole.corpus)), cache)
    held = reference.find_held_metrics(mine)
    change = {m.name: m.worse_sign * float(d) for m, d in zip(COLLAPSE_METRICS, comparison.difference, strict=True)}
    # No loss is a share of an infinite value.
    real_values = HeldValues(dict(zip(METRIC_NAMES, map(float, comparison.real), strict=True)), held, math.inf)
    evidence = MetricEvidence(
        z=HeldValues(compute_z_scores(comparison, null, size, documents), held, 0.0),
        change=HeldValues(change, held, 0.0),
        real=real_values,
        topics=sides.compute_topic_score(reference.topics.topic_count),
        documents=documents,
        loss_deviation=find_loss_deviation(null, real_values, size),
    )
    return ReferenceComparison(sides, comparison, null, evidence)


def _build_metric_records(compared: ReferenceComparison, reference: ReferenceCorpus) -> list[MetricRecord]:
    """The collapse metrics, then the well-known diversity metrics, which do not affect the verdict."""
    draws, comparison, null = compared.sides.draws, compared.comparison, compared.null
    reaches = RANGE_DEVIATIONS * compute_deviations(null, draws[0].tokens, compared.evidence.documents)
    records = []
    name_units = reference.kind.name_units
    intervals = _estimate_intervals(draws[0], reference.build_background())
    for i, metric in enumerate(COLLAPSE_METRICS):
        if metric.name not in compared.evidence.z:
            continue
        mean, reach = float(comparison.real[i]), float(reaches[i])
        low = mean - reach if metric.name in {"surprise", "reverse_surprise"} else max(0.0, mean - reach)
        records.append(
            MetricRecord(
                name=metric.name, candidate=float(comparison.values[i]), reference=mean, low=low,
                high=min(metric.most, mean + reach), meaning=reference.kind.describe_metric(metric), family=metric.family,
                z=round(compared.evidence.z[metric.name], 2), interval=intervals.get(metric.name),
            )
        )  # fmt: skip

    own, *real = (reference.measure_diversity(draw) for draw in draws)
    for name, (meaning, most) in (DIVERSITY_METRICS | CODE_NAME_METRICS).items():
        values = [getattr(metrics, name) for metrics in real]
        if None in values or getattr(own, name) is None:
            continue
        mean = sum(values) / REFERENCE_SAMPLES
        reach = RANGE_DEVIATIONS * null.shown.get(name, 0.0) * math.sqrt(1 + 1 / REFERENCE_SAMPLES)
        records.append(
            MetricRecord(
                name=name, candidate=getattr(own, name), reference=mean, low=max(0.0, mean - reach),
                high=min(most, mean + reach), meaning=name_units(f"shown, not gating: {meaning}"),
            )
        )  # fmt: skip
    return records


def _estimate_intervals(own: TokenSample, background: WordBackground) -> dict[str, Interval]:
    """95 % intervals of the shares that documents of the dataset have in common, by metric."""
    grams, documents = own.list_ngrams(COPY_WORDS), len(own.lengths)
    kinds = {"openers": number_openers(own), "templates": number_skeletons(own, background.common)}
    return {
        "exact_duplicates": estimate_document_share(exact_duplicate_share(own), documents),
        "duplicate_8grams": estimate_shared_ngrams(grams.ids, grams.documents, documents),
        **{name: estimate_pairs(np.bincount(numbers)[numbers] - 1) for name, numbers in kinds.items()},
    }


def _build_empty_record(kind: TextKind, sides: dict[str, Any]) -> CollapseRecord:
    """Of sides that are too small to compare."""
    documents, real, shared = sides["dataset_documents"], sides["reference_documents"], sides["shared_documents"]
    why = []
    if documents < MIN_COMPARED_DOCUMENTS:
        few = format_count(documents, "document")
        why.append(f"the dataset has {few} with a word in them; {MIN_COMPARED_DOCUMENTS} are needed")
    if real - shared < MIN_REFERENCE_DOCUMENTS:
        same = f", {shared:,} of them also in the dataset" if shared else ""
        why.append(
            f"the reference {sides['reference']} has {format_count(real, 'document')} with a word in them{same}; "
            f"{MIN_REFERENCE_DOCUMENTS} others are needed"
        )
    if not why:
        why.append(
            f"fewer than {MIN_COMPARED_DOCUMENTS} documents of the dataset are on topics of the reference {sides['reference']}"
        )
    return CollapseRecord(
        verdict=CollapseVerdict.inconclusive,
        evidence=list(map(kind.name_units, why)),
        documents=0,
        tokens=0,
        metrics=[],
        needed=MIN_CONCLUSIVE_DOCUMENTS,
        **sides,
    )


def build_mismatch_record(kind: TextKind, other: TextKind, reference: str) -> CollapseRecord:
    """Of a reference of another kind than the dataset's."""
    return CollapseRecord(
        verdict=CollapseVerdict.inconclusive,
        kind=kind.name,
        unit=kind.unit,
        evidence=[
            f"the dataset is {kind.noun} and the reference {reference} is {other.noun}, so their numbers cannot be compared"
        ],
        reference=reference,
        documents=0,
        tokens=0,
        metrics=[],
        reference_kind=other.name,
    )
