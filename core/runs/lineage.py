"""The lineage of a recipe: its releases in order, their rollback, and the runs that build on them. Knows locks and order;
reads no row of a dataset.

    data/releases/<recipe>/<generation>/   the lineage: every directory with a number, in order
    data/releases/<recipe>/aside/          releases that a rollback took out of the lineage
    data/releases/<recipe>/lock            held while the lineage changes; the kernel releases it when a process dies

The directories are the state, and each change is one rename. A killed process leaves the lineage as it was before or after
the change.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from core.config.recipe import ParentRelease, Recipe, recipe_digest
from core.errors import StoreError, UsageError
from core.runs.releases import RELEASES_FOLDER, Release, is_release, locate_releases, read_release
from core.runs.run_dir import RunDir, build_run_name
from core.storage.atomic_files import move_durably
from core.storage.file_locks import lock_folder


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

    def list_generations(self) -> list[int]:
        return _list_generations(self.path)

    def list_aside(self) -> list[int]:
        """Generations that a rollback removed from the lineage."""
        return _list_generations(self.aside_folder)

    def next_generation(self) -> int:
        """Never a number that was used before, so that a number always names the same data."""
        return max([-1, *self.list_generations(), *self.list_aside()]) + 1

    def read_all(self) -> list[Release]:
        """All releases of the lineage, in order.

        Raises:
            StoreError: if a release cannot be read, or does not build on the one before it.
        """
        releases: list[Release] = []
        for number in self.list_generations():
            release = read_release(self.path / str(number))
            lineage, before = release.lineage, releases[-1].ancestry if releases else ()
            if lineage.ancestors != before or release.generation != number or lineage.recipe != self.recipe:
                builds = f"builds on {lineage.ancestors[-1].release}" if lineage.ancestors else "has no parent"
                previous = releases[-1].name if releases else "nothing"
                raise StoreError(
                    f"{release.path}: {builds}, but the release before it is {previous}; restore what is missing"
                )
            releases.append(release)
        return releases

    def read_verified(self) -> list[Release]:
        """All releases, with every file compared with its hash."""
        releases = self.read_all()
        for release in releases:
            release.verify_files()
        return releases

    def find_generation(self, generation: int) -> Release:
        """The release of `generation`, in the lineage or aside.

        Raises:
            UsageError: naming the known generations.
        """
        for folder in (self.path, self.aside_folder):
            if is_release(folder / str(generation)):
                return read_release(folder / str(generation))
        raise UsageError(f"{self.recipe}/{generation}: there is no such release; {self._describe_generations()}")

    def _describe_generations(self) -> str:
        aside = f", and aside {_join_numbers(self.list_aside())}" if self.list_aside() else ""
        return f"{self.path} has {_join_numbers(self.list_generations()) or 'none'}{aside}"

    def find_by_run_digest(self, digest: str) -> Release | None:
        """The release of the run with this digest, in the lineage or aside. Damaged releases aside are ignored."""
        releases = self.read_all()
        for number in self.list_aside():
            with suppress(StoreError):
                releases.append(read_release(self.aside_folder / str(number)))
        return next((release for release in releases if release.manifest.run.digest == digest), None)

    def find_promotion(self, parent: ParentRelease) -> Release | None:
        """The newest release up to `parent` whose student was promoted, its files compared with their hashes.

        Raises:
            UsageError: if a release up to `parent` is missing.
            StoreError: if one of them is damaged.
        """
        for ancestor in reversed(self.find_generation(parent.generation).ancestry):
            release = self.find_generation(ancestor.generation)
            if release.manifest.digest != ancestor.digest:
                raise StoreError(f"{release.path}: is another release than the one that {parent.release} builds on")
            release.verify_files()
            if release.promoted:
                return release
        return None

    def is_aside(self, release: Release) -> bool:
        return release.path.parent == self.aside_folder

    def roll_back(self, generation: int | None = None) -> None:
        """Make `generation` the newest release; by default, the release before the newest. Later releases are moved aside. A
        generation that is aside is moved back, with its ancestors. If killed, the lineage ends earlier or later.

        Raises:
            UsageError, StoreError: if there is no such release, or it is damaged; nothing is moved then.
        """
        with self.lock():
            current = self.list_generations()
            if generation is None and not current:
                raise UsageError(f"{self.recipe}: there is no release to put aside; {self._describe_generations()}")
            wanted = (
                current[:-1]
                if generation is None
                else [ancestor.generation for ancestor in self.find_generation(generation).ancestry]
            )
            for number in wanted:
                self.find_generation(number).verify_files()
            for number in sorted(set(current) - set(wanted), reverse=True):
                move_durably(self.path / str(number), self.aside_folder / str(number))
            for number in sorted(set(wanted) - set(current)):
                move_durably(self.aside_folder / str(number), self.path / str(number))

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lineage to change it; other processes wait."""
        return lock_folder(self.path)


