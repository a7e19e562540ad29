"""`stillhouse filter`: apply the filters of a recipe to any dataset, also one larger than memory.

Filter single rows in batches on all processors, with a checkpoint (`flows.clean.filter_checkpoint`); compare rows by their
sketches; read the input again and write every row, unchanged, to the file where it belongs.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate, count, islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from core.config.filters import (
    DEFAULT_FILTERS,
    DuplicateFilter,
    FilterConfig,
    KeepOneFilter,
    MinHashFilter,
    list_filter_extensions,
)
from core.config.loading import parse_settings
from core.errors import RecipeError, RunInUse, UsageError
from core.extensions import find_registered
from core.hooks import Override
from core.runs.records import SampleCounts
from core.sample import RejectionReason
from filters.base import Document
from filters.chain.filter_chain import RowFilterResult, find_duplicates
from filters.chain.registry import find_filter_problems
from filters.duplicates.datasketch_files import SignatureSettings, read_signatures, write_signatures
from filters.duplicates.duplicate_index import HEADER_FILE, DuplicateIndex
from filters.duplicates.shingles import build_shingle_sets
from filters.rules.contamination import build_all_set_reports
from flows.clean.applied_overrides import (
    RowOverrides,
    apply_row_decisions,
    count_row_decisions,
    find_decided_rows,
    read_row_overrides,
)
from flows.clean.filter_checkpoint import (
    FilterCheckpoint,
    build_checkpoint_identity,
    lock_output,
    read_checkpoint_identity,
)
from flows.clean.filter_engine import (
    DropLookup,
    FilterWorkers,
    RowDecisions,
    RowNames,
    connect_cluster_workers,
    count_similarities,
    filter_missing_batches,
    start_filter_processes,
)
from flows.clean.filter_output import FilterOutputPlan, name_kept_file, write_filter_output
from flows.report.filter_report import DroppedExample, FilterReport, FilterStep, UnreadableRow, write_filter_report
from flows.rows.dataset_rows import RowBatch, check_dataset_rows, find_dataset_files, read_dataset_documents
from flows.rows.row_forms import build_row_document
from flows.rows.row_images import choose_document_reader
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.text_format import format_duration

SMALL_INPUT_BYTES = 8 << 20
"""Up to this size one process filters the input in the time that starting more would take."""
FAST_FILTERS = {"exact", "minhash"}
FAST_FACTOR = 16
"""For these filters alone, an input of 16 times that size."""
COMPARED_PARTS = {
    "conversation": "questions and answers together, or the whole of a plain text",
    "answer": "answers only, or the whole of a plain text",
}
"""By `DuplicateFilter.of`."""
EXAMPLES_PER_FILTER = 8
"""Dropped rows of each filter in the report."""
HIDDEN_TEXT = "(not shown: it has personal data)"
"""Replaces a text in the report, since reports are passed on."""
MOST_UNREADABLE_ROWS = 20
"""Unreadable rows in the report."""
INDEX_BATCH_ROWS = 200_000
"""Rows added to an index at once."""
SIGNATURE_BATCH_ROWS = 20_000
"""Rows whose signatures are written at once: 25 MB."""


class FilterListSettings(BaseModel):
    """What `--set` of `stillhouse filter` can set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filters: tuple[FilterConfig, ...] = DEFAULT_FILTERS


def filter_dataset(
    source: Path, out: Path, configs: Sequence[FilterConfig], folder: Path = Path(), workers: int | str | None = None
) -> FilterReport:
    """Write to `out` the kept rows (unchanged except for masks, in input order), `dropped.parquet`, `aside.jsonl` with
    unreadable rows, and the report.

    What people decided in the reviews of its files comes first: a row that they kept stays, whatever filters say, one that they
    dropped goes, and a corrected one has the corrected text.

    A stopped command resumes from its checkpoint; one with other thresholds does not filter single rows again. Relative paths
    of filters start from `folder`. `workers` is the number of processes (default: one per processor) or the address of a Dask
    scheduler.

    Raises:
        RecipeError: if a filter lacks a package or a file.
        UsageError: if the input cannot be read, or `out` contains other files or the result of another input.
        RunInUse: if another command writes to `out`.
        StoreError: if the disk is full.
    """
    with _remove_new_folders_on_refusal(out), lock_output(out):
        return _filter_into_folder(source, out, configs, folder, workers)


