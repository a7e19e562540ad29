"""The functions of the library. Each does what the command of the same name does, and returns what that command writes.

A call runs in its own thread and event loop, without signal handlers, with progress as a callback: a notebook already has a loop,
and its kernel handles signals. Ctrl-C, or the kernel's interrupt, stops the call as it stops the command.
"""

import asyncio
import gc
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, Union

from core.errors import StillhouseError, UsageError
from core.installation import explain_missing_packages
from core.runs.run_dir import RUNS_FOLDER
from core.shared_options import DEFAULT_GGUF_TYPE, DEFAULT_PANEL, DataKind
from stillhouse.results import Assessment, Filtered, LoadedRelease, Preview, Run, Student

if TYPE_CHECKING:
    import polars as pl
    from pydantic import BaseModel

    from core.config.filters import FilterConfig
    from flows.evaluate.dataset_evaluation import DatasetEvaluation
    from flows.evaluate.student_results import StudentEvaluation
    from flows.report.filter_report import FilterReport

Name = str | PathLike[str]
__all__ = [
    "Progress", "assess", "distill", "evaluate", "filter", "generate", "load_release", "preview", "run",
]  # fmt: skip
T = TypeVar("T")
WAIT_SECONDS = 0.2
"""How often the waiting thread looks for an interrupt."""
_one_call = threading.Lock()


class Progress(NamedTuple):
    """A message about long work."""

    message: str
    share: float | None
    """The share that is done, from 0 to 1; None where it is unknown."""


ProgressCallback = Callable[[Progress], None]


class _Frame(Protocol):
    """A frame of pandas or `datasets`."""

    def to_parquet(self, path: Any, /) -> Any: ...


Dataset = Union[Name, "pl.DataFrame", _Frame, Sequence[Mapping[str, Any]]]
"""A run, a release, a folder or a data file; a frame of polars, pandas or `datasets`, or a list of rows, in the forms of
docs/your-data.md."""
Columns = str | Mapping[str, str]
"""Which columns hold what, as in `{"user": "question", "assistant": "answer"}`."""
Settings = Mapping[str, Any]
"""Keys of a recipe with dots, as in `{"samples": 100, "teachers.main.model": "openai/gpt-4.1-mini"}`."""


def run(
    recipe: Name, *, settings: Settings | None = None, runs_dir: Name = RUNS_FOLDER, resume: bool = False,
    progress: ProgressCallback | None = None,
) -> Run:  # fmt: skip
    """Run all stages of a recipe: produce, curate, assess, package, and distill if the recipe has a student.

    Args:
        recipe: A built-in name, a .toml file, or a folder with a recipe.toml.
        settings: Keys of the recipe to override.
        runs_dir: Where runs are stored: a folder, or `s3://BUCKET/FOLDER`.
        resume: Continue the run if it exists. Finished samples and paid answers are used again.
        progress: Called with every message, from another thread.

    Raises:
        RecipeError: with all problems of the recipe.
        RunExists: if the run exists and `resume` is not set.
        RunFailed: if the run cannot continue; finished samples are stored.
        KeyboardInterrupt: after an interrupt; finished samples are stored.
    """
    return _execute(recipe, settings, runs_dir, progress, resume=resume, distill=True)


def generate(
    recipe: Name, *, settings: Settings | None = None, runs_dir: Name = RUNS_FOLDER, resume: bool = False,
    progress: ProgressCallback | None = None,
) -> Run:  # fmt: skip
    """As `run`, without a student."""
    return _execute(recipe, settings, runs_dir, progress, resume=resume, distill=False)


@explain_missing_packages()
def _execute(
    recipe: Name, settings: Settings | None, runs_dir: Name, progress: ProgressCallback | None, *, resume: bool, distill: bool
) -> Run:  # fmt: skip
    from flows.prefect_server.local_server import run_locally
    from flows.run.run_preparation import prepare_run

    def work() -> Run:
        prepared = prepare_run(str(recipe), _format_settings(settings), str(runs_dir), resume=resume, distill=distill)
        try:
            run_locally(prepared)
        finally:
            gc.unfreeze()  # the caller's objects, frozen during the run
        return Run(prepared.run.path, str(runs_dir))

    return run_call(work, progress)


