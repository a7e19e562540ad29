"""Seeds: the input that conditions each sample of a run, a function of the sample's index alone. Knows no teacher."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, overload

from agents.planning.prompt_values import check_prompt_placeholders, find_missing_columns, find_placed_columns
from agents.planning.run_plan import RunPlan, load_documents
from agents.sources.conditions import draw_conditions
from agents.sources.seed_source import list_skipped_files
from core.config.difficulty import PASS_RATE
from core.errors import UsageError
from core.project_files import find_referenced_file
from core.sample import CONDITIONS_KEY, Seed, json_digest
from core.storage.bounded_reading import check_parquet_file, check_regular_file
from core.storage.recording import read_recording

SeedRow = Mapping[str, Any]
MAX_REPORTED_FAULTS = 10
"""Faults of a seeds file in one error message."""
MAX_CHECKED_SEEDS = 2000
"""Seeds among which each category of the quotas must occur."""


class RunSeeds(Sequence[Seed]):
    """The run's seeds: rows in shuffled order, repeated as often as needed, each with new conditions.

    A seed is made when it is accessed, so that a million seeds cost no memory.
    """

    def __init__(self, plan: RunPlan, digest: str, made: Sequence[SeedRow] = ()) -> None:
        """Load and validate the rows.

        Args:
            plan: the run's plan.
            digest: the run's digest, the beginning of each seed's id.
            made: with `seeds.bootstrap`, rows that the run made, each with the data of the `seed` that it came from.

        Raises:
            UsageError: naming the line that cannot be used.
        """
        self.where, rows, self._lines = load_seed_rows(plan)
        self._plan = plan
        self._digest = digest
        self._recorded = plan.recipe.seeds.recording is not None
        self._names = set[str]().union(*rows)
        inherited = ({key: row["seed"][key] for key in self._names & row.get("seed", {}).keys()} for row in made)
        self._columns: Sequence[SeedRow] = [*rows, *inherited]
        own = [{key: row[key] for key in row.keys() - {"seed"}} for row in made]
        try:
            self.rows = rows if self._recorded else plan.family.gather_rows(rows, own)
        except KeyError as error:
            raise UsageError(f"{self.where}: each seed of {plan.family.name} needs the key {error}") from None
        self._shadowed: set[str] = set()
        if faults := dict.fromkeys(islice(self._faults(len(rows)), MAX_REPORTED_FAULTS)):
            raise UsageError("\n  ".join(faults))

    def _faults(self, rows: int) -> Iterator[str]:
        reserved = (CONDITIONS_KEY, *self._plan.draws)
        if not self._recorded and (taken := [name for name in reserved if name in self._names]):
            if self._plan.seed_source and not set(taken) - {*self._plan.seed_source.columns}:
                source = self._plan.seed_source.name
                yield f"seeds.draw: {', '.join(taken)} is what each seed of {source} has anyway; choose another name"
                return
            yield (
                f"{self.where}: a seed cannot have the column {', '.join(map(repr, taken))}: reserved names are "
                f"{CONDITIONS_KEY!r}, which holds what is drawn for a sample, and those in [seeds.draw] "
                f"({', '.join(self._plan.draws) or 'none here'}); "
                "rename the column"
            )
            return
        for row in range(rows):
            if self._recorded:
                try:
                    self._check_recorded(Seed(id="row-0", data=dict(self.rows[row])))
                except (LookupError, TypeError, ValueError, AttributeError) as error:
                    yield (
                        f"{self.where}:{self._lines[row]}: the seed is not one of this version of {self._plan.family.name}: "
                        f"{type(error).__name__}: {error}; record it again"
                    )
                continue
            try:
                tracked = _TrackedRow(self.rows[row])
                data = self._condition_row(tracked, row, Random(0))
            except UsageError as error:
                yield str(error)
            else:
                columns = self._columns[row]
                unread = columns.keys() & data.keys() - tracked.read_keys
                self._shadowed |= {name for name in unread if columns[name] != data[name]}

    def _check_recorded(self, seed: Seed) -> None:
        """Use a seed as a sample's first steps do. Raises whatever they raise."""
        family = self._plan.family
        for use in (family.prompt_role, family.prompt_values, family.reply_json_schema, family.questions):
            use(seed)

    def check(self) -> None:
        """Check that the prompts can be filled, that each seed has the columns that they use, and that the quotas can be met.

        Raises:
            UsageError: with the faults.
        """
        placed, faults = find_placed_columns(self._plan, self._names), []
        for row, columns in enumerate(self._columns):
            if all(names <= columns.keys() for names in placed.values()):
                continue
            seed = Seed(id="row-0", data=self._condition(row, Random(0)))
            for name, prompt in find_missing_columns(self._plan, placed, seed).items():
                where = f"{self.where}:{self._lines[row]}"
                faults.append(f"{where}: has no {name!r}, which {prompt} places; give it to every seed")
            if len(faults) >= MAX_REPORTED_FAULTS:
                break
        if faults:
            raise UsageError("\n  ".join(faults[:MAX_REPORTED_FAULTS]))
        seed, plan = self[0], self._plan
        check_prompt_placeholders(plan, seed)
        groups = Counter(plan.recipe.find_group(seed.data) for seed in self[: min(MAX_CHECKED_SEEDS, len(self))])
        if plan.recipe.groups_by_seed and (absent := sorted(plan.recipe.goals.keys() - groups.keys())):
            assert plan.recipe.quotas, "groups of seeds are quotas"
            if plan.recipe.quotas.by == PASS_RATE and plan.recipe.difficulty is None:
                raise UsageError(f'quotas.by = "{PASS_RATE}" needs the table [difficulty], which measures it')
            by, present = plan.recipe.quotas.by, ", ".join(filter(None, map(str, groups))) or "nothing"
            raise UsageError(f"quotas.keep: no seed has {by!r} = {absent[0]!r}; they have {present}")

    def list_column(self, name: str) -> Iterator[tuple[str, Any]]:
        """The values of a column of the rows that were read, each with its file and line. Rows without it are left out."""
        for line, columns in zip(self._lines, self._columns, strict=False):  # rows that the run made have no line
            if name in columns:
                yield f"{self.where}:{line}", columns[name]

    def for_run(self, plan: RunPlan, digest: str) -> "RunSeeds":
        """The same rows with a run's digest and plan, whose seeds may start after those of an earlier release."""
        seeds = copy(self)
        seeds._plan, seeds._digest = plan, digest
        return seeds

    def with_rows(self, made: Sequence[SeedRow]) -> "RunSeeds":
        """The same seeds with rows that the run made."""
        return RunSeeds(self._plan, self._digest, made)

    @property
    def notes(self) -> list[str]:
        """Sentences about the documents that were read or skipped, and about columns that are not used."""
        seeds, notes = self._plan.recipe.seeds, []
        if seeds.documents is not None:
            documents = load_documents(seeds, self._plan.folder)
            files = len({chunk.source for chunk in documents.chunks})
            notes.append(f"documents: {len(documents.chunks):,} chunks of {files:,} file{'s' * (files != 1)}")
            if documents.skipped:
                notes.append(f"documents: no chunk of {list_skipped_files(documents.skipped)}")
            if documents.short_endings:
                notes.append(
                    f"documents: the ends of {documents.short_endings:,} are too short to be a chunk, and left out"
                )
        if self._plan.seed_source:
            notes += self._plan.seed_source.list_notes()
        if self._shadowed:
            names = ", ".join(sorted(self._shadowed))
            notes.append(f"seeds: {self._plan.family.name} makes {names} itself, so a column of that name is not used")
        return notes

    def __len__(self) -> int:
        return self._plan.recipe.samples

    @overload
    def __getitem__(self, index: int) -> Seed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Seed]: ...
    def __getitem__(self, index: int | slice) -> Seed | list[Seed]:
        if isinstance(index, slice):
            return [self._make_seed(i) for i in range(*index.indices(len(self)))]
        return self._make_seed(range(len(self))[index])

    def _make_seed(self, index: int) -> Seed:
        number = self._plan.first_seed + index // self._plan.recipe.answers_per_seed
        turn, position = divmod(number, len(self.rows))
        row = position if self._recorded else _shuffle_rows(self._plan.recipe.seed, turn, len(self.rows))[position]
        rng = Random(json_digest([self._plan.recipe.seed, number]))
        data = self._condition(row, rng, turn)
        if self._plan.draws and not self._recorded:  # in addition to what the family draws
            data = {**data, CONDITIONS_KEY: {**data.get(CONDITIONS_KEY, {}), **draw_conditions(self._plan.draws, rng)}}
        return Seed(id=f"{self._digest[:8]}-{index:06d}", data=data)

    def _condition(self, row: int, rng: Random, turn: int = 0) -> dict[str, Any]:
        """The seed data that the family makes from a row, and the row's other columns."""
        data = self._condition_row(self.rows[row], row, rng, turn)
        return data | {name: value for name, value in self._columns[row].items() if name not in data}

    def _condition_row(self, values: SeedRow, row: int, rng: Random, turn: int = 0) -> dict[str, Any]:
        if self._recorded:
            return dict(values)
        try:
            return self._plan.family.condition_again(values, self._plan.options, rng, turn)
        except (KeyError, TypeError) as error:
            name = self._plan.family.name
            raise UsageError(f"{self.where}:{self._lines[row]}: a seed of {name} needs the key {error}") from None


