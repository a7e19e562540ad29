"""`stillhouse rebuild` as functions: find a release, make it again in an empty folder and compare it, describe the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from core.config.recipe import parse_recipe
from core.config.students import StudentConfig
from core.errors import UsageError
from core.project_files import find_referenced_file
from core.runs.lineage import find_release
from core.runs.releases import Release, locate_releases
from core.runs.run_dir import RunDir, StoredRecipe
from core.runs.verdict_words import format_count
from core.storage.atomic_files import read_record
from flows.data.run_storage import RunStorage
from flows.data.stranger_files import is_own_run
from plugins.rebuild.comparison import INPUTS, Rebuild, compare_rebuild
from plugins.rebuild.recording import HELD_OUT, RECORDING, RecordedInputs, check_recorded
from plugins.rebuild.replayed_run import replay_release

REACHING = {"start", "objective", "loss_options", "distillation", "replay", "steps", "track"}
"""Keys of a student that can name files, models, endpoints and programs. In a stranger's recipe, they keep their defaults."""


def open_named_release(name: Path, storage: RunStorage) -> Release:
    """The release at a path, or called RECIPE/GENERATION or RECIPE in `storage`. Raises UsageError if there is none."""
    if not name.exists() and not name.is_absolute():
        storage.fetch_lineage(name.parts[0])
    releases = locate_releases(storage.runs)
    if release := find_release(name, releases):
        return release
    raise UsageError(
        f"{name}: is no release; name one in {releases} as RECIPE/GENERATION, or make one: `stillhouse release RUN`"
    )


def rebuild_release(release: Release, storage: RunStorage, out: Path | None, *, student: bool = False) -> Rebuild:
    """Make a release again, with its `student` or without, in `out` or a folder that is removed afterwards, and compare.

    Raises:
        UsageError: if it has no recording, or no student to train again, needs a file that is not here, or `out` is not empty.
        StoreError: if a file of it was changed after the release, or its recording is of another run.
    """
    check_recorded(release.name, release.manifest.run)
    release.verify_files()
    if student:
        _check_student(release, locate_releases(storage.runs))
    for name in read_record(release.path / INPUTS, RecordedInputs).left_out:
        if not find_referenced_file(name, release.path / RECORDING / "files").exists():
            raise UsageError(
                f"{release.name}: its run read {name}, which the recording has only the hash of; run the command in the "
                f"folder that contains {name}"
            )
    with _open_empty_folder(out) as folder:
        return compare_rebuild(release, replay_release(release, folder, locate_releases(storage.runs), student=student))


def locate_requests(release: Release) -> Path:
    """The file of held-out requests. Raises UsageError, StoreError if there is none, or it was changed."""
    check_recorded(release.name, release.manifest.run)
    release.verify_files()
    return release.path / HELD_OUT


def _check_student(release: Release, own_releases: Path) -> None:
    """Raises UsageError if there is none, its training asks it, or a stranger's recipe would read, write or send other files."""
    config = parse_recipe(read_record(release.path / RECORDING / "recipe.json", StoredRecipe).recipe).student
    if config is None or release.manifest.run.student is None:
        raise UsageError(f"{release.name}: was released without a student; leave out --student")
    if config.chooses_weights:
        what = "a step of its recipe chose the student's weights by asking it, which is not made again"
        raise UsageError(f"{release.name}: {what}; leave out --student")
    if is_own_run(RunDir(release.path), own_releases):
        return
    changed = {name for name in REACHING if getattr(config, name) != getattr(StudentConfig(), name)}
    changed -= {"start"} if config.start == "random" else set()
    changed -= {"replay"} if config.replay and config.replay.cache is None else set()
    if changed:
        where = own_releases / release.lineage.recipe / str(release.generation)
        raise UsageError(
            f"{release.path}: its recipe's student.{min(changed)} names what is not in the release, and it is not in your folder "
            "of releases; leave out --student",
            hint=f"hint: if you trust the recipe, copy the release to {where}",
        )


@contextmanager
def _open_empty_folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with TemporaryDirectory(prefix="rebuild-") as folder:
            yield Path(folder)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: must be a new or an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    yield out


def format_rebuild(found: Rebuild) -> str:
    """A line for each file, for each difference of the machines, and the result last."""
    lines = [f"{file.state:<8} {file.path}" for file in found.files]
    lines += [f"machine  {phrase}" for phrase in found.environment]
    if found.losses:
        lines.append("student  held-out loss {:.4f} there, {:.4f} here".format(*found.losses))
    if found.equal:
        repacked = [file.state for file in found.files].count("repacked")
        bytewise = f"by their rows: {format_count(repacked, 'Parquet file')}" if repacked else "0 bytes differ"
        what = f"{len(found.files)} files and {found.samples:,} verdicts are equal, {bytewise}"
        lines.append(f"{found.release}: rebuilt, {what}")
    else:
        lines.append(f"{found.release}: not the same: {found.difference}")
    return "\n".join(lines)