@explain_missing_packages()
def preview(recipe: Name, number: int = 3, *, settings: Settings | None = None) -> Preview:
    """Make a few samples, each with every agent's turn, and estimate what a run takes. Nothing is stored.

    Raises:
        RecipeError: with all problems of the recipe.
        ProviderError: if a teacher cannot be reached.
    """
    from agents.studies.preview import estimate_run, preview_samples
    from flows.recipes.recipe_catalog import load_recipe_plan
    from flows.terminal.console import SESSION

    def work() -> Preview:
        plan = load_recipe_plan(str(recipe), _format_settings(settings))
        made = asyncio.run(preview_samples(plan, number, SESSION.stop))
        return Preview(made.samples, estimate_run(plan, made))

    return run_call(work, None)


@explain_missing_packages()
def filter(
    source: Dataset, out: Name | None = None, *, filters: Sequence[str | Mapping[str, Any]] | None = None,
    recipe: Name | None = None, index: Name | None = None, columns: Columns | None = None, workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Filtered:  # fmt: skip
    """Drop the rows of a dataset that filters reject. Kept rows are unchanged, except for what a filter masks.

    Args:
        source: The dataset.
        out: The folder to write. Without it nothing stays on disk.
        filters: Filters by name, as `"minhash"`, or with options, as `{"type": "minhash", "threshold": 0.7}`.
        recipe: Use the filters of a recipe instead.
        index: Also drop rows that repeat an earlier release in this index.
        columns: Which columns hold what, as in `{"user": "question", "assistant": "answer"}`; default: found from their names.
        workers: Number of processes; default: one per processor.
        progress: Called with every message, from another thread.

    Raises:
        RecipeError: if a filter or an option does not exist, or lacks a package.
        UsageError: if the dataset cannot be read, or `out` contains the result of another dataset.
    """
    from flows.clean.dataset_filter import apply_duplicate_index, filter_dataset, parse_filter_settings
    from flows.recipes.recipe_catalog import load_recipe_plan

    if recipe and filters is not None:
        raise UsageError("recipe: brings its own filters; leave out `filters`")

    def work() -> Filtered:
        import polars as pl

        plan = load_recipe_plan(str(recipe), []) if recipe else None
        configs: Sequence[FilterConfig]
        if plan:
            configs = plan.recipe.filters
        else:
            tables = [{"type": one} if isinstance(one, str) else one for one in filters or ()]
            configs = parse_filter_settings(_format_settings({} if filters is None else {"filters": tables}))
        configs = apply_duplicate_index(configs, Path(index)) if index else configs
        with ExitStack() as stack:
            file = place_dataset(source, stack, columns)
            folder = Path(out) if out else Path(stack.enter_context(tempfile.TemporaryDirectory())) / "out"
            report = filter_dataset(file, folder, configs, plan.folder if plan else Path(), workers)
            kept, dropped = _read_kept_rows(report), pl.read_parquet(folder / "dropped.parquet")
            if not out:
                report = report.model_copy(update={"out": "", "kept": ""})
            if not isinstance(source, str | PathLike):
                report = report.model_copy(update={"source": f"({type(source).__name__})"})
            return Filtered(report, kept, dropped, folder if out else None)

    return run_call(work, progress)


@explain_missing_packages()
def assess(
    source: Dataset,
    reference: Name | None = None,
    *,
    parent: Dataset | None = None,
    kind: DataKind | None = None,
    columns: Columns | None = None,
    seed: int = 7,
) -> Assessment:
    """Measure repetition in a dataset, or compare it with real text; also compare it with the dataset that it extends.

    Args:
        source: The dataset.
        reference: Real text of the same kind: a file of `stillhouse reference`, a dataset, or the name `python`. Without it, only
            repetition is measured.
        parent: The dataset that it extends.
        kind: What is counted in both; without it, it is found from the rows.
        columns: Which columns hold what, as of `filter`.
        seed: Random seed of the samples.

    Raises:
        UsageError: if a dataset cannot be read, or adds no row to its parent.
    """
    from flows.evaluate.dataset_assessment import assess_dataset

    def work() -> Assessment:
        with ExitStack() as stack:
            earlier = None if parent is None else place_dataset(parent, stack, columns)
            return Assessment(
                assess_dataset(
                    place_dataset(source, stack, columns),
                    str(reference) if reference else None,
                    seed,
                    parent=earlier,
                    cache=None,
                    kind=kind,
                )
            )

    return run_call(work, None)


@explain_missing_packages()
def distill(
    source: Dataset, out: Name, *, settings: Settings | None = None, columns: Columns | None = None, seed: int = 7,
    progress: ProgressCallback | None = None,
) -> Student:  # fmt: skip
    """Train a student on a dataset's conversations. Called again after an interruption, it resumes from the last checkpoint.

    Args:
        source: The dataset.
        out: The student's folder.
        settings: Keys of the student table, as in `{"epochs": 2}`.
        columns: Which columns hold what, as of `filter`.
        seed: Random seed.
        progress: Called with every message, from another thread.

    Raises:
        RecipeError: for a setting that does not exist.
        UsageError: if there are fewer than two conversations, or the extra `train` is not installed.
    """
    from flows.run.dataset_distillation import distill_dataset, parse_student_settings
    from flows.terminal.console import SESSION

    def work() -> Student:
        with ExitStack() as stack:
            config = parse_student_settings(_format_settings(settings))
            place = place_dataset(source, stack, columns)
            return Student(Path(out), distill_dataset(place, Path(out), config, seed, SESSION.print_unless_stopped))

    return run_call(work, progress)


@explain_missing_packages()
def evaluate(
    student: Student | Run | Name, *, data: Name | None = None, check: str | None = None, recipe: Name | None = None,
    number: int = 100, panel: int = DEFAULT_PANEL, kind: str = DEFAULT_GGUF_TYPE,
    columns: Columns | None = None,
    runs_dir: Name = RUNS_FOLDER, progress: ProgressCallback | None = None,
) -> "StudentEvaluation | DatasetEvaluation | Any":  # fmt: skip
    """Run a recipe's checks on a student, its teacher and its start; or, with `data`, compare student and start on rows.
    A student that sees is asked with the picture, blind and with another picture.

    Args:
        student: A student, a run that has one, or its folder.
        data: Your own rows in place of the recipe's seeds; rows that the student was trained on are left out.
        check: With `data`: `exact`, a built-in check, or `FILE.py:NAME`, which is executed.
        recipe: The recipe whose seeds and checks are used; default: that of the student's run.
        number: Number of held-out seeds, or of rows.
        panel: Tasks of the general panel, which the recipe does not train; 0 for none. Not with `data`.
        kind: The number format of the weights: as `--type` of `stillhouse export`.
        columns: With `data`: which columns hold what, as of `filter`.
        runs_dir: Where the student's run is.
        progress: Called with every message, from another thread.

    Raises:
        UsageError: where the student, the recipe or the check does not exist.
    """
    from flows.evaluate.dataset_evaluation import choose_evaluation
    from flows.evaluate.evaluation_options import EvaluationOptions
    from flows.rows.column_names import name_columns
    from flows.terminal.console import SESSION

    def work() -> "BaseModel":
        rows = name_columns(Path(data), columns) if data else None
        options = EvaluationOptions(
            number, kind, str(recipe) if recipe else None, data=rows, check=check, runs_dir=str(runs_dir), panel=panel
        )
        folder = student.path if isinstance(student, Student | Run) else Path(student)
        return asyncio.run(choose_evaluation(folder, options).measure(folder, options, SESSION))

    return run_call(work, progress)


def load_release(recipe: Name, generation: int | None = None, *, runs_dir: Name = RUNS_FOLDER) -> LoadedRelease:
    """A release of a recipe, or the one in a folder, with every file compared with its hash.

    Args:
        recipe: A recipe, by name or path, or the folder of a release.
        generation: Its number; default: the newest.
        runs_dir: Where runs are stored, a folder or `s3://BUCKET/FOLDER`; releases are in the folder next to it.

    Raises:
        UsageError: if there is no such release.
        StoreError: if a file differs from what was released.
    """
    from core.runs.lineage import find_lineage
    from core.runs.releases import is_release, read_release
    from flows.data.run_storage import open_run_storage
    from flows.recipes.recipe_catalog import read_recipe_name

    folder = Path(recipe)
    if not is_release(folder):
        fetched = open_run_storage(str(runs_dir)).fetch_lineage(read_recipe_name(str(recipe)))
        lineage = find_lineage(fetched.recipe, fetched.path.parent)
        numbers = lineage.list_generations()
        chosen = generation if generation is not None else max(numbers, default=0)
        if chosen not in numbers:
            raise UsageError(f"{recipe}: has no generation {chosen}; it has {', '.join(map(str, numbers)) or 'none'}")
        folder = lineage.path / str(chosen)
    release = read_release(folder)
    release.verify_files()
    return LoadedRelease(release.path, release.manifest)


def place_dataset(source: Dataset, stack: ExitStack, columns: Columns | None = None) -> Path:
    """The path of a dataset with the named columns; rows and frames are written to a file that goes when `stack` is closed.

    Raises:
        UsageError: for anything else.
    """
    from flows.rows.column_names import name_columns

    if isinstance(source, str | PathLike):
        return name_columns(Path(source), columns)
    rows: Any = source
    write = getattr(rows, "write_parquet", None) or getattr(rows, "to_parquet", None)
    if isinstance(rows, list | tuple):
        if not all(isinstance(row, Mapping) for row in rows):
            raise UsageError("a dataset given as a list must have a dict for each row, as in [{'text': 'a b c'}]")
    elif not callable(write):
        kind = type(rows).__name__
        raise UsageError(
            f"a dataset must be a path, a frame or a list of rows, not {kind}; wrap a single row in a list"
        )
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    file = folder / ("rows.parquet" if write else "rows.jsonl")
    try:
        if write:
            write(str(file), **({"index": False} if hasattr(rows, "iloc") else {}))  # the index of pandas is no column
        else:
            file.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows), encoding="utf-8")
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"the rows of the {type(source).__name__} cannot be written: {error}") from None
    stack.enter_context(_name_rows(file, f"({type(rows).__name__})"))
    return name_columns(file, columns)


