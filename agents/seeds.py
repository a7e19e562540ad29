"""Seeds: what conditions each sample of a run, made from its index alone. Knows no teacher."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, overload

from agents.documents import Reading
from agents.draws import drawn
from agents.plan import Plan, documents_of
from core.errors import UsageError
from core.recipe import find_file
from core.sample import DRAWN, Seed, digest_of

Row = Mapping[str, Any]
TOLD_AT_ONCE = 10
"""Faults of a seeds file that one error tells."""
LOOKED_AT = 2000
"""Seeds in which each category of the quotas must occur."""
TOLD = 5
"""Files without a chunk that are named."""


class Seeds(Sequence[Seed]):
    """The run's seeds: rows in a shuffled order, gone through as often as needed, each conditioned anew.

    Each is made when it is asked for, so that a million cost no memory.
    """

    def __init__(self, plan: Plan, digest: str, made: Sequence[Row] = ()) -> None:
        """`made` are rows of the run's own, with `seeds.bootstrap`. Raises UsageError naming the line that cannot be used."""
        self.where, rows, self._lines = rows_of(plan)
        self._plan = plan
        self._digest = digest
        self.rows = self._gathered(rows, made)
        if faults := list(islice(self._faults(len(rows)), TOLD_AT_ONCE)):
            raise UsageError("\n  ".join(faults))

    def _faults(self, rows: int) -> Iterator[str]:
        for row in range(rows):
            try:
                self._condition(row, Random(0))
            except UsageError as error:
                yield str(error)

    def check(self) -> None:
        """Try the prompts on the first seed, and look whether the quotas can be met.

        Raises:
            UsageError: naming what cannot be.
        """
        seed, plan = self[0], self._plan
        values = {**plan.family.values(seed), **seed.drawn}
        plan.prompt(plan.family.role(seed)).fill(values)
        plan.prompt("revise").fill({**values, "draft": "", "advice": ""})
        groups = Counter(plan.recipe.group_of(seed.data) for seed in self[: min(LOOKED_AT, len(self))])
        if plan.recipe.quotas and (never := sorted(plan.recipe.goals.keys() - groups.keys())):
            by, there = plan.recipe.quotas.by, ", ".join(filter(None, map(str, groups))) or "nothing"
            raise UsageError(f"quotas.keep: no seed has {by!r} = {never[0]!r}; they have {there}")

    def grown(self, made: Sequence[Row]) -> "Seeds":
        """The same with rows that the run made."""
        return Seeds(self._plan, self._digest, made)

    @property
    def notes(self) -> list[str]:
        """What was read of the documents that they come from, and what was not, in sentences."""
        seeds = self._plan.recipe.seeds
        return _notes(documents_of(seeds, self._plan.folder)) if seeds.documents is not None else []

    def _gathered(self, rows: Sequence[Row], made: Sequence[Row]) -> Sequence[Row]:
        try:
            return self._plan.family.gathered(rows, made)
        except KeyError as error:
            name = self._plan.family.name
            raise UsageError(f"{self.where}: each seed of {name} needs the key {error}") from None

    def __len__(self) -> int:
        return self._plan.recipe.samples

    @overload
    def __getitem__(self, index: int) -> Seed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Seed]: ...
    def __getitem__(self, index: int | slice) -> Seed | list[Seed]:
        if isinstance(index, slice):
            return [self._seed(i) for i in range(*index.indices(len(self)))]
        return self._seed(range(len(self))[index])

    def _seed(self, index: int) -> Seed:
        number = self._plan.first + index // self._plan.recipe.answers_per_seed
        turn, place = divmod(number, len(self.rows))
        row = _shuffled(self._plan.recipe.seed, turn, len(self.rows))[place]
        rng = Random(digest_of([self._plan.recipe.seed, number]))
        data = self._condition(row, rng)
        if self._plan.draws:
            data = {**data, DRAWN: drawn(self._plan.draws, rng)}
        return Seed(id=f"{self._digest[:8]}-{index:06d}", data=data)

    def _condition(self, row: int, rng: Random) -> dict[str, Any]:
        try:
            return self._plan.family.condition(self.rows[row], self._plan.options, rng)
        except (KeyError, TypeError) as error:
            name = self._plan.family.name
            raise UsageError(f"{self.where}:{self._lines[row]}: a seed of {name} needs the key {error}") from None


@lru_cache(maxsize=4)
def _shuffled(seed: int, turn: int, count: int) -> list[int]:
    """The order in which the rows are gone through the `turn`-th time."""
    return Random(f"{seed}/{turn * count}").sample(range(count), count)


def _notes(reading: Reading) -> list[str]:
    files = len({chunk.source for chunk in reading.chunks})
    notes = [f"documents: {len(reading.chunks):,} chunks of {files:,} file{'s' * (files != 1)}"]
    if reading.skipped:
        shown = "; ".join(f"{source} {reason}" for source, reason in reading.skipped[:TOLD])
        more = f"; and {len(reading.skipped) - TOLD:,} more" if len(reading.skipped) > TOLD else ""
        notes.append(f"documents: no chunk of {len(reading.skipped):,}: {shown}{more}")
    if reading.short:
        notes.append(f"documents: the ends of {reading.short:,} are too short to be a chunk, and left out")
    return notes


class Rows(NamedTuple):
    where: str
    rows: Sequence[Row]
    lines: Sequence[int]
    """The line or the number of each, from 1."""


def rows_of(plan: Plan) -> Rows:
    """The rows of a run's seeds, and where they are.

    Raises:
        UsageError: naming what cannot be read.
    """
    seeds = plan.recipe.seeds
    if seeds.path is not None:
        path = find_file(seeds.path, plan.folder)
        rows = _read_parquet(path) if path.suffix == ".parquet" else _read_rows(path)
        return Rows(str(path), list(rows.values()), list(rows))
    if seeds.documents is not None:
        chunks = [chunk._asdict() for chunk in documents_of(seeds, plan.folder).chunks]
        return Rows(str(find_file(seeds.documents, plan.folder)), chunks, range(1, len(chunks) + 1))
    own = plan.family.rows(plan.options, plan.recipe.seed)
    if not own:
        raise UsageError(f"{plan.family.name}: has no seeds; name `seeds.path`, or what it is to make in [task]")
    return Rows(plan.family.name, own, range(1, len(own) + 1))


def _read_rows(path: Path) -> dict[int, dict[str, Any]]:
    """By their line."""
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")  # a JSON text may hold what else ends a line in Unicode
    except OSError as error:
        raise UsageError(f"{path}: the seeds cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{number}: is not UTF-8 text; save the file as UTF-8") from None
    rows, faults = {}, []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"{path}:{number}: is not JSON: {error}")
            continue
        if not isinstance(row, dict):
            faults.append(f"{path}:{number}: must be a JSON object, not {line.strip()[:40]!r}")
        rows[number] = row
    if faults:
        raise UsageError("\n  ".join(faults[:TOLD_AT_ONCE]))
    if not rows:
        raise UsageError(f"{path}: has no seeds")
    return rows


def _read_parquet(path: Path) -> dict[int, dict[str, Any]]:
    """The rows of a dataset, such as a run makes, by their number from 1."""
    from core.store import read_columns

    rows = dict(enumerate(read_columns(path).to_dicts(), 1))
    if not rows:
        raise UsageError(f"{path}: has no seeds")
    return rows
