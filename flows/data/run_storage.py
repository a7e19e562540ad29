"""Storage of runs and releases: a folder, or a depot on an object store with its mirror on this machine. Knows what is fetched
before and published after a command; knows no sample. Previews' estimates are in the user's cache.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from core.config.recipe import Recipe
from core.errors import StoreError, UsageError
from core.plugins import load_part_of
from core.runs.lineage import Lineage, list_possible_run_names
from core.runs.records import RunEstimate, RunManifest, RunState
from core.runs.releases import locate_releases
from core.runs.run_dir import RunDir, find_run
from core.storage.atomic_files import write_text
from core.storage.background_work import repeat_in_background
from flows.terminal.console import SESSION

PUBLISH_SECONDS = 30.0
"""Interval between publications of a run in progress: the most paid work that a lost machine loses."""
ABANDONED_RUN_ERROR = "no process works on it, and none recorded how it ended"
"""The error of a run with the state `running` that no process works on."""
MIRROR_FOLDER = Path("data/depots")
"""Mirrors of all depots, in folders named like their addresses; the environment variable STILLHOUSE_DEPOTS overrides it."""


class DepotLease(Protocol):
    """The right to publish in a folder of a depot."""

    def renew(self) -> None:
        """Raises StoreError if another machine took over, or the depot cannot be written."""

    def renew_in_background(self, lost: Callable[[StoreError], None]) -> AbstractContextManager[None]: ...


class Depot(Protocol):
    """Where machines share runs and releases. A plugin has it; its methods raise StoreError if it fails."""

    @property
    def url(self) -> str: ...

    def list_folders(self, folder: str) -> list[str]: ...

    def exists(self, name: str) -> bool: ...

    def fetch(self, folder: str) -> None:
        """As `fetch_locked`, except for a folder that another process of this machine works on."""

    def fetch_locked(self, folder: str) -> None:
        """Update the mirror's `folder`: files that changed in the depot are fetched, local changes are kept."""

    def publish(self, folder: str, *, ended: bool = True) -> None:
        """Publish local changes of `folder`; with `ended`, deletions too."""

    def hold_lease(self, folder: str) -> AbstractContextManager[DepotLease]:
        """Raises RunInUse if another machine or process holds it."""

    def is_held_elsewhere(self, folder: str) -> bool: ...


@dataclass(frozen=True)
class RunStorage:
    """Runs and releases in a folder, or in a depot whose mirror is that folder. Without a depot, nothing is fetched or locked."""

    runs: Path
    """The folder of runs on this machine."""
    depot: Depot | None = None
    """Where runs and releases are published."""

    def fetch_for_recipe(self, recipe: Recipe, sources: Mapping[str, str]) -> None:
        """Fetch the recipe's lineage and the runs that it may resume; `sources` are the hashes of its files."""
        lineage = self.fetch_lineage(recipe.name)
        if self.depot:
            for name in list_possible_run_names(lineage, recipe, sources):
                self.depot.fetch(f"{self.runs.name}/{name}")

    def find_run(self, name: str) -> RunDir:
        """The run called `name`, fetched if there is a depot. Raises UsageError if there is no such run, StoreError if the depot
        fails.
        """
        if self.depot and not Path(name).exists():
            names = self.depot.list_folders(self.runs.name)
            if name not in names:
                known = ", ".join(names) or "none"
                raise UsageError(f"{name}: no run of this name; {self.depot.url}/{self.runs.name} has {known}")
            self.depot.fetch(f"{self.runs.name}/{name}")
        return find_run(name, self.runs)

    def read_manifest(self, run: RunDir) -> RunManifest:
        """The current manifest; a run with the state `running` that no process works on was interrupted.

        Raises:
            StoreError: if the manifest is missing or damaged, or the depot fails.
        """
        manifest = run.read_manifest()
        if manifest.state is RunState.running and not self._is_worked_on(run):
            manifest = run.read_manifest()  # the run may have ended in between
            if manifest.state is RunState.running:
                from agents.calls.budget import read_journal

                manifest.state, manifest.error = RunState.interrupted, ABANDONED_RUN_ERROR
                manifest.costs.spent = read_journal(run.spend_file).spent
        return manifest

    def _is_worked_on(self, run: RunDir) -> bool:
        if run.is_held():
            return True
        if self.depot is None or run.path.parent != self.runs:
            return False
        return self.depot.is_held_elsewhere(f"{self.runs.name}/{run.name}")

    def fetch_runs(self, recipe: str) -> None:
        """Fetch all runs that may belong to the recipe."""
        if self.depot:
            for name in self.depot.list_folders(self.runs.name):
                if name.rpartition("-")[0] == recipe:
                    self.depot.fetch(f"{self.runs.name}/{name}")

    def fetch_lineage(self, recipe: str) -> Lineage:
        """The recipe's releases. In a depot, only completely published releases count; others are removed from the mirror."""
        lineage = Lineage(locate_releases(self.runs) / recipe)
        if self.depot and self._list_unpublished(lineage):
            with self.depot.hold_lease(f"releases/{recipe}"):
                self._fetch_releases(lineage)
        elif self.depot:
            self._fetch_releases(lineage)
        return lineage

    def _fetch_releases(self, lineage: Lineage) -> None:
        """Fetch the published releases, and remove the others."""
        assert self.depot
        for generation in self._list_published(lineage.recipe):
            self.depot.fetch(f"releases/{lineage.recipe}/{generation}")
        for generation in self._list_unpublished(lineage):
            shutil.rmtree(lineage.path / str(generation))

    def _list_unpublished(self, lineage: Lineage) -> set[int]:
        """Releases made here by a process that was killed before publication."""
        return set(lineage.list_generations()) - set(self._list_published(lineage.recipe))

    def _list_published(self, recipe: str) -> list[int]:
        assert self.depot
        numbers = [int(name) for name in self.depot.list_folders(f"releases/{recipe}") if name.isdecimal()]
        return sorted(n for n in numbers if self.depot.exists(f"releases/{recipe}/{n}/manifest.json"))

    @contextmanager
    def lock_run(self, run: RunDir) -> Iterator[None]:
        """Lock the run against other machines and fetch it; publish it at intervals and at the end, also after an error.

        Raises:
            RunInUse: if another process or machine works on it.
            StoreError: if the store fails, or another machine took over after a long silence of this one.
        """
        if self.depot is None:
            yield
            return
        depot, folder, lost = self.depot, f"{self.runs.name}/{run.name}", list[StoreError]()

        def stop(error: StoreError) -> None:
            lost.append(error)
            SESSION.stop.set()

        def publish() -> bool:
            try:
                lease.renew()
                depot.publish(folder, ended=False)
            except StoreError as error:  # repeated; the last publication raises
                SESSION.print_message(f"not published yet: {error}")
            return not lost

        with depot.hold_lease(folder) as lease, lease.renew_in_background(stop):
            depot.fetch_locked(folder)
            try:
                with repeat_in_background(PUBLISH_SECONDS, publish):
                    yield
            finally:
                if lost:
                    raise lost[0]
                lease.renew()
                depot.publish(folder)
                SESSION.print_message(f"published in {depot.url}/{folder}")

    @contextmanager
    def lock_lineage(self, recipe: str) -> Iterator[None]:
        """Lock the recipe's lineage against other machines and fetch it; then publish its new releases.

        Raises:
            RunInUse, StoreError: as `lock_run`.
        """
        if self.depot is None:
            yield
            return
        with self.depot.hold_lease(f"releases/{recipe}") as lease, lease.renew_in_background(lambda _: None):
            lineage = Lineage(locate_releases(self.runs) / recipe)
            self._fetch_releases(lineage)
            before = lineage.list_generations()
            yield
            for generation in lineage.list_generations():
                if generation not in before:
                    lease.renew()  # raises if another machine took over
                    self.depot.publish(f"releases/{recipe}/{generation}")