def _filter_into_folder(
    source: Path, out: Path, configs: Sequence[FilterConfig], folder: Path, workers: int | str | None
) -> FilterReport:
    start = time.monotonic()
    files = find_dataset_files(source)
    if problems := list(find_filter_problems(configs, folder)):
        raise RecipeError("filters", problems)
    check_dataset_rows(source, files)
    if isinstance(workers, str) and any(isinstance(config, MinHashFilter) and config.index for config in configs):
        raise UsageError("--cluster: cannot check against an index; leave one of the two out")
    purpose = "--cluster" if isinstance(workers, str) else f"workers = {workers}"
    local = find_registered(list_filter_extensions(configs), purpose)
    if local and workers not in (None, 1):
        raise UsageError(local)
    reviews = read_row_overrides(files)
    identity = build_checkpoint_identity(files, configs, folder)
    identity |= {"reviews": reviews.digest} if reviews.decisions else {}
    if (out / "report.json").exists() and read_checkpoint_identity(out / "work") != identity:
        raise UsageError(
            f"{out}: contains the result of another input, other filters or other reviews; give another folder"
        )
    checkpoint = FilterCheckpoint(out / "work", identity, configs)
    if isinstance(workers, str):
        started_workers = connect_cluster_workers(workers)
    else:
        # A registered filter is known in this process only.
        most = SMALL_INPUT_BYTES * (FAST_FACTOR if all(config.type in FAST_FILTERS for config in configs) else 1)
        small = sum(file.stat().st_size for file in files) <= most or (workers is None and local is not None)
        started_workers = start_filter_processes(1 if small else workers or os.cpu_count() or 1)
    with started_workers as pool:
        _filter_all_batches(files, checkpoint, configs, folder, pool, reviews)
        SESSION.print_unless_stopped(f"comparing {checkpoint.count:,} rows")
        decided = find_decided_rows(files, checkpoint.spans, reviews)
        judged, among = apply_row_decisions(checkpoint.load_results(), decided, len(configs))
        duplicates = find_duplicates(judged, configs, folder, among, compare=pool.compare)
    SESSION.print_unless_stopped("writing")
    decisions = RowDecisions.combine(judged, duplicates)
    decisions.step[[place for place, decision in decided.items() if decision.keeps]] = -1
    report = _write_results(source, out, files, checkpoint, decisions, configs, folder, decided)
    report = report.model_copy(update={"reviews": count_row_decisions(decided, reviews)})
    seconds = time.monotonic() - start
    timing = {"seconds": seconds, "rows_per_second": report.counts.candidates / seconds, "workers": pool.threads}
    report = report.model_copy(update=timing)
    write_filter_report(out, report)
    return report


@contextmanager
def _remove_new_folders_on_refusal(out: Path) -> Iterator[None]:
    """On a UsageError, remove the folders that the command made: the same command can never succeed with their contents. Those
    of another running command stay.
    """
    work = out / "work"
    new_folders = [folder for folder in (work, out, *out.parents) if not folder.exists()]
    try:
        yield
    except RunInUse:
        raise
    except UsageError:
        if work in new_folders:
            shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):  # a folder with other contents stays
            for folder in new_folders:
                if folder.exists():
                    folder.rmdir()
        raise


def _filter_all_batches(
    files: Sequence[Path],
    checkpoint: FilterCheckpoint,
    configs: Sequence[FilterConfig],
    folder: Path,
    workers: FilterWorkers,
    reviews: RowOverrides,
) -> None:
    """Raises UsageError if no row can be read, UserInterrupt if the user stops; finished batches are on disk then."""
    sizes = [file.stat().st_size for file in files]
    progress = _FilterProgress(checkpoint.count, sizes)
    build = reviews.build_document if reviews.decisions else build_row_document
    read = choose_document_reader(configs, files, build)
    for batch, result in filter_missing_batches(files, checkpoint, configs, folder, workers, read):
        if not checkpoint.spans and not result.numbers and result.unreadable:
            first = result.unreadable[0]
            raise UsageError(f"{files[batch.file]}: no row can be read; line {first.line} {first.error}")
        checkpoint.add(batch.file, result)
        SESSION.show_progress(partial(progress.format_progress, batch, checkpoint.count))
        if SESSION.stop.is_set():
            raise UserInterrupt


class _FilterProgress:
    """Share of the input that is filtered, rows per second, and the time left."""

    def __init__(self, rows: int, sizes: Sequence[int]) -> None:
        self._rows = rows
        self._offsets = [0, *accumulate(sizes)]
        self._first_done: int | None = None
        self._start = time.monotonic()

    def format_progress(self, batch: RowBatch, rows: int) -> str:
        done, size = self._offsets[batch.file] + batch.end, self._offsets[-1]
        self._first_done = done if self._first_done is None else self._first_done
        seconds = time.monotonic() - self._start
        rate = (rows - self._rows) / seconds
        speed = (done - self._first_done) / seconds
        left = f", {format_duration((size - done) / speed)} left" if speed else ""
        return f"filtered {rows:,} rows, {done / size:.0%}, {rate:,.0f} rows/s{left}"


