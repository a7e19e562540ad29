"""Releases on disk: datasets that no longer change, by recipe and generation, and the lineage that they make. Knows hashes,
locks and order; knows no row of them.

    data/releases/<recipe>/<generation>/   the lineage: every directory with a number, in their order
    data/releases/<recipe>/aside/          what a rollback took out of it
    data/releases/<recipe>/lock            held while the lineage changes; the kernel lets go of it when a process dies

The directories are the state, and each change of it is one rename. So whoever is killed leaves the lineage as it was, or
as it was to be.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from core.errors import StoreError, UsageError
from core.recipe import Parent, Recipe, recipe_digest
from core.run import RUNS, Manifest, MixRecord, RunDir, open_run, run_name
from core.sample import Frozen
from core.store import file_hash, locked, moved, read_json


class LineageRecord(Frozen):
    """`lineage.json`: where a release stands."""

    recipe: str
    generation: int
    ancestors: tuple[Parent, ...]
    """From the first to its parent."""
    mix: MixRecord


class ReleaseManifest(BaseModel):
    """`manifest.json` of a release."""

    release: str
    """`recipe/generation`."""
    released: str
    run: Manifest
    """As its run ended."""
    seeds: int
    """Seeds that it and all before it have used up."""
    files: dict[str, str]
    """SHA-256 of every other file, by path in the release."""
    digest: str
    """SHA-256 of all that stands above, as `digest_of_manifest` takes it: the release's identity."""


def digest_of_manifest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's canonical JSON, its own digest left out."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Release:
    """A release that was read; its files may still be damaged until `check` says otherwise."""

    path: Path
    manifest: ReleaseManifest
    lineage: LineageRecord

    @property
    def name(self) -> str:
        return self.manifest.release

    @property
    def generation(self) -> int:
        return self.lineage.generation

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @cached_property
    def as_parent(self) -> Parent:
        return Parent(release=self.name, digest=self.manifest.digest, seeds=self.manifest.seeds)

    @property
    def line(self) -> tuple[Parent, ...]:
        """All up to this one, from the first."""
        return (*self.lineage.ancestors, self.as_parent)

    def check(self) -> None:
        """Hold every file against its hash.

        Raises:
            StoreError: naming the first that is not what was released.
        """
        found = {str(p.relative_to(self.path)): p for p in self.path.rglob("*") if p.is_file()}
        for name in sorted({*self.manifest.files, *found} - {"manifest.json"}):
            if name not in found:
                raise self._damaged(name, "is missing")
            if name not in self.manifest.files:
                raise self._damaged(name, "was not released with it")
            if file_hash(found[name]) != self.manifest.files[name]:
                raise self._damaged(name, "is not what was released: its SHA-256 differs")

    def _damaged(self, name: str, what: str) -> StoreError:
        return StoreError(f"{self.path / name}: {what}; {_advice(self.lineage.recipe)}")


def _advice(recipe: str) -> str:
    return (
        f"bring the file back from a copy, or take the release out of its lineage with `stillhouse rollback {recipe}`"
    )


def is_release(path: Path) -> bool:
    """Whether it is one, or was one that has lost a file."""
    marks: dict[str, type[BaseModel]] = {"manifest.json": ReleaseManifest, "lineage.json": LineageRecord}
    return any(_has_keys(path / name, set(model.model_fields)) for name, model in marks.items())


def _has_keys(path: Path, wanted: set[str]) -> bool:
    with suppress(StoreError):
        found = read_json(path)
        return isinstance(found, dict) and wanted <= found.keys()
    return False


def read_release(path: Path) -> Release:
    """The release in `path`, its manifest held against its own digest.

    Raises:
        StoreError: if it cannot be read, or is not as it was written.
    """
    whole = read_json(path / "manifest.json")
    try:
        manifest = ReleaseManifest.model_validate(whole)
        lineage = LineageRecord.model_validate(read_json(path / "lineage.json"))
    except ValidationError as error:
        what = error.errors(include_url=False)[0]
        where = ".".join(map(str, what["loc"]))
        raise StoreError(f"{path}: is no release that can be read: {where}: {what['msg']}") from None
    if digest_of_manifest(whole) != manifest.digest:
        what_differs = f"{path / 'manifest.json'}: is not what was released: its digest differs"
        raise StoreError(f"{what_differs}; {_advice(lineage.recipe)}")
    return Release(path, manifest, lineage)


