"""The self-test of a reference as a command: how often its own text would be called collapsed. Knows no Prefect."""

import time
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.intervals import IntervalEstimate
from core.runs.records import CollapseVerdict
from flows.data.reference_files import Reference, load_reference
from flows.evaluate.dataset_assessment import NULL_CACHE_FOLDER
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.text_format import format_count, format_duration, format_number

if TYPE_CHECKING:
    from filters.collapse.self_test import SelfTestSample

DIFFERENT_REASONS = (
    "its texts are of several kinds or origins; split it by kind, or make it of more texts of the same kind"
)


class SelfTestReport(BaseModel):
    """The result of `stillhouse assess --self-test`."""

    model_config = ConfigDict(frozen=True)

    reference: str
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
    name: str, documents: int | None, *, seed: int, cache: Path | None, pairs: int | None = None
) -> SelfTestReport:
    """Assess samples of the reference, each against the rest.

    Raises:
        UsageError: if the reference cannot be read or is too small.
        UserInterrupt: if the user asked to stop.
    """
    import numpy as np

    from filters.collapse.matched_samples import TokenCorpus, split_into_words
    from filters.collapse.reference_corpus import MOST_DOCUMENTS, ReferenceCorpus
    from filters.collapse.self_test import (
        MIN_TEST_REFERENCE,
        PAIRS,
        SelfTestResult,
        choose_sample_size,
        run_self_test,
    )

    reference = load_reference(name, Path.cwd(), cache)
    chosen = np.sort(np.random.default_rng(0).permutation(len(reference.texts))[:MOST_DOCUMENTS])
    spelled = [(place, words) for place in chosen.tolist() if (words := split_into_words(reference.texts[place]))]
    if len(spelled) < MIN_TEST_REFERENCE:
        raise UsageError(
            f"{name}: has {format_count(len(spelled), 'document')} with a word, and {MIN_TEST_REFERENCE} are needed at least"
        )
    vocabulary: dict[str, int] = {}
    corpus = TokenCorpus.from_words([words for _, words in spelled], vocabulary)
    real = ReferenceCorpus.from_corpus(corpus, vocabulary, reference.name)
    size, wanted = choose_sample_size(len(corpus), documents), pairs or PAIRS
    origins = _list_groups(reference, [place for place, _ in spelled], size)
    groups = np.unique(origins, return_inverse=True)[1].reshape(-1) if origins else np.arange(len(corpus))
    SESSION.print_message(
        f"self-test: {wanted} samples of {size:,} documents, each compared with the rest of {len(corpus):,}; first their natural "
        "variation, up to a minute"
    )
    done: list[SelfTestSample] = []
    with TemporaryDirectory() as temporary:
        nulls = cache / NULL_CACHE_FOLDER if cache else Path(temporary)
        for sample in run_self_test(real, groups, size, seed=seed, cache=nulls, pairs=wanted):
            done.append(sample)
            if len(done) == 1:
                started = time.monotonic()  # the first one also computes the natural variation
            if SESSION.stop.is_set():
                raise UserInterrupt
            SESSION.show_progress(partial(_describe_progress, done, wanted, time.monotonic() - started))
    if not done:
        raise UsageError(
            f"{name}: its texts are too long or too few to fill a sample of {size:,} documents; give --documents"
        )
    result = SelfTestResult(size, done)
    return SelfTestReport(
        reference=reference.name, real_documents=len(corpus), documents=size, samples=len(done),
        whole_texts=origins is not None, verdicts=dict(result.verdicts),
        reasons=dict(Counter(reason for sample in done for reason in sample.reasons)), rate=result.rate,
        compatible=result.is_compatible,
    )  # fmt: skip


def _list_groups(reference: Reference, places: list[int], size: int) -> list[str] | None:
    """The text of each document, if there are passages, of enough texts for disjoint samples; else None: each is its own."""
    if reference.origins is None:
        return None
    origins = [reference.origins[place] for place in places]
    counts = Counter(origins)
    return origins if 1 < max(counts.values()) <= size // 2 else None


def _describe_progress(done: list["SelfTestSample"], wanted: int, seconds: float) -> str:
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