class _TrackedRow(dict[str, Any]):
    """A row that records which of its columns a family reads."""

    def __init__(self, row: SeedRow) -> None:
        super().__init__(row)
        self.read_keys: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read_keys.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.read_keys.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read_keys.add(key)
        return super().get(key, default)


@lru_cache(maxsize=4)
def _shuffle_rows(seed: int, turn: int, count: int) -> list[int]:
    """The order of the rows in pass number `turn`."""
    return Random(f"{seed}/{turn * count}").sample(range(count), count)


class SeedRows(NamedTuple):
    """Rows of seeds, and their source."""

    where: str
    """The file or folder, or the family that makes the rows."""
    rows: Sequence[SeedRow]
    lines: Sequence[int]
    """The line or the number of each row, from 1."""


def load_seed_rows(plan: RunPlan) -> SeedRows:
    """The rows of a run's seeds.

    Raises:
        UsageError: naming the file or line that cannot be read.
    """
    seeds = plan.recipe.seeds
    if seeds.path is not None:
        path = find_referenced_file(seeds.path, plan.folder)
        numbered = _read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path)
        return SeedRows(str(path), list(numbered.values()), list(numbered))
    if seeds.recording is not None:
        path = find_referenced_file(seeds.recording, plan.folder)
        recorded = read_recording(path)
        if other := next((sample.family for sample in recorded if sample.family != plan.family.name), None):
            raise UsageError(f"{path}: is a recording of the family {other}, and the recipe's is {plan.family.name}")
        return SeedRows(str(path), [sample.seed for sample in recorded], range(1, len(recorded) + 1))
    if seeds.documents is not None:
        chunks = [chunk._asdict() for chunk in load_documents(seeds, plan.folder).chunks]
        return SeedRows(str(find_referenced_file(seeds.documents, plan.folder)), chunks, range(1, len(chunks) + 1))
    if plan.seed_source:
        found = plan.seed_source.read_rows()
        return SeedRows(str(find_referenced_file(plan.seed_source.file, plan.folder)), [*found.values()], [*found])
    rows = plan.family.rows(plan.options, plan.recipe.seed)
    if not rows:
        raise UsageError(f"{plan.family.name}: has no seeds; name `seeds.path`, or what it is to make in [task]")
    return SeedRows(plan.family.name, rows, range(1, len(rows) + 1))


