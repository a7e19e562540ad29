"""The self-test of a reference as a command: how often its own text would be called collapsed. Knows no Prefect."""

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.intervals import IntervalEstimate
from core.runs.records import CollapseVerdict
from flows.data.reference_files import Reference, load_reference
from flows.evaluate.dataset_assessment import DIALOGUE_KIND, NULL_CACHE_FOLDER
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.text_format import format_count, format_duration, format_number

if TYPE_CHECKING:
    from filters.collapse.reference_corpus import ReferenceCorpus
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
    """Assess samples of the reference, each against the rest. Of dialogues, half of the samples are turns of the user, and half
    are turns of the assistant.

    Raises:
        UsageError: if the reference cannot be read or is too small.
        UserInterrupt: if the user asked to stop.
    """
    from filters.collapse.self_test import PAIRS, SelfTestResult, choose_sample_size

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


def _number_reference(reference: Reference, name: str, kind: str | None) -> list["ReferenceCorpus"]:
    """The documents of a reference as numbers of their units; of dialogues, the turns of each role."""
    from filters.collapse.reference_corpus import ReferenceCorpus
    from filters.collapse.self_test import MIN_TEST_REFERENCE
    from filters.collapse.text_kinds import find_kind, get_kind

    known = get_kind(kind) if kind else find_kind(reference.texts)
    parts: list[tuple[list[str], list[str] | None]]
    if known.name == DIALOGUE_KIND:
        parts = [(texts, origins) for texts, origins in list_turn_origins(reference.texts).values() if texts]
    else:
        parts = [(reference.texts, reference.origins)]
    corpora = [ReferenceCorpus.from_texts(texts, reference.name, known, origins) for texts, origins in parts]
    least = min((len(real.corpus) for real in corpora), default=0)
    if least < MIN_TEST_REFERENCE:
        raise UsageError(
            f"{name}: has {format_count(least, 'document')} with a {known.unit}; {MIN_TEST_REFERENCE} are needed at least"
        )
    return corpora


def list_turn_origins(dialogues: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
    """By role, the turns of dialogues with the number of the dialogue that each is of."""
    from filters.collapse.dialogues import ROLES
    from filters.collapse.text_kinds import read_turns

    spoken = [(str(number), read_turns(text)) for number, text in enumerate(dialogues)]
    pairs = {role: [(turn, number) for number, turns in spoken for turn in turns.get(role, ())] for role in ROLES}
    return {role: ([turn for turn, _ in found], [number for _, number in found]) for role, found in pairs.items()}


def _assess_samples(
    corpora: Sequence["ReferenceCorpus"], size: int, wanted: int, seed: int, cache: Path, *, general: bool
) -> list["SelfTestSample"]:
    """Assess `wanted` samples, equally many of each corpus, and show the progress."""
    from filters.collapse.self_test import run_self_test

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
