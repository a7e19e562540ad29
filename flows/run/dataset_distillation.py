"""`stillhouse distill`: trains a student on any dataset. Knows no Prefect."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.loading import parse_settings
from core.config.students import StudentConfig
from core.errors import UsageError
from core.runs.run_dir import RunDir
from core.runs.student_records import StudentRecord
from core.sample import Message, remove_thinking
from core.storage.atomic_files import check_writable
from core.storage.file_locks import hold_lock
from core.storage.image_files import find_images_problem
from flows.data.preference_pairs import PreferenceData, find_preference_data
from flows.data.stranger_files import is_synthetic_dataset, trains_on_thinking
from flows.rows.dataset_rows import read_all_rows, read_dataset_conversations, read_dataset_pairs
from flows.rows.row_images import read_seen_conversation
from flows.terminal.console import is_reporting_process

if TYPE_CHECKING:
    from students.training_row import TrainingRow


def parse_student_settings(settings: Sequence[str]) -> StudentConfig:
    """The student table from `--set` options.

    Raises:
        RecipeError: with every problem found.
        UsageError: for a key with the prefix `student.`, as a recipe has it, and for an evaluation on a recipe's requests.
    """
    if prefixed := next((setting for setting in settings if setting.startswith("student.")), None):
        raise UsageError(f"--set {prefixed}: `distill` takes the student's own keys; leave out `student.`")
    config = parse_settings(StudentConfig, settings)
    if config.evaluation:
        raise UsageError(
            "--set evaluation: a dataset has no requests of a recipe; leave it out, and use `stillhouse evaluate` afterwards"
        )
    return config


def _find_run_of_dataset(source: Path) -> RunDir | None:
    """The run, if `source` is one and its dataset has conversations rather than pairs."""
    run = RunDir(source)
    if not (run.recipe_file.is_file() and run.manifest_file.is_file()):
        return None
    return run if run.read_recipe().dataset.formats[0] != "preference" else None


def distill_dataset(
    source: Path, out: Path, config: StudentConfig, seed: int, progress: Callable[[str], None]
) -> StudentRecord:
    """Train a student on a dataset's conversations; for `dpo`, on its preference pairs. For `dpo` among other objectives on a
    run, train on its conversations, with rejected answers from its samples.

    Raises:
        UsageError: if there are fewer than two conversations.
        StoreError: if `out` cannot be written.
        RunInUse: if another process trains a student for `out`.
    """
    check_writable(out)
    with hold_folder(out):
        return _distill_rows(source, out, config, seed, progress)


@contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Lock the folder of a student for this process, or for those that `torchrun` started. Raises RunInUse."""
    if not is_reporting_process():
        yield
        return
    lock = out.with_name(f".{out.name}.lock")
    with hold_lock(lock, f"{out}: another process is training a student for this folder"):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def show_training_row(source: Path, config: StudentConfig, seed: int, number: int) -> "TrainingRow":
    """Conversation `number` of the dataset, from 1, as `distill_dataset` with the same arguments would train on it.

    Raises:
        UsageError: as `distill_dataset`, and if there is no such conversation.
    """
    rows, found = _read_training_rows(source, config, lambda _line: None)
    if number > len(rows):
        raise UsageError(f"--show-row {number}: {source} has {len(rows)} conversations")
    from students.training_row import build_training_row

    return build_training_row(number, rows, found.config, seed, found.rejected)


def _distill_rows(
    source: Path, out: Path, config: StudentConfig, seed: int, progress: Callable[[str], None]
) -> StudentRecord:
    rows, found = _read_training_rows(source, config, progress)
    synthetic = is_synthetic_dataset(source)
    from students.training.student_training import train_student

    return train_student(
        rows, found.config, out, seed=seed, progress=progress, rejected=found.rejected, judged=found.judged,
        siblings=found.siblings, synthetic=synthetic,
    )  # fmt: skip


def _read_training_rows(
    source: Path, config: StudentConfig, progress: Callable[[str], None]
) -> tuple[list[list[Message]], PreferenceData]:
    """The conversations of the dataset, and the answers and settings to train with."""
    found = PreferenceData(config, [], [], [], [])
    run = _find_run_of_dataset(source)
    if run and config.learns_refused and len(config.objective_weights) > 1:
        rows = [list(row) for row in read_dataset_conversations(source)]
        found = find_preference_data(run, config, rows)
        for note in found.notes:
            progress(f"distill: {note}")
    elif "dpo" in config.objective_weights:
        pairs = read_dataset_pairs(source)
        rows = [pair.chosen for pair in pairs]
        found = found._replace(rejected=[pair.rejected for pair in pairs])
    else:
        rows = (
            list(read_all_rows(source, read_seen_conversation))
            if config.image_limits
            else read_dataset_conversations(source)
        )
    if len(rows) < 2:
        raise UsageError(
            f"{source}: has {len(rows)} conversations; training needs at least 2, of which one is held out"
        )
    _check_images(source, rows, config)
    if not trains_on_thinking(source):
        rows = [remove_thinking(row) for row in rows]
        found = found._replace(
            rejected=[row and remove_thinking(row) for row in found.rejected],
            judged=[(remove_thinking(row), kept) for row, kept in found.judged],
        )
    return rows, found


def _check_images(source: Path, rows: Sequence[Sequence[Message]], config: StudentConfig) -> None:
    """Raises UsageError if the student would be trained on images that it does not see, or sees and there are none, or the extra
    `pictures` is missing.
    """
    if config.image_limits and (problem := find_images_problem()):
        raise UsageError(f"a student that sees {problem}")
    pictured = next((place for place, row in enumerate(rows, 1) if any(turn.images for turn in row)), None)
    if pictured and not config.image_limits:
        raise UsageError(
            f"{source}: conversation {pictured} has an image, and this student reads text alone, so it would learn to guess; let "
            "it see with --set steps=[{type='sight'}], leave such rows out, or train a model with images on them "
            "(plugins/pictures/README.md)"
        )
    if config.image_limits and not pictured:
        raise UsageError(f"{source}: no conversation has an image; leave out the step sight, or give rows with images")
