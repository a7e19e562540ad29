"""`filter`, `assess` and `distill` on any dataset: the same filters, metrics and trainer as in a run, without Prefect."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict

from core.errors import RecipeError, UsageError
from core.loading import parse_settings
from core.recipe import DEFAULT_FILTERS, CollapseConfig, FilterConfig, StudentConfig
from core.run import CollapseRecord, CollapseVerdict, StudentRecord
from core.store import counted, write_json
from filters import apply_filters
from filters.base import Drop
from filters.contamination import all_reports
from filters.needs import filter_problems
from flows import stages
from flows.datasets import conversations, documents, mask_rows, read_rows, write_rows

if TYPE_CHECKING:
    import polars as pl


class FilterSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    filters: tuple[FilterConfig, ...] = DEFAULT_FILTERS


T = TypeVar("T", bound=BaseModel)


def parse_filters(settings: Sequence[str]) -> Sequence[FilterConfig]:
    """Raises RecipeError for a setting that is not `filters`."""
    return parse_settings(FilterSettings, settings).filters


def parse_student(settings: Sequence[str]) -> StudentConfig:
    return parse_settings(StudentConfig, settings)


def filter_dataset(source: Path, out: Path, configs: Sequence[FilterConfig]) -> dict[str, Any]:
    """Write `kept`, `dropped.parquet` and `report.json` to `out`; rows keep all their columns and their order, and kept ones
    are unchanged but for what filters mask.

    Raises:
        RecipeError: if a filter lacks a package or a file.
    """
    frame = read_rows(source)
    texts = documents(frame, source)
    if problems := list(filter_problems(configs, Path.cwd())):
        raise RecipeError("--set", problems)
    result = apply_filters(texts, configs)
    place = {document.id: i for i, document in enumerate(texts)}
    drops = sorted(result.dropped, key=lambda drop: place[drop.id])
    ending = ".jsonl" if source.suffix == ".jsonl" else ".parquet"
    kept = frame[[place[document.id] for document in result.kept]]
    masks = {i: document.masks for i, document in enumerate(result.kept) if document.masks}
    write_rows(out / f"kept{ending}", mask_rows(kept, masks))
    write_rows(out / "dropped.parquet", _with_reasons(frame[[place[drop.id] for drop in drops]], drops))
    counts = {"candidates": len(frame), "kept": len(result.kept), "dropped": len(drops), "failed": 0}
    report = {
        "counts": counts,
        "reasons": counted(str(drop.reason) for drop in drops),
        "masked": len(masks),
        "contamination": all_reports(drops, configs, Path.cwd()),
    }
    write_json(out / "report.json", {"source": str(source), **report})
    return report


def _with_reasons(rows: "pl.DataFrame", drops: Sequence[Drop]) -> "pl.DataFrame":
    """`rows` with why each was dropped; a column name that is taken gets `drop_` before it."""
    import polars as pl

    types = {
        "filter": pl.String,
        "reason": pl.String,
        "score": pl.Float64,
        "duplicate_of": pl.String,
        "detail": pl.String,
    }
    why = pl.DataFrame([drop.model_dump(mode="json") for drop in drops], schema={"id": pl.String, **types}).drop("id")
    return rows.hstack(why.rename({name: f"drop_{name}" for name in types if name in rows.columns}))


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

    texts = [document.text for document in documents(read_rows(source), source)]
    config = CollapseConfig(reference=str(reference))
    collapse = stages.assess(texts, config, Path.cwd(), seed, cache)
    if parent is None:
        return Assessment(collapse=collapse)
    earlier = [document.text for document in documents(read_rows(parent), parent)]
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
    """Train a student on a dataset's conversations. Raises UsageError where there are too few."""
    rows = conversations(read_rows(source), source)
    if len(rows) < 2:
        raise UsageError(f"{source}: {len(rows)} conversations are too few to train on and to hold one out")
    return stages.distill(rows, None, config, out, seed=seed, progress=progress)
