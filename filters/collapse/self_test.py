"""The false-alarm rate of a reference: samples of its own documents, each assessed against the rest as if it were a dataset."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.intervals import IntervalEstimate, estimate_share
from core.runs.records import CollapseVerdict
from filters.collapse.assessment import MIN_COMPARED_DOCUMENTS, compare_with_reference, restrict_to_general_reference
from filters.collapse.collapse_verdict import decide_collapse
from filters.collapse.reference_corpus import ReferenceCorpus

Ints = npt.NDArray[np.int64]

NOMINAL_RATE = 0.01
"""The false-alarm rate that the limits promise."""
PAIRS = 200
"""Samples: without an alarm among them, the 95 % interval (Wilson 1927) ends at 1.9 %."""
SAMPLES_IN_REFERENCE = 4
"""A sample has at most this part of the documents, so that two others of its size and topics remain."""
MAX_TEST_DOCUMENTS = 2_000
MIN_TEST_REFERENCE = SAMPLES_IN_REFERENCE * MIN_COMPARED_DOCUMENTS
MIN_FILLED = 0.5
"""A sample of whole texts has at least this part of the documents; smaller ones are not tested."""


class SelfTestSample(NamedTuple):
    """One sample of the reference, assessed."""

    documents: int
    """Documents that were compared, on the topics of both."""
    verdict: CollapseVerdict
    reasons: Sequence[str]


class SelfTestResult(NamedTuple):
    documents: int
    """Documents of a sample."""
    samples: Sequence[SelfTestSample]

    @property
    def verdicts(self) -> Mapping[str, int]:
        counts = Counter(sample.verdict for sample in self.samples)
        return {verdict.value: counts[verdict] for verdict in CollapseVerdict if counts[verdict]}

    @property
    def alarms(self) -> int:
        return sum(sample.verdict is CollapseVerdict.collapse for sample in self.samples)

    @property
    def rate(self) -> IntervalEstimate:
        """Of collapse among the samples. Each document is in several samples, which the interval does not know."""
        estimate = estimate_share(self.alarms, len(self.samples))
        assert estimate, "there is a sample"
        return estimate

    @property
    def is_compatible(self) -> bool:
        """Whether the rate may be the nominal one, by the lower end of the interval."""
        return self.rate.low <= NOMINAL_RATE


def choose_sample_size(reference: int, documents: int | None) -> int:
    """Documents of a sample: those asked for, or `MAX_TEST_DOCUMENTS`, if the reference has four times as many."""
    return min(documents or MAX_TEST_DOCUMENTS, reference // SAMPLES_IN_REFERENCE)


def run_self_test(
    reference: ReferenceCorpus, documents: int, *, seed: int, cache: Path, pairs: int = PAIRS, general: bool = False
) -> Iterator[SelfTestSample]:
    """Assess disjoint samples of `documents` documents, each against the rest; the reference is split again until there are
    `pairs` of them. Passages of one text are on one side. Topics and the null distribution are those of the whole reference.
    `general`: as of `assess_texts`.
    """
    random = np.random.default_rng(seed)
    groups = np.arange(len(reference.corpus)) if reference.groups is None else reference.groups
    done = 0
    while done < pairs:
        samples = list(split_into_samples(groups, documents, random))
        for sample in samples[: pairs - done]:
            yield assess_sample(reference, sample, seed=done, cache=cache, general=general)
            done += 1
        if not samples:
            return


def split_into_samples(groups: Ints, documents: int, random: np.random.Generator) -> Iterator[Ints]:
    """Disjoint places of about `documents` documents, with all documents of a group together."""
    order = random.permutation(int(groups.max()) + 1)[groups]
    places = np.lexsort((random.permutation(len(groups)), order))
    starts = np.flatnonzero(np.diff(order[places], prepend=-1))
    part_of_group = starts // documents
    parts = np.repeat(part_of_group, np.diff(np.append(starts, len(places))))
    for part in np.unique(parts):
        chosen = places[parts == part]
        if len(chosen) >= math.ceil(MIN_FILLED * documents):
            yield np.sort(chosen[:documents])


def assess_sample(
    reference: ReferenceCorpus, places: Ints, *, seed: int, cache: Path, general: bool = False
) -> SelfTestSample:
    corpus = reference.corpus
    groups = np.arange(len(corpus)) if reference.groups is None else reference.groups
    rest = np.flatnonzero(~np.isin(groups, groups[places]))
    candidate, others = (corpus.truncate(part, corpus.lengths[part]) for part in (places, rest))
    compared = compare_with_reference(
        candidate, reference._replace(corpus=others, groups=None), seed=seed, cache=cache, null_of=reference
    )
    if compared is None:
        return SelfTestSample(0, CollapseVerdict.inconclusive, ())
    decision = decide_collapse(compared.evidence)
    if general:
        decision = restrict_to_general_reference(decision, compared.evidence.documents)
    return SelfTestSample(compared.evidence.documents, decision.verdict, tuple(decision.reasons))