def _write_results(
    source: Path, out: Path, files: Sequence[Path], checkpoint: FilterCheckpoint, decisions: RowDecisions,
    configs: Sequence[FilterConfig], folder: Path, decided: Mapping[int, Override],
) -> FilterReport:  # fmt: skip
    dropped = np.flatnonzero(decisions.step >= 0).tolist()
    originals = {place: decisions.find_original(place) for place in dropped}
    named = [place for pair in originals.items() for place in pair if place is not None and place >= 0]
    lookup = DropLookup(decisions, configs, folder, RowNames(files, checkpoint, named))
    shown = [place for step in range(len(configs)) for place in _select_example_places(decisions, step)]
    pairs = [(place, originals[place]) for place in shown]
    wanted = frozenset(place for pair in pairs for place in pair if place is not None and place >= 0)
    masks = {place: found for place, found in decisions.judged.masks.items() if decisions.step[place] < 0}
    corrections = {place: decision for place, decision in decided.items() if decision.edited is not None}
    plan = FilterOutputPlan(decisions.step < 0, lookup.find_drop, masks, wanted, corrections)
    texts = write_filter_output(files, out, checkpoint, plan)
    unreadable = list(islice(checkpoint.read_unreadable_lines(), MOST_UNREADABLE_ROWS))
    rows, failed = decisions.step.size, sum(1 for _ in checkpoint.read_unreadable_lines())
    steps, left = [], rows
    for step, config in enumerate(configs):
        count = int(np.count_nonzero(decisions.step == step))
        compared = config.compares or None if isinstance(config, KeepOneFilter) else None
        steps.append(
            FilterStep(
                filter=config.type,
                options=config.model_dump(mode="json", exclude={"type"}),
                rows_in=left,
                dropped=count,
                unjudged=decisions.judged.unjudged.get(step, 0),
                compared=COMPARED_PARTS[config.of] if isinstance(config, DuplicateFilter) else compared,
            )
        )
        left -= count
    if decided:
        count = int(np.count_nonzero(decisions.step == len(configs)))
        steps.append(FilterStep(filter="review", options={}, rows_in=left, dropped=count))
        left -= count
    return FilterReport(
        source=str(source),
        out=str(out),
        kept=str(out / name_kept_file(files)),
        counts=SampleCounts(candidates=rows + failed, kept=left, dropped=len(dropped), failed=failed),
        steps=tuple(steps),
        reasons=dict(Counter(lookup.find_reason(place) for place in dropped).most_common()),
        masked=len(masks),
        contamination=build_all_set_reports([drop for _, drop in decisions.judged.drops.values()], configs, folder),
        histograms=count_similarities(decisions.duplicates, configs),
        examples=tuple(_build_dropped_example(place, lookup, configs, texts) for place in shown),
        asides=tuple(UnreadableRow(file=str(files[file]), line=row.line, error=row.error) for file, row in unreadable),
        seconds=0.0,
        rows_per_second=0.0,
    )


def _select_example_places(decisions: RowDecisions, step: int) -> list[int]:
    """Rows that a filter dropped: of duplicates from the least to the most similar, of other rows the first."""
    places = np.flatnonzero(decisions.step == step)
    repeats = decisions.duplicates.repeats
    similarities = np.array([repeats[place].similarity if place in repeats else 0.0 for place in places.tolist()])
    if not similarities.any():
        return [int(place) for place in places[:EXAMPLES_PER_FILTER]]
    order = places[np.argsort(similarities, kind="stable")]
    evenly = np.unique(np.linspace(0, order.size - 1, EXAMPLES_PER_FILTER).round().astype(int))
    return [int(order[i]) for i in evenly]


def _build_dropped_example(
    place: int, lookup: DropLookup, configs: Sequence[FilterConfig], texts: Mapping[int, Document]
) -> DroppedExample:
    decisions, (row, drop, _) = lookup.decisions, lookup.find_drop(place)
    config, original = configs[int(decisions.step[place])], decisions.find_original(place)
    return DroppedExample(
        filter=drop.filter,
        reason=drop.reason,
        detail=drop.detail,
        score=drop.score,
        row=str(row),
        id=drop.id,
        text=_select_shown_text(place, decisions.judged, config, texts),
        duplicate_of=drop.duplicate_of,
        original=None
        if original is None or original < 0
        else _select_shown_text(original, decisions.judged, config, texts),
    )