def _list_generations(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal() and p.is_dir()) if folder.is_dir() else []


def _join_numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def builds_on_older_release(run: RunDir, recipe: Recipe) -> bool:
    """Whether the run does not build on the newest release, so that it cannot be released."""
    parent = run.read_parent()
    newest = Lineage(locate_releases(run.path.parent) / recipe.name).list_generations()[-1:]
    return newest != ([parent.generation] if parent else [])


def find_lineage(name: str, releases: Path) -> Lineage:
    """The lineage of the recipe called `name`.

    Raises:
        UsageError: naming the known lineages.
    """
    lineage = Lineage(releases / name)
    if lineage.list_generations() or lineage.list_aside():
        return lineage
    known = sorted(p.name for p in releases.glob("*") if Lineage(p).list_generations() or Lineage(p).list_aside())
    raise UsageError(f"{name}: nothing of this recipe was released; {releases} has {', '.join(known) or 'nothing'}")


def find_release(name: Path, releases: Path = RELEASES_FOLDER) -> Release | None:
    """The release named by a path, by `recipe/generation`, or by `recipe` for the newest; None otherwise. A path inside a
    release also names the release.

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
    numbers = Lineage(releases / name).list_generations()
    return read_release(releases / name / str(numbers[-1])) if numbers else None


def choose_parent_release(
    runs: Path, recipe: Recipe, sources: Mapping[str, str], *, resume: bool
) -> ParentRelease | None:
    """The release on which the recipe's run builds: the newest. With `resume`, if no run on the newest release exists, an earlier
    one with an unreleased run.

    Raises:
        StoreError: if a release is damaged.
        UsageError: if the lineage has releases of filtered folders, on which no run can build.
    """
    lineage = Lineage(locate_releases(runs) / recipe.name)
    releases = lineage.read_verified()
    if given := next((one for one in releases if RunDir(one.path).own_rows_file.name not in one.manifest.files), None):
        raise UsageError(
            f"{recipe.name}: is the name of releases of given rows ({given.name}); give the recipe another `name`"
        )
    digests = _list_possible_digests(releases, recipe, sources)
    chosen = next(iter(digests))
    if resume:
        begun = (p for p, d in digests.items() if RunDir(runs / build_run_name(recipe, d)).manifest_file.exists())
        chosen = next((p for p in begun if lineage.find_by_run_digest(digests[p]) is None), chosen)
    return chosen


def list_possible_run_names(lineage: Lineage, recipe: Recipe, sources: Mapping[str, str]) -> list[str]:
    """Possible names of the recipe's run, one for each release that it may build on."""
    return [
        build_run_name(recipe, digest)
        for digest in _list_possible_digests(lineage.read_all(), recipe, sources).values()
    ]


def _list_possible_digests(
    releases: Sequence[Release], recipe: Recipe, sources: Mapping[str, str]
) -> dict[ParentRelease | None, str]:
    """The run's digest by its parent release, from the newest release to no parent."""
    parents = [*(release.as_parent for release in reversed(releases)), None]
    return {parent: recipe_digest(recipe, sources, parent) for parent in parents}
