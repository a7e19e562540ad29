"""The self-test of a reference: how often its own text would be called collapsed. Samples of its documents are each assessed
against the rest as if they were a dataset. Knows no Prefect.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.intervals import IntervalEstimate, estimate_share
from core.runs.records import CollapseVerdict
from filters.collapse.assessment import MIN_COMPARED_DOCUMENTS, compare_with_reference, restrict_to_general_reference
from filters.collapse.collapse_verdict import decide_collapse
from filters.collapse.dialogues import ROLES
from filters.collapse.reference_corpus import ReferenceCorpus
from filters.collapse.text_kinds import find_kind, get_kind, read_turns
from flows.data.reference_files import Reference, load_reference
from flows.evaluate.dataset_assessment import DIALOGUE_KIND, NULL_CACHE_FOLDER
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.text_format import format_count, format_duration, format_number

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
DIFFERENT_REASONS = (
    "its texts are of several kinds or origins; split it by kind, or make it of more texts of the same kind"
)


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
            yield _assess_sample(reference, sample, seed=done, cache=cache, general=general)
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


def _assess_sample(
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


class SelfTestReport(BaseModel):
    """The result of `stillhouse self-test`."""

    model_config = ConfigDict(frozen=True)

    reference: str
    kind: str
    real_documents: int
    documents: int
    """Documents of each sample."""
    samples: int
    whole_texts: bool
    """Whether each sample is of whole texts, none of which has passages in the rest."""
    verdicts: dict[str, int]
    reasons: dict[str, int]
    """Samples by finding."""
    rate: IntervalEstimate
    """Of collapse."""
    compatible: bool
    """Whether the rate may be 1 %."""


def run_reference_self_test(
    name: str,
    documents: int | None,
    *,
    seed: int,
    cache: Path | None,
    kind: str | None = None,
    pairs: int | None = None,
) -> SelfTestReport:
    """Assess samples of the reference, each against the rest. Of dialogues, half of the samples are turns of the user, and half
    are turns of the assistant.

    Raises:
        UsageError: if the reference cannot be read or is too small.
        UserInterrupt: if the user asked to stop.
    """
    reference = load_reference(name, Path.cwd(), cache)
    corpora = _number_reference(reference, name, kind)
    least = min(len(real.corpus) for real in corpora)
    size, wanted = choose_sample_size(least, documents), pairs or PAIRS
    SESSION.print_message(
        f"self-test: {wanted} samples of {size:,} documents, each compared with the rest of {least:,}; first their natural "
        "variation, up to a minute"
    )
    with TemporaryDirectory() as temporary:
        nulls = cache / NULL_CACHE_FOLDER if cache else Path(temporary)
        done = _assess_samples(corpora, size, wanted, seed, nulls, general=reference.general)
    if not done:
        raise UsageError(
            f"{name}: its texts are too long or too few to fill a sample of {size:,} documents; give --documents"
        )
    result = SelfTestResult(size, done)
    return SelfTestReport(
        reference=reference.name, kind=corpora[0].kind.name, real_documents=sum(len(real.corpus) for real in corpora),
        documents=size, samples=len(done), whole_texts=corpora[0].groups is not None, verdicts=dict(result.verdicts),
        reasons=dict(Counter(reason for sample in done for reason in sample.reasons)), rate=result.rate,
        compatible=result.is_compatible,
    )  # fmt: skip


def _number_reference(reference: Reference, name: str, kind: str | None) -> list[ReferenceCorpus]:
    """The documents of a reference as numbers of their units; of dialogues, the turns of each role."""
    known = get_kind(kind) if kind else find_kind(reference.texts)
    parts: list[tuple[list[str], list[str] | None]]
    if known.name == DIALOGUE_KIND:
        parts = [(texts, origins) for texts, origins in _list_turn_origins(reference.texts).values() if texts]
    else:
        parts = [(reference.texts, reference.origins)]
    corpora = [ReferenceCorpus.from_texts(texts, reference.name, known, origins) for texts, origins in parts]
    least = min((len(real.corpus) for real in corpora), default=0)
    if least < MIN_TEST_REFERENCE:
        raise UsageError(
            f"{name}: has {format_count(least, 'document')} with a {known.unit}; {MIN_TEST_REFERENCE} are needed at least"
        )
    return corpora


def _list_turn_origins(dialogues: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
    """By role, the turns of dialogues with the number of the dialogue that each is of."""
    spoken = [(str(number), read_turns(text)) for number, text in enumerate(dialogues)]
    pairs = {role: [(turn, number) for number, turns in spoken for turn in turns.get(role, ())] for role in ROLES}
    return {role: ([turn for turn, _ in found], [number for _, number in found]) for role, found in pairs.items()}


def _assess_samples(
    corpora: Sequence[ReferenceCorpus], size: int, wanted: int, seed: int, cache: Path, *, general: bool
) -> list[SelfTestSample]:
    """Assess `wanted` samples, equally many of each corpus, and show the progress."""
    done: list[SelfTestSample] = []
    started = 0.0
    for number, real in enumerate(corpora, 1):
        pairs = wanted * number // len(corpora) - wanted * (number - 1) // len(corpora)
        for sample in run_self_test(real, size, seed=seed, cache=cache, pairs=pairs, general=general):
            done.append(sample)
            started = started or time.monotonic()  # the first one also computes the natural variation
            if SESSION.stop.is_set():
                raise UserInterrupt
            SESSION.show_progress(partial(_describe_progress, done, wanted, time.monotonic() - started))
    return done


def _describe_progress(done: list[SelfTestSample], wanted: int, seconds: float) -> str:
    left = f", {format_duration(seconds / (len(done) - 1) * (wanted - len(done)))} left" if len(done) > 1 else ""
    alarms = sum(sample.verdict is CollapseVerdict.collapse for sample in done)
    return f"self-test: {len(done)} of {wanted} samples, {alarms} called collapse{left}"


def format_self_test(report: SelfTestReport) -> str:
    """The result in one sentence, then the verdicts, and what to do if the rate is too high."""
    alarms = report.verdicts.get(CollapseVerdict.collapse, 0)
    interval = f"{_percent(report.rate.low)} to {_percent(report.rate.high)} (95 %)"
    words = "compatible with 1 %" if report.compatible else "more than 1 %"
    lines = [
        f"self-test: {alarms} of {report.samples} real samples of {report.documents:,} documents are called collapse: a rate of "
        f"{interval}, {words}",
        f"verdicts  {', '.join(f'{count} {verdict}' for verdict, count in report.verdicts.items())}",
    ]
    if report.reasons:
        lines.append(f"findings  {', '.join(f'{reason} {count}' for reason, count in report.reasons.items())}")
    if report.whole_texts:
        lines.append("samples   of whole texts: no passage of a text is compared with others of the same text")
    if not report.compatible:
        lines.append(f"advice    {DIFFERENT_REASONS}")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{format_number(100 * share)} %"
