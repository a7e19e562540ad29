"""The run directory: paths, lock, recipe and manifest of one run. Knows nothing of how samples are made or trained on."""

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from core.config.recipe import (
    ParentRelease,
    Recipe,
    build_recipe_identity,
    list_differences,
    parse_recipe,
    recipe_digest,
)
from core.errors import RunExists, StoreError, UsageError
from core.extensions import EXTENSION_ERROR
from core.plugins import DATA
from core.project_files import RUNS_FOLDER as RUNS_FOLDER
from core.runs.records import RunInvocation, RunManifest
from core.storage.atomic_files import hash_file, read_json, read_record, write_json
from core.storage.bounded_reading import check_plain_folder
from core.storage.file_locks import hold_lock, is_held
from core.storage.image_files import IMAGES_FOLDER

MIN_FREE_BYTES = 500 * 2**20
"""Free disk space that a run needs to start: the default recipe's student takes about 200 MB while it is written, and
replies that were paid for must fit."""

RECORDED_VERSIONS = (
    "stillhouse",
    "langgraph",
    "prefect",
    "pydantic",
    "polars",
    "datasketch",
    "torch",
    "transformers",
    "xllamacpp",
)


class StoredIdentity(BaseModel):
    """What identifies a run besides its recipe."""

    sources: dict[str, str] = {}
    parent: ParentRelease | None = None


class StoredRecipe(BaseModel):
    """The recipe's file in a run."""

    recipe: dict[str, Any]
    folder: str = ""
    identity: StoredIdentity = StoredIdentity()