@contextmanager
def _name_rows(file: Path, name: str) -> Iterator[None]:
    """Errors about the temporary file `file` name the rows that the caller gave instead."""
    try:
        yield
    except StillhouseError as error:
        error.args = (str(error).replace(str(file), name),)
        raise


def _read_kept_rows(report: "FilterReport") -> "pl.DataFrame":
    """The rows of a file that may be compressed or empty, and whose columns may appear late."""
    import polars as pl

    from flows.rows.dataset_rows import is_parquet, read_all_rows

    kept = Path(report.kept)
    if is_parquet(kept):
        return pl.read_parquet(kept)
    rows = list(read_all_rows(kept, dict)) if report.counts.kept else []
    return pl.DataFrame(rows, infer_schema_length=None)


def run_call(work: Callable[[], T], progress: ProgressCallback | None) -> T:
    """The result of `work`. One call runs at a time in a process; others wait for it.

    Raises:
        KeyboardInterrupt: after an interrupt, once work in flight is stored.
        StillhouseError: as `work`.
    """
    from flows.terminal.console import SESSION

    def report(message: str, share: float | None) -> None:
        if progress:
            progress(Progress(message, share))

    with _one_call, ThreadPoolExecutor(1, "stillhouse") as thread, SESSION.report_to(report):
        future = thread.submit(work)
        try:
            while not wait([future], WAIT_SECONDS).done:
                pass
        except KeyboardInterrupt:
            SESSION.stop.set()
            wait([future])
            raise
        finally:
            SESSION.stop.clear()
        return future.result()


def _format_settings(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the `KEY=VALUE` of `--set`, with values in TOML.

    Raises:
        TypeError: for a value that TOML cannot express.
    """
    return [f"{key}={_format_toml(value)}" for key, value in (settings or {}).items()]


def _format_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_format_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_format_toml, value)) + "]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    if hasattr(value, "__fspath__"):
        return json.dumps(str(value), ensure_ascii=False)
    raise TypeError(f"{value!r}: a setting is a text, a number, a truth value, a path, or a list or mapping of these")
