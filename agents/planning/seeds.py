"""Seeds: the input that conditions each sample of a run, a function of the sample's index alone, and the check that
prompts find their values in them. Knows no teacher.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from copy import copy
from functools import lru_cache
from itertools import islice
from random import Random
from typing import Any, overload

import prompts
from agents.planning.run_plan import RunPlan
from agents.planning.seed_rows import MAX_REPORTED_FAULTS, SeedRow, load_documents
from agents.sources.conditions import draw_conditions
from agents.sources.seed_source import list_skipped_files
from core.config.agents import PASS_RATE
from core.errors import UsageError
from core.sample import CONDITIONS_KEY, Seed, json_digest

MOST_PROPOSALS = 32
"""Seeds that are drawn before one is used that a plugin's choice did not accept."""
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
        self.where, rows, self._lines = plan.seed_rows
        self._plan = plan
        self._digest = digest
        self._recorded = plan.recipe.seeds.recording is not None
        self._choice = plan.seed_choice
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
        placed, faults = _find_placed_columns(self._plan, self._names), []
        for row, columns in enumerate(self._columns):
            if all(names <= columns.keys() for names in placed.values()):
                continue
            seed = Seed(id="row-0", data=self._condition(row, Random(0)))
            for name, prompt in _find_missing_columns(self._plan, placed, seed).items():
                where = f"{self.where}:{self._lines[row]}"
                faults.append(f"{where}: has no {name!r}, which {prompt} places; give it to every seed")
            if len(faults) >= MAX_REPORTED_FAULTS:
                break
        if faults:
            raise UsageError("\n  ".join(faults[:MAX_REPORTED_FAULTS]))
        seed, plan = self[0], self._plan
        _check_prompt_placeholders(plan, seed)
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
        seeds._plan, seeds._digest, seeds._choice = plan, digest, plan.seed_choice
        return seeds

    def without_choice(self) -> "RunSeeds":
        """The same rows, and all seeds that the family draws."""
        seeds = copy(self)
        seeds._choice = None
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
        data = self._draw(row, rng, turn)
        choice, proposals = None if self._recorded else self._choice, 1
        while choice and proposals < MOST_PROPOSALS and not choice.accepts(data, rng):
            data = self._draw(rng.randrange(len(self.rows)), rng, turn)
            proposals += 1
        return Seed(id=f"{self._digest[:8]}-{index:06d}", data=data)

    def _draw(self, row: int, rng: Random, turn: int) -> dict[str, Any]:
        """The data of a seed: what the family makes of the row, and the conditions of the recipe."""
        data = self._condition(row, rng, turn)
        if self._plan.draws and not self._recorded:  # in addition to what the family draws
            data = {**data, CONDITIONS_KEY: {**data.get(CONDITIONS_KEY, {}), **draw_conditions(self._plan.draws, rng)}}
        return data

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


def _list_prompt_values(plan: RunPlan, role: str, seed: Seed) -> Set[str]:
    """The names that the prompt of this role may use as placeholders, for this seed."""
    family = plan.family
    if role in family.writes:
        return family.prompt_values(seed).keys()
    if role in family.revises:
        return family.prompt_values(seed).keys() | {"request", "draft", "advice", "faults"}
    if role == "critic":
        return {*seed.data, "answer", *family.fields, "conversation", *(() if family.converses else ("request",))}
    asking_checks = [bound for bound in plan.checks if role in bound.check.roles]
    try:  # our prompts use every value of their agent
        values = prompts.load_prompt(plan.recipe.family, role, None, plan.family.prompts).placeholders
    except UsageError:
        values = frozenset()
    if plan.attempt_check and plan.attempt_judge and plan.attempt_judge.role == role:
        asking_checks = [*asking_checks, plan.attempt_check]
    if any(bound.config.path is not None or bound.extension for bound in asking_checks):
        values |= plan.prompt(role).placeholders  # only a check of the user's knows its values
    return values | seed.data.keys() if asking_checks else values


def _check_prompt_placeholders(plan: RunPlan, seed: Seed) -> None:
    """Fill every prompt that this seed needs. Raises UsageError where a placeholder has no value."""
    roles = [role for role in plan.roles if role not in plan.family.writes]
    for role in (plan.family.prompt_role(seed), *roles):
        plan.prompt(role).fill(dict.fromkeys(_list_prompt_values(plan, role, seed), ""))


def _find_placed_columns(plan: RunPlan, columns: Set[str]) -> dict[str, Set[str]]:
    """The columns of the seeds that each prompt uses, by role."""
    return {role: plan.prompt(role).placeholders & columns for role in (*plan.family.writes, *plan.roles)}


def _find_missing_columns(plan: RunPlan, placed: Mapping[str, Set[str]], seed: Seed) -> dict[str, str]:
    """The `placed` columns that this seed lacks, each with the name of a prompt that uses it."""
    return {
        name: plan.prompt(role).name
        for role, names in placed.items()
        for name in sorted(names - _list_prompt_values(plan, role, seed))
    }
