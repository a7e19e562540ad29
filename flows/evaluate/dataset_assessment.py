"""The collapse assessment of any dataset: against real text or for repetition only, and against its parent. Knows no Prefect."""

import textwrap
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.runs.collapse_assessment import CollapseAssessment
from core.runs.records import CollapseRecord, CollapseVerdict, SamenessRecord
from flows.data.dataset_origin import is_synthetic_dataset
from flows.data.dataset_rows import build_row_document, read_dataset_documents
from flows.data.reference_files import load_reference
from flows.terminal.run_summary import format_metrics
from flows.terminal.suggested_commands import format_next_line
from flows.terminal.text_format import TERMINAL_WIDTH, replace_unsafe_characters

NULL_CACHE_FOLDER = "nulls"
"""The folder in the runs' cache for null distributions: how far real text differs from itself."""

COPY_METRICS = frozenset({"exact_duplicates", "repeated_answers", "copied_documents", "duplicate_8grams"})
"""The metrics of repetition that dropping repeated rows lowers."""


def assess_dataset(
    source: Path, reference: str | None, seed: int, *, parent: Path | None, cache: Path | None
) -> CollapseAssessment:
    """Compare a dataset with real text, and the rows that it adds to its parent with the parent. Without a reference, measure its
    repetition.

    Raises:
        UsageError: if a dataset cannot be read, or adds no row to its parent.
    """
    from filters.collapse.assessment import assess_texts
    from filters.collapse.repetition import assess_repetition
    from filters.collapse.sameness import build_sameness_records

    documents = list(read_dataset_documents(source))
    texts = [document.text for document in documents]
    generated = is_synthetic_dataset(source)
    if reference is None:
        collapse = assess_repetition(documents, seed=seed)
    else:
        collapse = assess_answers(texts, reference, Path.cwd(), seed, cache, generated=generated)
    collapse.sameness = build_sameness_records(documents, seed=seed)
    if parent is None:
        return CollapseAssessment(collapse=collapse)
    earlier = [document.text for document in read_dataset_documents(parent)]
    known = set(earlier)
    added = [text for text in texts if text not in known]
    if not added:
        raise UsageError(
            f"{source}: has no row that {parent} lacks, so there is nothing to compare; leave out --parent"
        )
    nulls = cache / NULL_CACHE_FOLDER if cache else None
    comparison = assess_texts(added, earlier, name=str(parent), seed=seed, cache=nulls, generated=generated)
    return CollapseAssessment(collapse=collapse, parent=comparison)


def assess_conversations(conversations: Sequence[Sequence[dict[str, Any]]], seed: int) -> CollapseRecord:
    """Measure repetition within the conversations of a run, each as its messages on disk."""
    from filters.collapse.repetition import assess_repetition

    return assess_repetition([build_row_document({"messages": messages}) for messages in conversations], seed=seed)


def measure_conversation_sameness(conversations: Sequence[Sequence[dict[str, Any]]], seed: int) -> list[SamenessRecord]:
    """How alike the questions and the answers of a run are, each conversation as its messages on disk."""
    from filters.collapse.sameness import build_sameness_records

    return build_sameness_records([build_row_document({"messages": messages}) for messages in conversations], seed=seed)


def assess_answers(
    answers: Sequence[str],
    reference: str,
    folder: Path,
    seed: int,
    cache: Path | None = None,
    before: Sequence[CollapseRecord] = (),
    *,
    generated: bool = True,
) -> CollapseRecord:
    """Compare `answers` with the reference, a name or a file: metrics and verdict. Its null distribution is kept in `cache`.
    `before` are the comparisons of the generations that the answers build on, oldest first. `generated`: whether a teacher is
    known to have written the answers.

    Raises:
        UsageError: if the reference cannot be read.
    """
    from filters.collapse.assessment import assess_texts

    real = load_reference(reference, folder, cache)
    nulls = cache / NULL_CACHE_FOLDER if cache else None
    return assess_texts(answers, real.texts, name=real.name, seed=seed, cache=nulls, before=before, generated=generated)


def format_assessment(assessment: CollapseAssessment) -> list[str]:
    """The output of `assess`: the verdict, the evidence, the metrics and advice."""
    lines = [f"verdict   {assessment.verdict.upper()}"]
    for record in (assessment.collapse, assessment.parent):
        if record:
            measured = (
                f"compared with {replace_unsafe_characters(record.reference)}" if record.reference else "repetition"
            )
            lines += ["", f"{measured}: {record.verdict}", *_format_bullets(record.evidence), ""]
            lines += format_metrics(record)
    if advice := assessment.advice:
        lines += ["", "what may help", *_format_bullets(advice)]
    return lines


def suggest_after_assessment(
    source: Path, assessment: CollapseAssessment, arguments: Sequence[str], *, has_page: bool
) -> str | None:
    """The line after the output of `assess`: drop repeated rows if there are too many, else write the page. `arguments` are those
    of `assess`.
    """
    if any(_has_copies(record) for record in (assessment.collapse, assessment.parent) if record):
        out = _find_free_name(f"{source.stem}-filtered")
        return format_next_line("filter", str(source), "--out", out, "--filters", "exact,minhash")
    if has_page:
        return None
    return format_next_line("assess", *arguments, "--out", _find_free_name(f"{source.stem}-assessment", ".html"))


def _has_copies(record: CollapseRecord) -> bool:
    """Whether repetition is evidence of collapse and a metric of copies is over its limit."""
    repeated = any("REPEAT" in reason for reason in record.evidence)
    return (
        record.verdict is CollapseVerdict.collapse
        and repeated
        and any(metric.name in COPY_METRICS and metric.candidate > metric.high for metric in record.metrics)
    )


def _find_free_name(stem: str, suffix: str = "") -> str:
    """A name that no file in the working folder has."""
    names = chain([f"{stem}{suffix}"], (f"{stem}-{number}{suffix}" for number in count(2)))
    return next(name for name in names if not Path(name).exists())


def _format_bullets(sentences: Sequence[str]) -> list[str]:
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(
            replace_unsafe_characters(sentence), TERMINAL_WIDTH, initial_indent="  - ", subsequent_indent="    "
        )
    ]
