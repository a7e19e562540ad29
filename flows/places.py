"""Where runs and releases are: a folder, or a depot on an object store with its mirror on this machine. Knows what is fetched
before a command works and what is published after; knows no sample.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.depot import Depot
from core.errors import StoreError, UsageError
from core.lease import repeated
from core.release import Lineage, possible_names, releases_of
from core.run import RunDir, find_run
from flows.recipes import sources
from flows.session import SESSION

if TYPE_CHECKING:
    from agents.plan import Plan

PUBLISH_SECONDS = 30.0
"""Between two times that a run is published while it is made: what a machine that burns down has paid for in vain."""
MIRRORS = Path("data/depots")
"""Of all depots, in folders like their addresses; the environment variable STILLHOUSE_DEPOTS names another place."""


@dataclass(frozen=True)
class Place:
    runs: Path
    """On this machine."""
    depot: Depot | None = None

    def fetch_for(self, plan: "Plan") -> None:
        """What opening the plan's run looks at: its lineage, and the runs that it may go on with."""
        lineage = self.lineage(plan.recipe.name)
        if self.depot:
            for name in possible_names(lineage, plan.recipe, sources(plan)):
                self.depot.fetch(f"{self.runs.name}/{name}")

    def run(self, name: str) -> RunDir:
        """Raises UsageError as `find_run`."""
        if self.depot and not Path(name).exists():
            there = self.depot.names(self.runs.name)
            if name not in there:
                told = ", ".join(there) or "none"
                raise UsageError(f"{name}: no run of this name; {self.depot.url}/{self.runs.name} has {told}")
            self.depot.fetch(f"{self.runs.name}/{name}")
        return find_run(name, self.runs)

    def fetch_runs(self, recipe: str) -> None:
        """All runs that may be the recipe's."""
        if self.depot:
            for name in self.depot.names(self.runs.name):
                if name.rpartition("-")[0] == recipe:
                    self.depot.fetch(f"{self.runs.name}/{name}")

    def lineage(self, recipe: str) -> Lineage:
        """The recipe's releases. Of a depot, those are released that are published, whole."""
        found = Lineage(releases_of(self.runs) / recipe)
        if self.depot and self._unpublished(found):
            with self.depot.leased(f"releases/{recipe}"):
                self._fetch(found)
        elif self.depot:
            self._fetch(found)
        return found

    def _fetch(self, lineage: Lineage) -> None:
        assert self.depot
        for generation in self._published(lineage.recipe):
            self.depot.fetch(f"releases/{lineage.recipe}/{generation}")
        for generation in self._unpublished(lineage):
            shutil.rmtree(lineage.path / str(generation))

    def _unpublished(self, lineage: Lineage) -> set[int]:
        """What a process made here that was killed before it was published."""
        return set(lineage.generations()) - set(self._published(lineage.recipe))

    def _published(self, recipe: str) -> list[int]:
        assert self.depot
        numbers = [int(name) for name in self.depot.names(f"releases/{recipe}") if name.isdecimal()]
        return sorted(one for one in numbers if self.depot.has(f"releases/{recipe}/{one}/manifest.json"))

    @contextmanager
    def working_on(self, run: RunDir) -> Iterator[None]:
        """Hold the run against other machines, from where it is published; publish it now and then, and however it ends.

        Raises:
            RunExists: if another machine works on it.
            StoreError: if the store fails, or this machine was silent for so long that another took over.
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
                lease.beat()
                depot.publish(folder, ended=False)
            except StoreError as error:  # tried again, and at last without mercy
                SESSION.tell(f"not published yet: {error}")
            return not lost

        with depot.leased(folder) as lease, lease.kept_up(stop):
            depot.fetch_held(folder)
            try:
                with repeated(PUBLISH_SECONDS, publish):
                    yield
            finally:
                if lost:
                    raise lost[0]
                lease.beat()
                depot.publish(folder)
                SESSION.tell(f"published in {depot.url}/{folder}")

    @contextmanager
    def releasing(self, recipe: str) -> Iterator[None]:
        """Hold the recipe's lineage against other machines, from where it is published; then publish what is new of it.

        Raises:
            RunExists, StoreError: as `working_on`.
        """
        if self.depot is None:
            yield
            return
        with self.depot.leased(f"releases/{recipe}") as lease, lease.kept_up(lambda _: None):
            lineage = Lineage(releases_of(self.runs) / recipe)
            self._fetch(lineage)
            before = lineage.generations()
            yield
            for generation in lineage.generations():
                if generation not in before:
                    lease.beat()  # or hear that another took over
                    self.depot.publish(f"releases/{recipe}/{generation}")


def place_of(name: str) -> Place:
    """The place called `name`: a folder, or `PROTOCOL://BUCKET/FOLDER` as fsspec reads it, with releases beside FOLDER.

    Raises:
        UsageError: if a depot's name has no folder in its bucket.
    """
    protocol, separator, path = name.partition("://")
    if not separator:
        return Place(Path(name))
    parts = [part for part in path.split("/") if part]
    if len(parts) < 2 or any(part in (".", "..") for part in parts):
        raise UsageError(f"{name}: runs are kept in a folder of a bucket, as in {protocol}://BUCKET/runs")
    mirror = Path(os.environ.get("STILLHOUSE_DEPOTS", MIRRORS)).joinpath(protocol, *parts[:-1])
    return Place(mirror / parts[-1], Depot(f"{protocol}://{'/'.join(parts[:-1])}", mirror))