def _read_jsonl(path: Path) -> dict[int, dict[str, Any]]:
    """The rows of a JSONL file, by line number."""
    try:
        check_regular_file(path)
        content = path.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")  # only "\n": JSON text may contain other line ends of Unicode
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
        elif has_surrogate(line, row):
            faults.append(
                f"{path}:{number}: has half a surrogate pair (\\ud800 to \\udfff), which is no character; take it out"
            )
        rows[number] = row
    if faults:
        raise UsageError("\n  ".join(faults[:MAX_REPORTED_FAULTS]))
    if not rows:
        raise UsageError(f"{path}: has no seeds")
    return rows


def has_surrogate(line: str, row: SeedRow) -> bool:
    """Whether a JSON row contains half a surrogate pair as an escape, which UTF-8 cannot encode."""
    if "\\u" not in line:
        return False
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _read_parquet(path: Path) -> dict[int, dict[str, Any]]:
    """The rows of a Parquet dataset, by number from 1."""
    from core.storage.sample_files import read_sample_columns

    try:
        check_parquet_file(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: the seeds cannot be read: {error}") from None
    # through JSON, so that dates become text
    parsed = (json.loads(json.dumps(row, default=str)) for row in read_sample_columns(path).to_dicts())
    rows = dict(enumerate(parsed, 1))
    if not rows:
        raise UsageError(f"{path}: has no seeds")
    return rows