@dataclass(frozen=True)
class RunDir:
    """A run's directory. Every path in it has one owner; a file exists only once it is complete (`write_atomically`)."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.json"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def own_rows_file(self) -> Path:
        """The run's own rows of the dataset before formatting, each with its split."""
        return self.path / "own.parquet"

    @property
    def images(self) -> Path:
        """The images of its conversations, by their content."""
        return self.path / IMAGES_FOLDER

    @property
    def pairs_file(self) -> Path:
        """The run's own preference pairs, each with its split."""
        return self.path / "pairs.parquet"

    def shard_file(self, index: int) -> Path:
        """Every finished sample of the shard, before filtering."""
        return self.path / "shards" / f"{index:05d}.parquet"

    def kept_file(self, index: int) -> Path:
        """Samples of the shard that the filters kept."""
        return self.path / "samples" / f"{index:05d}.parquet"

    def dropped_file(self, index: int) -> Path:
        """Dropped and failed samples of the shard."""
        return self.path / "dropped" / f"{index:05d}.parquet"

    def shards(self) -> list[int]:
        """Indices of the shards with a finished sample, in order."""
        return sorted(int(file.stem) for file in (self.path / "shards").glob("*.parquet"))

    @property
    def spend_file(self) -> Path:
        """The journal of spending on production."""
        return self.path / "wip" / "spend.jsonl"

    @property
    def evaluation_spend_file(self) -> Path:
        """The journal of spending on the student's evaluation."""
        return self.path / "wip" / "evaluation.spend.jsonl"

    @property
    def cache(self) -> Path:
        """The reply cache, shared with other runs in the same folder."""
        return self.path.parent / ".cache"

    def ledger_file(self, index: int) -> Path:
        """The teacher's replies for a shard in progress."""
        return self.path / "wip" / f"{index:05d}.calls.jsonl"

    def ledgers(self) -> list[int]:
        """Indices of the shards with a ledger, in order."""
        return sorted(int(file.name.partition(".")[0]) for file in (self.path / "wip").glob("[0-9]*.calls.jsonl"))

    @property
    def batches(self) -> Path:
        """A folder for each teacher with the batches that were sent to it."""
        return self.path / "wip" / "batches"

    def rejected_keys_file(self, teacher: str) -> Path:
        """The keys of requests that a teacher's endpoint rejected."""
        return self.path / "wip" / f"{teacher}.rejected.json"

    def remove_ledgers(self) -> None:
        """Delete ledgers of unfinished shards, whose samples are no longer needed, and the results of batches."""
        for ledger in (self.path / "wip").glob("*.calls.jsonl"):
            ledger.unlink()
        shutil.rmtree(self.batches, ignore_errors=True)

    @property
    def calibration_ledger(self) -> Path:
        """The judges' replies about labeled answers, until calibration is complete."""
        return self.path / "wip" / "calibration.calls.jsonl"

    @property
    def calibration_file(self) -> Path:
        """Each judge's verdict on each labeled answer."""
        return self.path / "calibration.jsonl"

    def read_manifest(self) -> RunManifest:
        return read_record(self.manifest_file, RunManifest)

    def is_held(self) -> bool:
        """Whether a process of this machine works on the run."""
        return is_held(self.path / "lock")

    def write_manifest(self, manifest: RunManifest) -> None:
        write_json(self.manifest_file, manifest.model_dump(mode="json"))

    def read_recipe(self) -> Recipe:
        """The recipe as resolved at the run's start. Raises UsageError if another version wrote an unreadable one."""
        try:
            return parse_recipe(self._read_stored_recipe().recipe)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            if first["type"] == EXTENSION_ERROR:
                raise UsageError(
                    f"{self.recipe_file}: cannot be read here: {where}: {first['msg']}; install the package that has it"
                ) from None
            raise UsageError(
                f"{self.recipe_file}: cannot be read by this version: {where}: {first['msg']}; use the version that made the run"
            ) from None

    def read_recipe_folder(self) -> Path:
        """Base folder of the recipe's relative paths; the working directory if it is from another machine."""
        folder = Path(self._read_stored_recipe().folder)
        return folder if folder.is_dir() else Path.cwd()

    def read_sources(self) -> dict[str, str]:
        """Hashes of the recipe's files at the run's start, by their names in the recipe."""
        return self._read_stored_recipe().identity.sources

    def read_parent(self) -> ParentRelease | None:
        """The release that the run builds on, fixed at its start."""
        return self._read_stored_recipe().identity.parent

    def _read_stored_recipe(self) -> StoredRecipe:
        return read_record(self.recipe_file, StoredRecipe)

    def hash_files(self) -> dict[str, str]:
        """SHA-256 of every artifact: all finished files except the manifest and work in progress."""
        files = sorted(
            p for p in self.path.rglob("*") if p.is_file() and not self._is_scratch(p.relative_to(self.path))
        )
        return {str(p.relative_to(self.path)): hash_file(p) for p in files}

    @staticmethod
    def _is_scratch(path: Path) -> bool:
        return path.parts[0] in {"wip", "manifest.json", "lock", DATA} or any(
            part.startswith(".") for part in path.parts
        )

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run for this process. Raises RunInUse if another process holds it, UsageError if a link is in it."""
        check_plain_folder(self.path)
        return hold_lock(self.path / "lock", f"{self.path}: another process is working on this run")


def build_run_name(recipe: Recipe, digest: str) -> str:
    return f"{recipe.name}-{digest[:8]}"


def open_run(
    runs: Path, recipe: Recipe, sources: Mapping[str, str], *, folder: Path, resume: bool, parent: ParentRelease | None = None,
    invocation: RunInvocation | None = None,
) -> RunDir:  # fmt: skip
    """Create the directory of the run that builds on `parent`, or open an existing one with `resume`. `folder` is the base of
    the recipe's relative paths.

    Raises:
        RunExists: if the run exists and `resume` is false.
        RunInUse: if additionally another process is working on it, or makes it now.
        UsageError: if an existing run was made from another recipe.
        StoreError: if the directory cannot be created, or the disk is nearly full.
    """
    digest = recipe_digest(recipe, sources, parent)
    run = RunDir(runs / build_run_name(recipe, digest))
    identity = build_recipe_identity(recipe, sources, parent)
    if not run.manifest_file.exists():
        _check_free_space(runs)
        with run.lock():
            if not run.manifest_file.exists():  # another process may have made it in between
                (run.path / "wip").mkdir(parents=True, exist_ok=True)
                content = {"digest": digest, "recipe": recipe.model_dump(mode="json"), "folder": str(folder)}
                write_json(run.recipe_file, {**content, "identity": identity})
                run.write_manifest(
                    RunManifest(
                        run=run.name, digest=digest, started=format_current_time(), versions=collect_versions(),
                        invocation=invocation,
                    )
                )  # fmt: skip
                return run
    if not resume:
        with run.lock():
            pass
        raise RunExists(
            f"{run.path}: this run exists; continue it with --resume, draw other samples with --set seed={recipe.seed + 1}, "
            "or remove the directory"
        )
    stored = read_json(run.recipe_file)["identity"]
    if differences := list_differences(stored, identity):
        raise UsageError(f"{run.path}: was made from another recipe: {'; '.join(map(str, differences))}")
    return run


def _check_free_space(runs: Path) -> None:
    try:
        runs.mkdir(parents=True, exist_ok=True)
        if not os.access(runs, os.W_OK):
            raise PermissionError(13, "permission denied")
        free = shutil.disk_usage(runs).free
    except OSError as error:
        raise StoreError(
            f"{runs}: cannot hold a run: {error.strerror}; choose another folder with --runs-dir"
        ) from None
    if free < MIN_FREE_BYTES:
        raise StoreError(
            f"{runs}: {free / 2**20:.0f} MiB are free, a run needs {MIN_FREE_BYTES / 2**20:.0f}; free some, or choose --runs-dir"
        )


def find_run(name: str, runs: Path) -> RunDir:
    """The run at the path `name`, or with this name in `runs`.

    Raises:
        UsageError: naming the known runs, or a link in the run.
    """
    for path in (Path(name), runs / name):
        if (path / "manifest.json").is_file():
            check_plain_folder(path)
            return RunDir(path)
    known = sorted(p.parent.name for p in runs.glob("*/manifest.json"))
    raise UsageError(f"{name}: no run of this name; {runs} has {', '.join(known) or 'none'}")


def format_current_time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def collect_versions() -> dict[str, str]:
    versions = {}
    for package in RECORDED_VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
