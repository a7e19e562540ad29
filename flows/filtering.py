"""`stillhouse filter`: any dataset through the filters of a recipe, however large.

Each row is judged by itself first, on all processors and batch by batch (`flows.judgements` keeps what is found); then rows
are compared by their sketches; then the input is read a second time, and every row goes where it belongs, unchanged.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import RecipeError, UsageError
from core.filter_config import ContaminationFilter, FilterConfig
from core.recipe import find_file
from core.sample import Reason
from core.store import file_hash, read_json
from filters.base import Document
from filters.chain import SET_FILTERS, Decisions, Judged, decide, drop_of, names_in_indexes
from filters.contamination import all_reports
from filters.needs import filter_problems
from flows.filter_report import (
    Aside,
    Example,
    FilterReport,
    RowCounts,
    Step,
    write_filter_report,
)
from flows.judgements import JudgedBatch, Judgements
from flows.outcome import Fate, Sorting, kept_name, write_outcome
from flows.rows import TEXT_COLUMNS, Batch, batches, files_of, state_of
from flows.session import SESSION, Interrupted
from flows.similarity import similarities
from flows.words import duration
from flows.workers import Workers, cluster, processes

COLUMNS = ("id", "score", *TEXT_COLUMNS, "input", "system", "history")
"""What filters read of Parquet."""
SMALL = 8 << 20
"""Bytes of input that one process judges as fast as several are started."""
DECIDING = {"threshold", "permutations", "index"}
"""Keys of filters on which no judgement of a row by itself depends."""
EXAMPLES = 8
"""Of each filter, in the report."""
UNTOLD = "(not shown: it has personal data)"
"""In the place of a text in the report, since reports travel."""
ASIDE = 20
"""Rows that could not be read, in the report."""


def filter_dataset(
    source: Path,
    out: Path,
    configs: Sequence[FilterConfig],
    folder: Path = Path(),
    workers: int | str | None = None,
) -> FilterReport:
    """Write kept rows (unchanged but for what filters mask, and in their order), `dropped.parquet`, `aside.jsonl` with rows
    that could not be read, and the report to `out`.

    A command that was stopped goes on where it was, and one with other thresholds reads no row again to judge it. Relative
    paths of filters start from `folder`. `workers` says how many processes judge, or where the scheduler of a Dask cluster is;
    left out, there are as many as processors.

    Raises:
        RecipeError: if a filter lacks a package or a file.
        UsageError: if the input cannot be read, or `out` holds what was made of another.
        StoreError: if the disk is full.
    """
    began = time.monotonic()
    files = files_of(source)
    if problems := list(filter_problems(configs, folder)):
        raise RecipeError("filters", problems)
    judgements = _taken_up(out, files, configs, folder)
    with _workers(files, workers) as several:
        _judge_all(files, judgements, configs, folder, several)
        SESSION.note(f"comparing {judgements.count:,} rows")
        judged = judgements.whole()
        decisions = decide(judged, configs, folder, compare=several.compare)
    (out / "report.json").unlink(missing_ok=True)
    SESSION.note("writing")
    report = _written(source, out, files, judgements, _Verdicts.of(judged, decisions), configs, folder)
    seconds = time.monotonic() - began
    timed = {"seconds": seconds, "rows_per_second": report.counts.candidates / seconds, "workers": several.threads}
    report = report.model_copy(update=timed)
    write_filter_report(out, report)
    return report


def _workers(files: Sequence[Path], wanted: int | str | None) -> AbstractContextManager[Workers]:
    if isinstance(wanted, str):
        return cluster(wanted)
    small = sum(file.stat().st_size for file in files) <= SMALL
    return processes(1 if small else wanted or os.cpu_count() or 1)


def _taken_up(out: Path, files: Sequence[Path], configs: Sequence[FilterConfig], folder: Path) -> Judgements:
    """What was judged so far. Raises UsageError if `out` holds what was made of something else."""
    identity = {
        "files": [state_of(file) for file in files],
        "filters": [config.model_dump(mode="json", exclude=DECIDING) for config in configs],
        "sets": {name: file_hash(find_file(name, folder)) for name in _evaluation_sets(configs)},
    }
    before = out / "work" / "input.json"
    finished = (out / "report.json").exists()
    if finished and not (before.exists() and read_json(before) == json.loads(json.dumps(identity))):
        raise UsageError(f"{out}: holds what was made of another input or with other filters; give another folder")
    return Judgements(out / "work", json.loads(json.dumps(identity)), configs)


def _evaluation_sets(configs: Sequence[FilterConfig]) -> list[str]:
    return [name for config in configs if isinstance(config, ContaminationFilter) for name in config.sets]


def _judge_all(
    files: Sequence[Path], judgements: Judgements, configs: Sequence[FilterConfig], folder: Path, workers: Workers
) -> None:
    """Raises UsageError if no row can be read, Interrupted if the user wants to stop: all before it is on disk then."""
    size = sum(file.stat().st_size for file in files)
    left = islice(batches(files, COLUMNS), len(judgements.spans), None)
    before = [sum(file.stat().st_size for file in files[:place]) for place in range(len(files))]
    pace = _Pace(judgements.count, size, before)
    for batch, result in workers.judged(left, configs, folder):
        _check_readable(files[batch.file], result, judgements)
        judgements.add(batch.file, result)
        SESSION.count(partial(pace.told, batch, judgements.count))
        if SESSION.stop.is_set():
            raise Interrupted


class _Pace:
    """How far judging is, how fast it goes and how long it will take."""

    def __init__(self, rows: int, size: int, before: Sequence[int]) -> None:
        self._rows = rows
        self._size = size
        self._before = before
        self._start: int | None = None
        self._began = time.monotonic()

    def told(self, batch: Batch, rows: int) -> str:
        done = self._before[batch.file] + batch.end
        self._start = done if self._start is None else self._start
        seconds = time.monotonic() - self._began
        rate = (rows - self._rows) / seconds
        speed = (done - self._start) / seconds
        left = f", {duration((self._size - done) / speed)} left" if speed else ""
        return f"judged {rows:,} rows, {done / self._size:.0%}, {rate:,.0f} rows/s{left}"


def _check_readable(file: Path, batch: JudgedBatch, judgements: Judgements) -> None:
    """A first batch without a single row is no dataset, or not one of these columns."""
    if not judgements.spans and not batch.numbers and batch.aside:
        first = batch.aside[0]
        raise UsageError(f"{file}: no row can be read; line {first.line} {first.error}")


class _Names:
    """What rows are called: by their ids, or else by where they lie."""

    def __init__(self, files: Sequence[Path], judgements: Judgements, places: Iterator[int]) -> None:
        self._names = _apart(files)
        self._spans = judgements.spans
        self._starts = np.array([span.first_place for span in judgements.spans])
        self._ids = judgements.ids(places)

    def row(self, place: int) -> str:
        """Its number from 1 on, after the name of the file if there are several."""
        span = self._spans[int(np.searchsorted(self._starts, place, side="right")) - 1]
        number = span.numbers[place - span.first_place]
        return f"{self._names[span.file]}:{number}" if len(self._names) > 1 else str(number)

    def id(self, place: int) -> str:
        return self._ids.get(place, self.row(place))


def _apart(files: Sequence[Path]) -> list[str]:
    """What files are called: by their names, or with their folders where two have the same name."""
    names = [file.name for file in files]
    if len(set(names)) == len(names):
        return names
    shared = os.path.commonpath([file.parent for file in files])
    return [file.relative_to(shared).as_posix() for file in files]


class _Verdicts(NamedTuple):
    """By which filter each row goes, -1 for those that stay, and why."""

    step: npt.NDArray[np.int16]
    judged: Judged
    decisions: Decisions

    @classmethod
    def of(cls, judged: Judged, decisions: Decisions) -> "_Verdicts":
        step = np.full(judged.documents, -1, dtype=np.int16)
        for place, (by, _) in judged.drops.items():
            step[place] = by
        for place, repeat in decisions.repeats.items():
            if step[place] < 0 or repeat.step < step[place]:
                step[place] = repeat.step
        return cls(step, judged, decisions)

    def original(self, place: int) -> int | None:
        """The place of what it repeats, if it goes for that."""
        repeat = self.decisions.repeats.get(place)
        return repeat.original if repeat and repeat.step == self.step[place] else None


def _written(
    source: Path, out: Path, files: Sequence[Path], judgements: Judgements, verdicts: _Verdicts,
    configs: Sequence[FilterConfig], folder: Path,
) -> FilterReport:  # fmt: skip
    dropped = np.flatnonzero(verdicts.step >= 0)
    originals = {place: verdicts.original(place) for place in dropped.tolist()}
    named = (place for pair in originals.items() for place in pair if place is not None and place >= 0)
    fates = _Fates(verdicts, configs, folder, _Names(files, judgements, named))
    shown = [place for step in range(len(configs)) for place in _exemplary(verdicts, step)]
    wanted = frozenset(place for one in shown for place in (one, originals[one]) if place is not None and place >= 0)
    masks = {place: some for place, some in verdicts.judged.masks.items() if verdicts.step[place] < 0}
    texts = write_outcome(files, out, judgements, Sorting(verdicts.step < 0, fates.of, masks, wanted))
    aside = list(islice(judgements.aside_rows(), ASIDE))
    return FilterReport(
        source=str(source),
        out=str(out),
        kept=str(out / kept_name(files)),
        counts=_counts(verdicts, judgements),
        steps=_steps(verdicts, configs),
        reasons=dict(Counter(fates.reason(place) for place in dropped.tolist()).most_common()),
        masked=len(masks),
        contamination=all_reports([drop for _, drop in verdicts.judged.drops.values()], configs, folder),
        histograms=similarities(verdicts.decisions, configs),
        examples=tuple(_example(place, fates, configs, texts) for place in shown),
        asides=tuple(Aside(file=str(files[file]), line=row.line, error=row.error) for file, row in aside),
        seconds=0.0,
        rows_per_second=0.0,
    )


class _Fates:
    """Why each row goes, told when it is asked."""

    def __init__(self, verdicts: _Verdicts, configs: Sequence[FilterConfig], folder: Path, names: _Names) -> None:
        self.verdicts = verdicts
        self._configs = configs
        self._name_in_index = names_in_indexes(configs, folder)
        self._names = names

    def of(self, place: int) -> Fate:
        name, row, original = self._names.id(place), self._names.row(place), self.verdicts.original(place)
        if original is None:
            return Fate(row, self.verdicts.judged.drops[place][1].model_copy(update={"id": name}), None)
        repeat = self.verdicts.decisions.repeats[place]
        config = self._configs[repeat.step]
        if original < 0:
            return Fate(row, drop_of(name, repeat, config, self._name_in_index(repeat)), None)
        return Fate(row, drop_of(name, repeat, config, self._names.id(original)), self._names.row(original))

    def reason(self, place: int) -> str:
        by = self.verdicts.step[place]
        drop = self.verdicts.judged.drops.get(place)
        return str(drop[1].reason if drop and drop[0] == by else SET_FILTERS[self._configs[by].type].reason)


def _counts(verdicts: _Verdicts, judgements: Judgements) -> RowCounts:
    kept, failed = int(np.count_nonzero(verdicts.step < 0)), sum(1 for _ in judgements.aside_rows())
    rows = verdicts.step.size
    return RowCounts(candidates=rows + failed, kept=kept, dropped=rows - kept, failed=failed)


def _steps(verdicts: _Verdicts, configs: Sequence[FilterConfig]) -> tuple[Step, ...]:
    steps, left = [], verdicts.step.size
    for step, config in enumerate(configs):
        dropped = int(np.count_nonzero(verdicts.step == step))
        options = config.model_dump(mode="json", exclude={"type"})
        steps.append(Step(filter=config.type, options=options, rows_in=left, dropped=dropped))
        left -= dropped
    return tuple(steps)


def _exemplary(verdicts: _Verdicts, step: int) -> list[int]:
    """Some of the rows that a filter dropped: of duplicates from the least alike to the most, of others the first."""
    places = np.flatnonzero(verdicts.step == step)
    repeats = verdicts.decisions.repeats
    alike = np.array([repeats[place].similarity if place in repeats else 0.0 for place in places.tolist()])
    order = places[np.argsort(alike, kind="stable")]
    if not alike.any():
        return [int(place) for place in places[:EXAMPLES]]
    some = np.unique(np.linspace(0, order.size - 1, EXAMPLES).round().astype(int))
    return [int(order[i]) for i in some]


def _example(place: int, fates: _Fates, configs: Sequence[FilterConfig], texts: dict[int, Document]) -> Example:
    fate, original = fates.of(place), fates.verdicts.original(place)
    config = configs[int(fates.verdicts.step[place])]
    return Example(
        filter=fate.drop.filter,
        reason=fate.drop.reason,
        detail=fate.drop.detail,
        score=fate.drop.score,
        row=fate.row,
        id=fate.drop.id,
        text=_shown(place, fates.verdicts.judged, config, texts),
        duplicate_of=fate.drop.duplicate_of,
        original=_shown(original, fates.verdicts.judged, config, texts)
        if original is not None and original >= 0
        else None,
    )


def _shown(place: int, judged: Judged, config: FilterConfig, texts: Mapping[int, Document]) -> str:
    """What the filter looked at, without personal data that was found, by whichever filter."""
    if place in judged.drops and judged.drops[place][1].reason == Reason.personal_data:
        return UNTOLD
    document = texts[place].masked(judged.masks.get(place, ()))
    if getattr(config, "of", "conversation") == "answer":
        return document.text
    return (document.question or document.asked or document.text) if config.type == "novelty" else document.whole.text
