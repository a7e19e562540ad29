"""`assess`, `distill` and `index` on any dataset, and which filters `filter` takes: the same metrics, trainer and filters as
in a run, without Prefect.
"""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.filter_config import DEFAULT_FILTERS, FilterConfig, MinHashFilter
from core.loading import parse_settings
from core.recipe import CollapseConfig
from core.run import CollapseRecord, CollapseVerdict, StudentRecord
from core.sample import Message
from core.store import check_writable
from core.student_config import StudentConfig
from filters.index import HEADER, Index
from filters.shingles import shingle_sets
from flows import stages
from flows.rows import conversations, documents, pairs

ADDED = 200_000
"""Rows taken into an index at once."""


class FilterSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    filters: tuple[FilterConfig, ...] = DEFAULT_FILTERS


def parse_filters(settings: Sequence[str], names: str | None = None) -> Sequence[FilterConfig]:
    """Those of the setting `filters`, or those called `names` (separated by commas) with their defaults, or the usual ones.

    Raises:
        RecipeError: for a setting that is not `filters`.
    """
    if names is not None:
        types = [name.strip() for name in names.split(",") if name.strip()]
        tables = ", ".join(f"{{ type = {json.dumps(one)} }}" for one in types)
        settings = [f"filters=[{tables}]", *settings]
    return parse_settings(FilterSettings, settings).filters


def with_index(configs: Sequence[FilterConfig], index: Path) -> Sequence[FilterConfig]:
    """The filters, the `minhash` ones with this index. Raises UsageError where there is none."""
    if not any(isinstance(config, MinHashFilter) for config in configs):
        raise UsageError("--index: is for the filter `minhash`, which is not among the filters; add it")
    update = {"index": str(index.resolve())}
    return [config.model_copy(update=update) if isinstance(config, MinHashFilter) else config for config in configs]


def add_to_index(folder: Path, source: Path, name: str, ngram: int, progress: Callable[[str], None]) -> int:
    """Take the answers of a dataset into the index in `folder`, under `name`; what it holds of that name already is not taken
    in again. Returns how many were new.

    Raises:
        UsageError: if a row cannot be read, or the index is of another n-gram.
    """
    index = Index(folder, ngram=ngram)
    before = index.held(name)
    texts = islice((document.text for document in documents(source)), before, None)
    while part := list(islice(texts, ADDED)):
        index.add(shingle_sets(part, ngram), name)
        progress(f"{index.held(name):,} rows of {name} are in the index")
    return index.held(name) - before


def parse_student(settings: Sequence[str]) -> StudentConfig:
    """Raises RecipeError with every problem found, UsageError for a key as a recipe has it."""
    if told := next((setting for setting in settings if setting.startswith("student.")), None):
        raise UsageError(f"--set {told}: `distill` takes the student's own keys; leave out `student.`")
    return parse_settings(StudentConfig, settings)


def index_record(folder: Path, ngram: int) -> dict[str, Any]:
    """How many documents an index holds, of which sources, and its size. Raises UsageError where there is none."""
    if not (folder / HEADER).exists():
        raise UsageError(f"{folder}: no index of near-duplicates; name a dataset to --add")
    index = Index(folder, ngram=ngram)
    names = dict.fromkeys(source.name for source in index.sources)
    return {"documents": len(index), "bytes": index.bytes, "sources": {name: index.held(name) for name in names}}


class Assessment(BaseModel):
    """A dataset beside real text, and beside the dataset that it came after."""

    model_config = ConfigDict(frozen=True)

    collapse: CollapseRecord
    parent: CollapseRecord | None = None

    @property
    def verdict(self) -> CollapseVerdict:
        """The graver of the two, in the order of `CollapseVerdict`."""
        verdicts = {record.verdict for record in (self.collapse, self.parent) if record}
        return next(verdict for verdict in CollapseVerdict if verdict in verdicts)

    @property
    def gates(self) -> list[str]:
        """The evidence of collapse, a sentence each."""
        records = [
            record for record in (self.collapse, self.parent) if record and record.verdict is CollapseVerdict.collapse
        ]
        return [f"beside {record.reference}: {sentence}" for record in records for sentence in record.evidence]


def assess_dataset(source: Path, reference: Path, seed: int, *, parent: Path | None, cache: Path) -> Assessment:
    """Judge a dataset by real text, and what it adds to its parent by the parent.

    Raises:
        UsageError: if one of them cannot be read, or the dataset adds nothing to its parent.
    """
    from filters.collapse import measure

    texts = [document.text for document in documents(source)]
    config = CollapseConfig(reference=str(reference))
    collapse = stages.assess(texts, config, Path.cwd(), seed, cache)
    if parent is None:
        return Assessment(collapse=collapse)
    earlier = [document.text for document in documents(parent)]
    there = set(earlier)
    added = [text for text in texts if text not in there]
    if not added:
        raise UsageError(
            f"{source}: has no row that {parent} lacks, so there is nothing to compare; leave out --parent"
        )
    beside = measure(added, earlier, name=str(parent), seed=seed, cache=cache / stages.NULLS)
    return Assessment(collapse=collapse, parent=beside)


def distill_dataset(
    source: Path, out: Path, config: StudentConfig, seed: int, progress: Callable[[str], None]
) -> StudentRecord:
    """Train a student on a dataset's conversations, or on its pairs of them for `dpo`. Raises UsageError where there are too
    few, StoreError where `out` cannot be written.
    """
    check_writable(out)
    rejected: list[list[Message]] = []
    if "dpo" in config.weights:
        paired = pairs(source)
        rows, rejected = [pair.chosen for pair in paired], [pair.rejected for pair in paired]
    else:
        rows = conversations(source)
    if len(rows) < 2:
        raise UsageError(f"{source}: {len(rows)} conversations are too few to train on and to hold one out")
    return stages.distill(rows, None, config, out, seed=seed, progress=progress, rejected=rejected)