@dataclass(frozen=True)
class Lineage:
    """The releases of one recipe."""

    path: Path

    @property
    def recipe(self) -> str:
        return self.path.name

    @property
    def aside_folder(self) -> Path:
        return self.path / "aside"

    def generations(self) -> list[int]:
        return _numbers(self.path)

    def aside(self) -> list[int]:
        """The generations that a rollback took out."""
        return _numbers(self.aside_folder)

    def next_generation(self) -> int:
        """A number is never given twice, so that it names the same data forever."""
        return max([-1, *self.generations(), *self.aside()]) + 1

    def releases(self) -> list[Release]:
        """The lineage in its order.

        Raises:
            StoreError: if one cannot be read, or does not build on the one before it.
        """
        found: list[Release] = []
        for number in self.generations():
            one = read_release(self.path / str(number))
            before = found[-1].line if found else ()
            if one.lineage.ancestors != before or one.generation != number or one.lineage.recipe != self.recipe:
                builds = f"builds on {one.lineage.ancestors[-1].release}" if one.lineage.ancestors else "is a first one"
                there = found[-1].name if found else "nothing"
                raise StoreError(
                    f"{one.path}: {builds}, but what lies before it is {there}; bring back what is missing"
                )
            found.append(one)
        return found

    def checked(self) -> list[Release]:
        """The same, every file of it held against its hash."""
        found = self.releases()
        for one in found:
            one.check()
        return found

    def find(self, generation: int) -> Release:
        """One of its releases, in the lineage or aside.

        Raises:
            UsageError: saying which there are.
        """
        for folder in (self.path, self.aside_folder):
            if is_release(folder / str(generation)):
                return read_release(folder / str(generation))
        raise UsageError(f"{self.recipe}/{generation}: there is no such release; {self._there()}")

    def _there(self) -> str:
        aside = f", and aside {_listed(self.aside())}" if self.aside() else ""
        return f"{self.path} has {_listed(self.generations()) or 'none'}{aside}"

    def made_of(self, digest: str) -> Release | None:
        """The release that was made of the run with this digest, in the lineage or aside. A damaged one aside is none."""
        found = self.releases()
        for number in self.aside():
            with suppress(StoreError):
                found.append(read_release(self.aside_folder / str(number)))
        return next((one for one in found if one.manifest.run.digest == digest), None)

    def is_aside(self, release: Release) -> bool:
        return release.path.parent == self.aside_folder

    def roll_back(self, generation: int | None = None) -> None:
        """Make `generation` the newest, or the one before the newest. Those after it are put aside; where it is aside itself,
        it is brought back with those before it. Killed in between, it leaves a lineage that ends earlier or later.

        Raises:
            UsageError, StoreError: if there is no such release, or it is damaged; nothing is moved then.
        """
        with self.locked():
            there = self.generations()
            if generation is None and not there:
                raise UsageError(f"{self.recipe}: there is no release to put aside; {self._there()}")
            wanted = there[:-1] if generation is None else [one.generation for one in self.find(generation).line]
            for number in wanted:
                self.find(number).check()
            for number in sorted(set(there) - set(wanted), reverse=True):
                moved(self.path / str(number), self.aside_folder / str(number))
            for number in sorted(set(wanted) - set(there)):
                moved(self.aside_folder / str(number), self.path / str(number))

    def locked(self) -> AbstractContextManager[None]:
        """Change the lineage; whoever else wants to waits."""
        return locked(self.path)


def _numbers(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal() and p.is_dir()) if folder.is_dir() else []


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def releases_of(runs: Path) -> Path:
    """Where the releases of runs in `runs` are: beside it."""
    return Path(os.path.normpath(runs / ".." / "releases"))


RELEASES = releases_of(Path(RUNS))


def is_behind(run: RunDir, recipe: Recipe) -> bool:
    """Whether the run builds on another release than the newest, so that it cannot be released."""
    parent = run.read_parent()
    newest = Lineage(releases_of(run.path.parent) / recipe.name).generations()[-1:]
    return newest != ([parent.generation] if parent else [])


def find_lineage(name: str, releases: Path) -> Lineage:
    """The lineage of the recipe called `name`.

    Raises:
        UsageError: naming those that are there.
    """
    found = Lineage(releases / name)
    if found.generations() or found.aside():
        return found
    there = sorted(p.name for p in releases.glob("*") if Lineage(p).generations() or Lineage(p).aside())
    raise UsageError(f"{name}: nothing of this recipe was released; {releases} has {', '.join(there) or 'nothing'}")


def find_release(name: Path, releases: Path = RELEASES) -> Release | None:
    """The release that is meant by a path, by `recipe/generation`, or by `recipe` for its newest; None where it is none of
    these. A folder in a release means the release.

    Raises:
        StoreError: if it cannot be read.
    """
    for path in (name, *list(name.absolute().parents)[:3]):
        if is_release(path):
            return read_release(path)
    if name.exists() or name.is_absolute():
        return None
    if is_release(releases / name):
        return read_release(releases / name)
    numbers = Lineage(releases / name).generations()
    return read_release(releases / name / str(numbers[-1])) if numbers else None


def open_next(runs: Path, recipe: Recipe, sources: Mapping[str, str], *, folder: Path, resume: bool) -> RunDir:
    """Open the run that builds on the newest release of the recipe. With `resume`, one that was begun on an earlier release
    and is not released itself goes on, where none was begun on the newest.

    Raises:
        StoreError: if a release is damaged.
        UsageError: as `open_run`.
    """
    lineage = Lineage(releases_of(runs) / recipe.name)
    digests = _possible_digests(lineage.checked(), recipe, sources)
    chosen = next(iter(digests))
    if resume:
        begun = (p for p, d in digests.items() if RunDir(runs / run_name(recipe, d)).manifest_file.exists())
        chosen = next((p for p in begun if lineage.made_of(digests[p]) is None), chosen)
    return open_run(runs, recipe, sources, folder=folder, resume=resume, parent=chosen)


def possible_names(lineage: Lineage, recipe: Recipe, sources: Mapping[str, str]) -> list[str]:
    """What the recipe's run may be called, on any release of the lineage."""
    return [run_name(recipe, digest) for digest in _possible_digests(lineage.releases(), recipe, sources).values()]


def _possible_digests(
    releases: Sequence[Release], recipe: Recipe, sources: Mapping[str, str]
) -> dict[Parent | None, str]:
    """The run's digest by the release that it builds on, from the newest to none."""
    parents = [*(one.as_parent for one in reversed(releases)), None]
    return {parent: recipe_digest(recipe, sources, parent) for parent in parents}
