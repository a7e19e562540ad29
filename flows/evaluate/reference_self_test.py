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
from flows.data.reference_files import load_reference
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
    """Assess samples of the reference, each against the rest.

    Raises:
        UsageError: if the reference cannot be read or is too small.
        UserInterrupt: if the user asked to stop.
    """
    import numpy as np

    from filters.collapse.reference_corpus import MOST_DOCUMENTS, ReferenceCorpus
    from filters.collapse.self_test import (
        MIN_TEST_REFERENCE,
        PAIRS,
        SelfTestResult,
        choose_sample_size,
        run_self_test,
    )
    from filters.collapse.text_kinds import find_kind, get_kind

    reference = load_reference(name, Path.cwd(), cache)
    chosen = np.sort(np.random.default_rng(0).permutation(len(reference.texts))[:MOST_DOCUMENTS])
    known = get_kind(kind) if kind else find_kind(reference.texts)
    places = [place for place in chosen.tolist() if known.split(reference.texts[place])]
    if len(places) < MIN_TEST_REFERENCE:
        raise UsageError(
            f"{name}: has {format_count(len(places), 'document')} with a {known.unit}; {MIN_TEST_REFERENCE} are needed at least"
        )
    origins = [reference.origins[place] for place in places] if reference.origins else None
    real = ReferenceCorpus.from_texts([reference.texts[place] for place in places], reference.name, known, origins)
    size, wanted = choose_sample_size(len(places), documents), pairs or PAIRS
    SESSION.print_message(
        f"self-test: {wanted} samples of {size:,} documents, each compared with the rest of {len(places):,}; first their natural "
        "variation, up to a minute"
    )
    done: list[SelfTestSample] = []
    with TemporaryDirectory() as temporary:
        nulls = cache / NULL_CACHE_FOLDER if cache else Path(temporary)
        for sample in run_self_test(real, size, seed=seed, cache=nulls, pairs=wanted, general=reference.general):
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
        reference=reference.name, kind=known.name, real_documents=len(places), documents=size, samples=len(done),
        whole_texts=real.groups is not None, verdicts=dict(result.verdicts),
        reasons=dict(Counter(reason for sample in done for reason in sample.reasons)), rate=result.rate,
        compatible=result.is_compatible,
    )  # fmt: skip


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
