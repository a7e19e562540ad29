"""What the records of a run, a release or `filter` say about its dataset, as figures to put side by side. Reads no row."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.errors import StoreError, UsageError
from core.intervals import IntervalEstimate, estimate_share
from core.runs.lineage import find_release
from core.runs.records import CollapseRecord, DifficultyRecord, RunManifest
from core.runs.releases import Release, locate_releases
from core.runs.run_dir import RunDir
from core.runs.student_records import EvaluationRecord
from core.sample import FrozenModel
from core.storage.atomic_files import read_json
from flows.data.dataset_origin import find_surrounding_run
from flows.data.run_storage import RunStorage

FILTER_REPORT = "report.json"


class Figure(FrozenModel):
    """A value of a record."""

    value: float | str
    low: float | None = None
    high: float | None = None
    """The ends of its 95 % interval, if it has one."""
    is_share: bool = False
    """Whether it is a share, which is shown in percent."""


class FigureName(NamedTuple):
    group: str
    name: str


Figures = dict[FigureName, Figure]


class DatasetRecords(NamedTuple):
    """What is recorded about a dataset."""

    kind: Literal["files", "run", "release", "filtered"]
    name: str
    """The name of the run or release, or the given path."""
    path: Path
    """What the rows are read from."""
    figures: Figures
    reasons: Mapping[str, int]
    """Dropped and failed samples by reason."""


def find_dataset_records(named: str, storage: RunStorage) -> DatasetRecords:
    """The records of a path, a run of `storage` or one of its releases.

    Raises:
        UsageError: if there is no such path, run or release.
        StoreError: if a record is damaged.
    """
    path = Path(named)
    if release := find_release(path, locate_releases(storage.runs)):
        return _describe_release(release, path)
    if run := (find_surrounding_run(path) if path.exists() else _find_named_run(named, storage)):
        return _describe_run(run, path)
    report = read_json(path / FILTER_REPORT) if (path / FILTER_REPORT).is_file() else None
    if isinstance(report, dict) and isinstance(report.get("counts"), dict) and isinstance(report.get("reasons"), dict):
        figures = dict(_list_yield_figures(**{key: int(report["counts"][key]) for key in ("candidates", "kept")}))
        return DatasetRecords("filtered", named, path, figures, report["reasons"])
    return DatasetRecords("files", named, path, {}, {})


def _find_named_run(named: str, storage: RunStorage) -> RunDir | None:
    """The run called `named`. None if it is a path with folders, of which `find_dataset_files` says what is wrong."""
    return None if len(Path(named).parts) > 1 else storage.find_run(named)


def _describe_release(release: Release, path: Path) -> DatasetRecords:
    figures, reasons = _collect_figures(release.manifest.run), release.manifest.run.reasons
    return DatasetRecords("release", release.name, path if path.exists() else release.path, figures, reasons)


def _describe_run(run: RunDir, path: Path) -> DatasetRecords:
    manifest = run.read_manifest()
    checks: list[dict[str, Any]] = []
    try:
        checks = read_json(run.report_file.with_suffix(".json")).get("checks", [])
    except StoreError:
        checks = []  # a run that was not finished has no report
    figures = _collect_figures(manifest)
    for check in checks:
        if share := estimate_share(check["passed"], check["verdicts"]):
            figures[FigureName("checks", str(check["check"]))] = _build_share(share)
    return DatasetRecords("run", run.name, path if path.exists() else run.path, figures, manifest.reasons)


def _collect_figures(manifest: RunManifest) -> Figures:
    figures = dict(_list_yield_figures(manifest.counts.candidates, manifest.counts.kept))
    if manifest.generator:
        figures[FigureName("yield", "generator")] = Figure(value=manifest.generator)
    figures[FigureName("yield", "teacher calls")] = Figure(value=manifest.usage.calls)
    figures[FigureName("yield", "tokens written")] = Figure(value=manifest.usage.completion_tokens)
    if manifest.currency and manifest.paid.cost:
        figures[FigureName("yield", f"cost in {manifest.currency}")] = Figure(value=round(manifest.paid.cost, 4))
    if manifest.difficulty:
        figures |= dict(_list_difficulty_figures(manifest.difficulty))
    if manifest.collapse:
        figures |= dict(_list_collapse_figures(manifest.collapse))
    if student := manifest.student:
        values: dict[str, float | str | None] = {
            "start": student.start, "parameters": student.parameters, "trained on": student.train_samples,
            "held-out loss before": round(student.loss_before, 4), "held-out loss after": round(student.loss_after, 4),
            "divergence after": student.kl_after and round(student.kl_after, 4),
        }  # fmt: skip
        figures |= {
            FigureName("student", name): Figure(value=value) for name, value in values.items() if value is not None
        }
    if manifest.evaluation:
        figures |= dict(_list_evaluation_figures(manifest.evaluation))
    return figures


def _list_yield_figures(candidates: int, kept: int) -> Iterator[tuple[FigureName, Figure]]:
    yield FigureName("yield", "candidates"), Figure(value=candidates)
    yield FigureName("yield", "kept"), Figure(value=kept)
    if share := estimate_share(kept, candidates):
        yield FigureName("yield", "share kept"), _build_share(share)


def _list_difficulty_figures(record: DifficultyRecord) -> Iterator[tuple[FigureName, Figure]]:
    kept = sum(record.kept)
    if kept:
        mean = sum(rate * number for rate, _, number in record.rows) / kept
        yield FigureName("difficulty", "mean pass rate of kept"), Figure(value=round(mean, 4), is_share=True)


def _list_collapse_figures(record: CollapseRecord) -> Iterator[tuple[FigureName, Figure]]:
    yield FigureName("collapse", "verdict"), Figure(value=str(record.verdict))
    yield (
        FigureName("collapse", "compared with"),
        Figure(value=Path(record.reference).name if record.reference else "itself (repetition only)"),
    )
    yield FigureName("collapse", "documents compared"), Figure(value=record.documents)
    for metric in record.metrics:
        low, high = metric.interval or (None, None)
        yield FigureName("collapse", metric.name), Figure(value=metric.candidate, low=low, high=high)


def _list_evaluation_figures(record: EvaluationRecord) -> Iterator[tuple[FigureName, Figure]]:
    yield FigureName("student", "held-out requests"), Figure(value=record.requests)
    for model in record.models:
        yield FigureName("student", f"{model.role} passes"), _build_share(model.pass_rate)
    if record.panel:
        for role in ("start", "student"):
            if found := record.panel.find_model(role):
                yield FigureName("student", f"general panel, {role}"), _build_share(found.pass_rate)


def _build_share(share: IntervalEstimate) -> Figure:
    return Figure(value=share.value, low=share.low, high=share.high, is_share=True)


def check_different(a: DatasetRecords, b: DatasetRecords) -> None:
    """Raises UsageError if both are the same path."""
    if a.path.exists() and b.path.exists() and a.path.resolve() == b.path.resolve():
        raise UsageError(f"{a.path}: is compared with itself; name two datasets")
