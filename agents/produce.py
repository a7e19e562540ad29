"""Produce a shard: drive many samples through the topology at once, as fast as the teachers answer.

Knows neither Prefect nor where shards are kept; a plain coroutine for tests, notebooks and any task runner.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, cast, overload

from langchain_core.runnables import RunnableConfig

import prompts
from agents.brake import Stopped
from agents.budget import BudgetSpent
from agents.crew import Crew
from agents.families import FAMILIES, family_problems
from agents.state import Work, begin
from agents.teachers import teacher_problems
from agents.topology import build, step_limit
from core.errors import Problem, StillhouseError, UsageError
from core.recipe import Recipe
from core.sample import Candidate, Sample, Seed, Usage, digest_of


def recipe_problems(recipe: Recipe) -> list[Problem]:
    """Everything wrong in a recipe that agents can tell without asking a teacher."""
    found = [*family_problems(recipe), *teacher_problems(recipe)]
    return found if any(problem.where == "family" for problem in found) else [*found, *_prompt_problems(recipe)]


def _prompt_problems(recipe: Recipe) -> list[Problem]:
    roles = ["generator", "revise", "repair"]
    if recipe.agents.critic and recipe.agents.critic.type == "teacher":
        roles.append("critic")
    if any(verifier.type == "agreement" for verifier in recipe.verifiers):
        roles.append("verifier")
    problems = []
    for role in roles:
        try:
            prompts.load(recipe.family, role)
        except UsageError as error:
            problems.append(Problem("family", str(error)))
    return problems


class Seeds(Sequence[Seed]):
    """The run's seeds: rows of the seeds file in a shuffled order, gone through as often as needed, each conditioned anew.

    Each is made when it is asked for, from its index alone, so that a million cost no memory.
    """

    def __init__(self, recipe: Recipe, path: Path, digest: str) -> None:
        """Raises UsageError naming the line that cannot be used."""
        self.rows = _read_rows(path)
        self._recipe = recipe
        self._path = path
        self._digest = digest
        self._family = FAMILIES[recipe.family]
        self._options = self._family.options.model_validate(recipe.task)
        for row in range(len(self.rows)):
            self._condition(row, Random(0))

    def __len__(self) -> int:
        return self._recipe.samples

    @overload
    def __getitem__(self, index: int) -> Seed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Seed]: ...
    def __getitem__(self, index: int | slice) -> Seed | list[Seed]:
        if isinstance(index, slice):
            return [self._seed(i) for i in range(*index.indices(len(self)))]
        return self._seed(range(len(self))[index])

    def _seed(self, index: int) -> Seed:
        turn, place = divmod(index, len(self.rows))
        row = _shuffled(self._recipe.seed, turn, len(self.rows))[place]
        data = self._condition(row, Random(digest_of([self._recipe.seed, index])))
        return Seed(id=f"{self._digest[:8]}-{index:06d}", data=data)

    def _condition(self, row: int, rng: Random) -> dict[str, Any]:
        try:
            return self._family.condition(self.rows[row], self._options, rng)
        except (KeyError, TypeError) as error:
            raise UsageError(f"{self._path}:{row + 1}: a seed of {self._family.name} needs the key {error}") from None


@lru_cache(maxsize=4)
def _shuffled(seed: int, turn: int, count: int) -> list[int]:
    """The order in which the rows are gone through the `turn`-th time."""
    return Random(f"{seed}/{turn * count}").sample(range(count), count)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path}: the seeds cannot be read: {reason}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path}:{number}: must be a JSON object, not {line.strip()[:40]!r}")
        rows.append(row)
    if not rows:
        raise UsageError(f"{path}: has no seeds")
    return rows


class Shard(NamedTuple):
    """What one call of `produce` works with."""

    crew: Crew
    seeds: Sequence[Seed]
    done: Callable[[Sample], None]
    """Hears of each sample once all its answers are safe on the disk. May pull the brake."""


async def produce(shard: Shard) -> None:
    """Make one sample for each seed, many at once.

    Returns once everything that was begun has ended; fewer samples than seeds are then made if the brake says why.

    Raises:
        Exception: any bug, after what is under way was cancelled.
    """
    waiting = iter(shard.seeds)
    slots = shard.crew.desk.floor.most
    await together(_work(shard, waiting) for _ in range(min(len(shard.seeds), slots)))


async def _work(shard: Shard, waiting: Iterator[Seed]) -> None:
    desk = shard.crew.desk
    for seed in waiting:
        try:
            async with desk.sample(seed.index):
                sample = await make_sample(shard.crew, seed)
                await shard.crew.ledger.sync()
            shard.done(sample)
        except BudgetSpent as spent:
            desk.brake.hold(spent)
        except Stopped:
            return
        except StillhouseError as error:
            desk.brake.pull(error)


async def together(works: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Do all of `works` at once; if one ends in a bug, the others are cancelled. None is left running either way."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def make_sample(crew: Crew, seed: Seed) -> Sample:
    """Run one seed through the recipe's topology."""
    graph = build(crew.recipe.topology.kind)
    config = RunnableConfig(recursion_limit=step_limit(crew.recipe))
    work = cast(Work, await graph.ainvoke(begin(seed), config, context=crew))
    progress = work["progress"]
    outcome = progress.outcome
    assert outcome is not None, "a topology ends every sample"
    turns = [turn for handover in work["handovers"] for turn in handover.turns]
    return Sample(
        id=seed.id,
        seed=seed,
        state=outcome.state,
        reason=outcome.reason,
        detail=outcome.detail,
        candidate=progress.candidate or Candidate(messages=[]),
        revisions=progress.revision,
        turns=turns,
        critiques=list(progress.critiques),
        verdicts=list(progress.verdicts),
        usage=sum((turn.usage for turn in turns), Usage()),
    )
