"""`stillhouse rebuild` as functions: find a release, make it again in an empty folder and compare it, describe the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import UsageError
from core.project_files import find_referenced_file
from core.runs.lineage import find_release
from core.runs.releases import Release, locate_releases
from core.runs.verdict_words import format_count
from core.storage.atomic_files import read_record
from flows.data.run_storage import RunStorage
from plugins.rebuild.comparison import INPUTS, Rebuild, compare_rebuild
from plugins.rebuild.recording import RECORDING, RecordedInputs, check_recorded
from plugins.rebuild.replayed_run import replay_release


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


def rebuild_release(release: Release, storage: RunStorage, out: Path | None) -> Rebuild:
    """Make a release again, in `out` or a folder that is removed afterwards, and compare.

    Raises:
        UsageError: if it has no recording, needs a file that is not here, or `out` is not empty.
        StoreError: if a file of it was changed after the release, or its recording is of another run.
    """
    check_recorded(release.name, release.manifest.run)
    release.verify_files()
    for name in read_record(release.path / INPUTS, RecordedInputs).left_out:
        if not find_referenced_file(name, release.path / RECORDING / "files").exists():
            raise UsageError(
                f"{release.name}: its run read {name}, which the recording has only the hash of; run the command in the "
                f"folder that contains {name}"
            )
    with _open_empty_folder(out) as folder:
        return compare_rebuild(release, replay_release(release, folder, locate_releases(storage.runs)))


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
    if found.equal:
        repacked = [file.state for file in found.files].count("repacked")
        bytewise = f"by their rows: {format_count(repacked, 'Parquet file')}" if repacked else "0 bytes differ"
        what = f"{len(found.files)} files and {found.samples:,} verdicts are equal, {bytewise}"
        lines.append(f"{found.release}: rebuilt, {what}")
    else:
        lines.append(f"{found.release}: not the same: {found.difference}")
    return "\n".join(lines)