def _select_shown_text(place: int, judged: RowFilterResult, config: FilterConfig, texts: Mapping[int, Document]) -> str:
    """The part of the row that the filter read, without the personal data that any filter found."""
    if place in judged.drops and judged.drops[place][1].reason == RejectionReason.personal_data:
        return HIDDEN_TEXT
    document = texts[place].apply_masks(judged.masks.get(place, ()))
    if config.type == "novelty":
        return document.question or document.asked or document.text
    return document.text if getattr(config, "of", "conversation") == "answer" else document.with_question.text


def parse_filter_settings(settings: Sequence[str], names: str | None = None) -> Sequence[FilterConfig]:
    """The filters of the setting `filters`; or those in `names`, separated by commas, with their defaults; or the default ones.

    Raises:
        RecipeError: for a setting other than `filters`.
    """
    if names is not None:
        types = [name.strip() for name in names.split(",") if name.strip()]
        tables = ", ".join(f"{{ type = {json.dumps(filter_type)} }}" for filter_type in types)
        settings = [f"filters=[{tables}]", *settings]
    return parse_settings(FilterListSettings, settings).filters


def apply_duplicate_index(configs: Sequence[FilterConfig], index: Path) -> Sequence[FilterConfig]:
    """The filters, each `minhash` filter with this index. A `minhash` filter without `of` compares what the index contains.

    Raises:
        UsageError: if no filter is a `minhash` filter.
    """
    if not any(isinstance(config, MinHashFilter) for config in configs):
        raise UsageError("--index: only the filter `minhash` uses an index, and it is not among the filters; add it")
    updated: list[FilterConfig] = []
    for config in configs:
        if isinstance(config, MinHashFilter):
            update: dict[str, Any] = {"index": str(index.resolve())}
            if "of" not in config.model_fields_set and (index / HEADER_FILE).exists():
                update["of"] = DuplicateIndex(index, ngram=config.ngram).of
            config = config.model_copy(update=update)
        updated.append(config)
    return updated


def add_to_duplicate_index(
    folder: Path, source: Path, name: str, ngram: int, progress: Callable[[str], None], of: str | None = None
) -> int:
    """Add a dataset to the index in `folder`, under `name`. Rows that the index already contains under that name are skipped.
    `of` says which part of a conversation is added. Returns the number of new rows.

    Raises:
        UsageError: if a row cannot be read, or the index has another n-gram or another `of`.
    """
    index = DuplicateIndex(folder, ngram=ngram, of=of)
    before, answers = index.count_documents(name), index.of == "answer"
    rows = (document if answers else document.with_question for document in read_dataset_documents(source))
    texts = islice((document.text for document in rows), before, None)
    while part := list(islice(texts, INDEX_BATCH_ROWS)):
        index.add(build_shingle_sets(part, ngram), name)
        progress(f"{index.count_documents(name):,} rows of {name} are in the index")
    return index.count_documents(name) - before


def describe_duplicate_index(folder: Path, ngram: int) -> dict[str, Any]:
    """The number of documents in an index, by source, and its size. Raises UsageError if there is no index."""
    if not (folder / HEADER_FILE).exists():
        raise UsageError(f"{folder}: no index of near-duplicates; create it with --add DATASET")
    index = DuplicateIndex(folder, ngram=ngram)
    names = dict.fromkeys(source.name for source in index.sources)
    return {
        "documents": len(index),
        "of": index.of,
        "bytes": index.size_bytes,
        "sources": {name: index.count_documents(name) for name in names},
    }


def write_datasketch_file(file: Path, source: Path, name: str, ngram: int, of: str) -> int:
    """Write the MinHash signatures of a dataset for datasketch; keys are `name:row`. Returns the number of rows.

    Raises:
        UsageError: if a row cannot be read.
        StoreError: if a file cannot be written.
    """
    documents = read_dataset_documents(source)
    texts = (document.text if of == "answer" else document.with_question.text for document in documents)
    batches = iter(lambda: list(islice(texts, SIGNATURE_BATCH_ROWS)), [])
    numbers = count(1)
    rows = (([f"{name}:{next(numbers)}" for _ in batch], build_shingle_sets(batch, ngram)) for batch in batches)
    return write_signatures(file, rows, SignatureSettings(ngram, of))


def import_datasketch_file(folder: Path, file: Path, name: str, ngram: int, of: str | None = None) -> int:
    """Add the rows of a signature file to the index in `folder`; a new index takes `of` from the file. Returns the number of new
    rows.

    Raises:
        UsageError: if the file cannot be read, or differs from the index in n-gram or part of conversations.
    """
    if not (folder / HEADER_FILE).exists():
        of = of or read_signatures(file).settings.of
    return DuplicateIndex(folder, ngram=ngram, of=of).import_signatures(file, name)