def open_run_storage(name: str) -> RunStorage:
    """The storage `name`: a folder, or `PROTOCOL://BUCKET/FOLDER` for fsspec, with releases next to FOLDER.

    Raises:
        UsageError: if the name of a depot has no folder in its bucket, or no plugin has depots.
    """
    protocol, separator, path = name.partition("://")
    if not separator:
        return RunStorage(Path(name))
    parts = [part for part in path.split("/") if part]
    if len(parts) < 2 or any(part in (".", "..") for part in parts):
        raise UsageError(f"{name}: runs are kept in a folder of a bucket, as in {protocol}://BUCKET/runs")
    open_depot: Callable[[str, Path], Depot] = load_part_of("scale", "depot", "object_store", name)
    mirror = Path(os.environ.get("STILLHOUSE_DEPOTS", MIRROR_FOLDER)).joinpath(protocol, *parts[:-1])
    return RunStorage(mirror / parts[-1], open_depot(f"{protocol}://{'/'.join(parts[:-1])}", mirror))


def find_cache_folder(runs_dir: str) -> Path | None:
    """The cache of a command that makes no run: the cache of the runs if their folder exists, else the user's cache directory.
    None if neither is writable.
    """
    runs = open_run_storage(runs_dir).runs
    return _make_writable(RunDir(runs / "any").cache) if runs.is_dir() else _find_user_cache()


def _find_user_cache() -> Path | None:
    """The user's cache directory (XDG Base Directory Specification); None if it is not writable."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # the user has no home
        return None
    return _make_writable(Path(home) / "stillhouse")


def _make_writable(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def store_estimate(digest: str, estimate: RunEstimate) -> None:
    """Store the estimate of the recipe with this digest, if there is a place for it."""
    file = _locate_estimate(digest)
    if file is None:
        return
    try:
        file.parent.mkdir(exist_ok=True)
        write_text(file, estimate.model_dump_json() + "\n")
    except OSError:
        return


def read_estimate(digest: str) -> RunEstimate | None:
    """The last estimate of the recipe with this digest; None if there is none that this version can read."""
    file = _locate_estimate(digest)
    try:
        return RunEstimate.model_validate_json(file.read_bytes()) if file and file.exists() else None
    except (OSError, ValidationError):
        return None


def _locate_estimate(digest: str) -> Path | None:
    cache = _find_user_cache()
    return cache and cache / "estimates" / f"{digest}.json"
